#include "plan/memory.h"

#include <gtest/gtest.h>

#include "models/adapters.h"
#include "plan/activations.h"
#include "tests/plan/shapes.h"

namespace retort::plan {
namespace {

constexpr double kGiB = 1024.0 * 1024 * 1024, kWithin = 0.001;
constexpr double kBlock = 1 << 15;  // elements, to which a rank's share is rounded

// How Megatron's theoretical_memory_usage.py would have it (sequence parallel, selective recomputation): the same states and
// lists of kept tensors, cut by its meshes. It counts SwiGLU's activations as GELU's, without the gate.
struct MegatronRow {
  models::DecoderSpec spec;
  int64_t gpus, tensor, pipeline, interleaved, micro_batches;
  double states, activations;  // published, GiB
  bool same_gelu = true;
};

double megatron_states(const MegatronRow& row) {
  const double table = static_cast<double>(row.spec.vocabulary * row.spec.width);
  const double N = static_cast<double>(count_parameters(shape(row.spec)->parameters()).stored);
  const bool untied = !row.spec.tie_embeddings;
  const double stack = N - (untied ? 2 : 1) * table;
  double shard = stack / static_cast<double>(row.pipeline) + table;
  if (untied && row.pipeline == 1) shard += table;
  shard /= static_cast<double>(row.tensor);
  const States whole{
      .weights = 4 * shard, .working = 2 * shard, .gradients = 4 * shard, .optimizer = 8 * shard};
  return sharded(whole, Policy::kZero1, row.gpus / (row.tensor * row.pipeline)).total();
}

// Korthikanti et al. 2022, table 2: 18 h + 4 f bytes a token and layer.
double megatron_layer(double h, double f) {
  return bytes_a_token({{"norms' inputs", 2 * h, 2},
                        {"attention's input", h, 2},
                        {"q and k", 2 * h, 2},
                        {"v", h, 2},
                        {"projection's input", h, 2},
                        {"ffn's input", h, 2},
                        {"activation's input and output", 2 * f, 2},
                        {"dropout masks", 2 * h, 1}});
}

double megatron_activations(const MegatronRow& row, double tokens) {
  const double h = static_cast<double>(row.spec.width), f = static_cast<double>(row.spec.ffn_width),
               V = static_cast<double>(row.spec.vocabulary), p = static_cast<double>(row.pipeline);
  double bytes = tokens * static_cast<double>(row.spec.layers) * megatron_layer(h, f);
  bytes += tokens * p * bytes_a_token({{"token ids", 1, 8}, {"dropout mask of the embedding", h, 1}});
  if (row.interleaved > 0)
    bytes *= 1 + (p - 1) / (p * static_cast<double>(row.interleaved));
  else if (row.pipeline > 1)
    bytes *= std::min(1.0, static_cast<double>(row.micro_batches) / p);
  if (row.pipeline == 1) bytes += tokens * bytes_a_token({{"the head's input", h, 4}, {"logits", V, 4}});
  return bytes / static_cast<double>(row.tensor);
}

void expect_row(const MegatronRow& row, double tokens = 8192) {
  EXPECT_NEAR(megatron_states(row) / kGiB, row.states, kWithin * row.states);
  EXPECT_NEAR(megatron_activations(row, tokens) / kGiB, row.activations, kWithin * row.activations);
}

// Megatron has no learned positions and no biases in its count.
models::DecoderSpec gpt3_175b() {
  models::DecoderSpec spec = gpt(96, 12288, 96, 51200, 2048);
  return spec;
}

Workload small(int64_t rows, int64_t micro_batches = 1, bool bf16 = false) {
  return workload_of(
      *shape({.vocabulary = 4096, .layers = 2, .width = 64, .heads = 2, .kv_heads = 2, .head_dim = 32}),
      {.rows = rows, .sequence = 256, .micro_batches = micro_batches}, {.bf16 = bf16});
}

// Elements of the rank that owns the most.
int64_t most_owned(const Workload& work) {
  std::vector<Rows> rows;
  for (const MadeGradient& one : work.pass.gradients) rows.push_back(one.rows);
  const OwnedRows owners(rows, work.batch.shards());
  int64_t most = 0;
  for (int64_t rank = 0; rank < work.batch.shards(); ++rank) {
    int64_t sum = 0;
    for (size_t i = 0; i < rows.size(); ++i) sum += owners.elements(i, rank);
    most = std::max(most, sum);
  }
  return most;
}

const Memory& at(const std::vector<Moment>& all, const std::string& name) {
  for (const Moment& one : all)
    if (one.name == name) return one.memory;
  throw std::runtime_error("no moment " + name);
}

}  // namespace

TEST(MemoryMegatron, Llama3Of8bOn8Tp1) { expect_row({llama3_8b(), 8, 1, 1, 0, 1, 56.09, 36.07}); }
TEST(MemoryMegatron, Llama3Of8bOn8Tp2) { expect_row({llama3_8b(), 8, 2, 1, 0, 1, 33.66, 18.04}); }
TEST(MemoryMegatron, Llama3Of70bOn64Tp4Pp4) { expect_row({llama3_70b(), 64, 4, 4, 0, 32, 38.06, 40.06}); }
TEST(MemoryMegatron, Llama3Of70bOn64Tp8Pp2) { expect_row({llama3_70b(), 64, 8, 2, 0, 32, 36.97, 20.02}); }
TEST(MemoryMegatron, Llama3Of70bOn64Tp8Pp4Interleaved5) {
  expect_row({llama3_70b(), 64, 8, 4, 5, 32, 25.38, 23.04});
}
TEST(MemoryMegatron, Gpt3Of175bOn128Tp8Pp8Interleaved6) {
  expect_row({gpt3_175b(), 128, 8, 8, 6, 0, 31.26, 10.98}, 2048);
}
TEST(MemoryMegatron, Gpt3Of175bOn64Tp8Pp8Interleaved3) {
  expect_row({gpt3_175b(), 64, 8, 8, 3, 0, 46.89, 12.38}, 2048);
}
TEST(MemoryMegatron, Gpt3Of175bOn512Tp4Pp8) {
  expect_row({gpt3_175b(), 512, 4, 8, 0, 48, 35.16, 19.17}, 2048);
}
TEST(MemoryMegatron, Llama3Of405bOn16384Tp8Pp16) {
  expect_row({llama3_405b(), 16384, 8, 16, 0, 16, 19.30, 61.28});
}

// Rajbhandari et al. 2020, figure 1: 7.5 B parameters on 64 GPUs, f16 gradients.
TEST(MemoryZero, Figure1) {
  const double P = 7.5e9;
  const States whole{.weights = 4 * P, .working = 2 * P, .gradients = 2 * P, .optimizer = 8 * P};
  const auto gigabytes = [&](Policy policy) { return sharded(whole, policy, 64).total() / 1e9; };
  EXPECT_NEAR(gigabytes(Policy::kNone), 120, 0.12);
  EXPECT_NEAR(gigabytes(Policy::kZero1), 31.4, 0.04);
  EXPECT_NEAR(gigabytes(Policy::kGradients), 16.6, 0.05);
  EXPECT_NEAR(gigabytes(Policy::kParameters), 1.9, 0.05);
}

// DeepSpeed's table: 2851 M parameters on 8 GPUs at stage 3, with 4 bytes for each of the largest layer's 32 M.
TEST(MemoryZero, DeepSpeedsStage3) {
  const double P = 2851e6;
  const States whole{.weights = 4 * P, .working = 2 * P, .gradients = 4 * P, .optimizer = 8 * P};
  EXPECT_NEAR((sharded(whole, Policy::kParameters, 8).total() + 4 * 32e6) / kGiB, 6.09, 0.01);
}

TEST(MemoryStates, WithoutAWorkingCopyTheMastersAreMultiplied) {
  const States whole{.weights = 4, .working = 0, .gradients = 4, .optimizer = 8};
  EXPECT_DOUBLE_EQ(sharded(whole, Policy::kZero1, 8).total(), 4 + 4 + 1);
  EXPECT_DOUBLE_EQ(sharded(whole, Policy::kGradients, 8).total(), 4 + 0.5 + 1);
  EXPECT_DOUBLE_EQ(sharded(whole, Policy::kParameters, 8).total(), 2);
}

TEST(Memory, PartsAddUp) {
  for (const Moment& moment : moments(small(8, 3, true))) {
    double sum = 0;
    for (const auto& [name, bytes] : moment.memory.parts()) sum += bytes;
    EXPECT_DOUBLE_EQ(sum, moment.memory.total()) << moment.name;
  }
}

// What the logits of all rows would be: N V. Two teachers, and one that is kept as labels.
TEST(Memory, DistillationIsFlatInTokens) {
  const auto head_and_teacher = [](int64_t rows) {
    Workload work = small(rows);
    work.distills = true;
    work.teachers = {
        teacher_of(*shape({.vocabulary = 4096, .layers = 2, .width = 32, .heads = 1, .kv_heads = 1}), false)};
    const Memory loss = at(moments(work), "loss");
    return loss.head + loss.teacher;
  };
  const double tokens = 256 * 64, logits = 4 * tokens * 4096;  // of 64 rows more
  const double growth = head_and_teacher(128) - head_and_teacher(64);
  EXPECT_DOUBLE_EQ(growth, tokens * (64 * (4 + 4) + 4 * 32)) << "hidden states alone";
  EXPECT_LT(growth, logits / 20);
}

TEST(Memory, EarlierMicroBatchesKeepASumForEachLevel) {
  const double P = static_cast<double>(small(1).parameters.trained());
  const auto sums = [&](int64_t micro_batches) {
    return at(moments(small(1, micro_batches)), "loss").states.gradients -
           at(moments(small(1, 1)), "loss").states.gradients;
  };
  EXPECT_DOUBLE_EQ(sums(2), 4 * P);
  EXPECT_DOUBLE_EQ(sums(4), 8 * P);
  EXPECT_DOUBLE_EQ(sums(8), 12 * P);
}

TEST(Memory, AFrozenBaseHasNeitherGradientsNorOptimizer) {
  Workload work = small(1);
  work.parameters.frozen_matrices = work.parameters.trained_matrices;
  work.parameters.trained_matrices = 0;
  work.head.trained = false;
  const Memory update = at(moments(work), "update");
  const double P = static_cast<double>(work.parameters.trained_f32);
  EXPECT_DOUBLE_EQ(update.states.gradients, 4 * P);
  EXPECT_DOUBLE_EQ(update.states.optimizer, 8 * P);
  EXPECT_DOUBLE_EQ(update.states.weights, 4 * static_cast<double>(small(1).parameters.stored));
  work.parameters.coded = work.parameters.frozen_matrices;
  work.parameters.code_bytes = 100;
  EXPECT_DOUBLE_EQ(at(moments(work), "update").states.weights, 4 * P + 100);
}

// Of 18 bytes a weight in bf16 10 + 8/ranks remain (docs/launching.md).
TEST(MemoryStates, ParallelShardDividesTheMomentsAlone) {
  const States whole{.weights = 4, .working = 2, .gradients = 4, .optimizer = 8};
  EXPECT_DOUBLE_EQ(sharded(whole, Policy::kOptimizer, 4).total(), 10 + 8.0 / 4);
  EXPECT_EQ(policy_name(Policy::kOptimizer), "optimizer");
  EXPECT_DOUBLE_EQ(sharded(whole, Policy::kGradients, 4).total(), 2 + 16.0 / 4);
  for (const Policy policy : kPolicies) EXPECT_EQ(policy_of(policy_name(policy)), policy);
  EXPECT_EQ(policy_name(Policy::kZero1), "ZeRO-1");
  EXPECT_FALSE(in_engine(Policy::kZero1));
  EXPECT_TRUE(in_engine(Policy::kGradients));
  EXPECT_TRUE(in_engine(Policy::kParameters));
}

// Of 16 or 18 bytes a weight one share, and two groups whole while they are read; in a validation they are f32.
TEST(Memory, DividedParametersAreOfOwnedRows) {
  for (const bool bf16 : {false, true}) {
    Workload work = small(1, 4, bf16);
    work.batch.ranks = 4;
    const double P = static_cast<double>(work.parameters.trained()),
                 matrices = static_cast<double>(work.parameters.trained_matrices), e = bf16 ? 2 : 4,
                 whole = work.gathered.at_once.bytes(e);
    const auto states = [&](const char* name) { return at(moments(work, Policy::kParameters), name).states; };
    EXPECT_DOUBLE_EQ(work.gathered.divided.all(), P);
    EXPECT_GT(whole, 0);
    EXPECT_DOUBLE_EQ(states("update").weights, P);
    EXPECT_DOUBLE_EQ(states("update").working, bf16 ? e * matrices / 4 : 0);
    EXPECT_DOUBLE_EQ(states("update").gradients, P);
    EXPECT_DOUBLE_EQ(states("update").optimizer, 2 * P);
    EXPECT_NEAR(states("loss").working, states("update").working + whole, kBlock * e);
    EXPECT_LT(states("backward").working, states("loss").working)
        << "of the first layer the embedding is gone";
    work.validates = work.starts_whole = true;
    const Memory judged = at(moments(work, Policy::kParameters), "validation");
    const double two = work.gathered.at_once.bytes(4);
    EXPECT_DOUBLE_EQ(judged.states.weights, P);
    EXPECT_DOUBLE_EQ(judged.states.working, bf16 ? e * matrices / 4 : two);
    EXPECT_DOUBLE_EQ(judged.judged, bf16 ? P + two : 0);
    EXPECT_DOUBLE_EQ(states("start").weights, 4 * P);
    EXPECT_DOUBLE_EQ(states("start").optimizer, 0);
    work.batch.replicas = 2;  // groups of two
    EXPECT_DOUBLE_EQ(states("update").weights, 2 * P);
    EXPECT_DOUBLE_EQ(states("update").gradients, 2 * P);
    EXPECT_DOUBLE_EQ(states("update").optimizer, 4 * P);
    work.batch.replicas = 4;
    EXPECT_DOUBLE_EQ(states("update").weights, 4 * P);
    EXPECT_DOUBLE_EQ(states("update").optimizer, 8 * P);
  }
}

// One rank, and ranks that do not divide weights, read all of it in f32 before its codes are there.
TEST(Memory, ABaseInCodesIsWholeAtAStart) {
  const models::DecoderSpec spec{.vocabulary = 256,
                                 .layers = 4,
                                 .width = 512,
                                 .heads = 8,
                                 .kv_heads = 8,
                                 .head_dim = 64,
                                 .ffn_width = 1408};
  const auto model = models::adapt(shape(spec), {}, 0);
  const auto work_of = [&](const char* base, int64_t ranks) {
    return workload_of(*model, {.rows = 1, .sequence = 16, .ranks = ranks}, {.base = base});
  };
  const Workload codes = work_of("nf4", 1);
  const double whole = 4.0 * static_cast<double>(codes.parameters.trained() + codes.parameters.frozen());
  EXPECT_EQ(peak(codes).name, "start");
  EXPECT_DOUBLE_EQ(peak(codes).memory.states.weights, whole);
  EXPECT_DOUBLE_EQ(peak(codes).memory.states.optimizer, 0);
  EXPECT_LT(at(moments(codes, Policy::kNone), "update").total(), whole / 4);
  EXPECT_DOUBLE_EQ(at(moments(work_of("nf4", 4), Policy::kGradients), "start").states.weights, whole);
  const auto has_start = [](const Workload& work, Policy policy) {
    const std::vector<Moment> all = moments(work, policy);
    return std::ranges::find(all, "start", &Moment::name) != all.end();
  };
  EXPECT_FALSE(has_start(work_of("nf4", 4), Policy::kParameters)) << "each rank reads its rows";
  EXPECT_FALSE(has_start(work_of("f32", 1), Policy::kNone));
  Workload on_device = codes;
  on_device.on_device = true;
  EXPECT_FALSE(has_start(on_device, Policy::kNone)) << "codes are made on the host";
}

// Sums of owned rows; the masters in f32 are what is multiplied, and stay whole.
TEST(Memory, DividedGradientsAreOfOwnedRows) {
  const auto at_moment = [&](const Workload& work, const char* name) {
    return at(moments(work, Policy::kGradients), name).states;
  };
  for (const bool bf16 : {false, true}) {
    Workload work = small(1, 4, bf16);
    work.batch.ranks = 4;
    const double P = static_cast<double>(work.parameters.trained()),
                 matrices = static_cast<double>(work.parameters.trained_matrices);
    EXPECT_DOUBLE_EQ(at_moment(work, "update").gradients, P);
    EXPECT_DOUBLE_EQ(at_moment(work, "update").optimizer, 2 * P);
    EXPECT_DOUBLE_EQ(at_moment(work, "update").weights, 4 * P - (bf16 ? 3 * matrices : 0));
    if (!bf16) {
      // A small model is one bucket and one piece. When that of the last turn is packed, one of the turn before is under way,
      // and the first half of the turns is in a sum: of the rank that owns the most, a row each.
      const double most = static_cast<double>(most_owned(work));
      EXPECT_DOUBLE_EQ(at_moment(work, "gradients").gradients,
                       4 * most + (4 * P + 4 * 4 * most) + std::max(4 * P + 4 * P, 4 * P + 4 * 4 * most));
    }
    work.validates = true;
    if (bf16) {
      EXPECT_DOUBLE_EQ(at_moment(work, "validation").weights, 4 * P);
    }
  }
}

// What a collective needs beside it is a bucket: on a device one of 64 MiB, or all that there is.
TEST(Memory, ACollectivesBufferIsABucket) {
  Workload work = small(1);
  work.batch.ranks = 2;
  work.pass.gradients.assign(6, {.rows = {int64_t{5} << 20, {0, 1, 1}, false}, .f32 = true});  // 20 MiB each
  const auto buffer = [&](bool on_device, size_t gradients) {
    Workload more = work;
    more.on_device = on_device;
    more.pass.gradients.resize(gradients);
    more.batch.ranks = 1;
    const double alone = at(moments(more), "update").data;
    more.batch.ranks = 2;
    return (at(moments(more), "update").data - alone) / (1 << 20);
  };
  EXPECT_DOUBLE_EQ(buffer(false, 6), 20);
  EXPECT_DOUBLE_EQ(buffer(true, 6), 80);
  EXPECT_DOUBLE_EQ(buffer(true, 2), 40);
}

// The copy stays beside later steps, where there are any.
TEST(Memory, AnAsynchronousSaveKeepsACopy) {
  Workload work = small(1);
  const double P = static_cast<double>(work.parameters.trained());
  EXPECT_EQ(moments(work).back().name, "update");
  const double before = peak(work).memory.total();
  work.copies_saves = true;
  EXPECT_DOUBLE_EQ(at(moments(work), "save").saved, 12 * P + 8);
  EXPECT_DOUBLE_EQ(at(moments(work), "save").total(), at(moments(work), "update").total() + 12 * P + 8);
  EXPECT_DOUBLE_EQ(at(moments(work), "loss").saved, 0);
  work.saves_midway = true;
  EXPECT_DOUBLE_EQ(peak(work).memory.total(), before + 12 * P + 8);
}

TEST(Memory, PoliciesTakeLessTheMoreTheyDivide) {
  Workload work = small(1, 1, true);
  work.batch.ranks = 16;
  double before = peak(work).memory.total();
  for (const Policy policy : {Policy::kOptimizer, Policy::kZero1, Policy::kGradients}) {
    const double now = peak(work, policy).memory.total();
    EXPECT_LT(now, before) << policy_name(policy);
    before = now;
  }
}

}  // namespace retort::plan
