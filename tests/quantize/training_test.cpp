// Training on every grid, as a whole: a decoder whose head is tied and whose layers share one FFN, some steps
// of an optimizer, ranks, a checkpoint in between, the file, and the file read back.
#include <gmock/gmock.h>

#include <map>
#include <mutex>
#include <set>

#include "comm/comm.h"
#include "core/random.h"
#include "data/tokenizers/tokenizer.h"
#include "models/family.h"
#include "models/gguf_model.h"
#include "models/hf_folder.h"
#include "quantize/learned_scale.h"
#include "quantize/quantize_map.h"
#include "tests/testing.h"
#include "train/checkpoint.h"
#include "train/step.h"

namespace retort::quantize {
namespace {

using models::Parameter;
using testing::same_bits;

models::DecoderSpec shared_spec() {
  return {.vocabulary = 256,
          .context = 32,
          .layers = 2,
          .width = 256,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 64,
          .ffn_width = 256,
          .tie_embeddings = true,
          .share_ffn = true};
}

data::Batch sample_batch(uint64_t number) {
  at::Tensor tokens = at::empty({2, 17}, at::kLong);
  const Random random(9, "test/batch", number);
  for (int64_t i = 0; i < tokens.numel(); ++i)
    tokens.mutable_data_ptr<int64_t>()[i] = static_cast<int64_t>(random.below(static_cast<uint64_t>(i), 96));
  data::Batch batch;
  batch.tokens_BT = tokens.slice(1, 0, 16).contiguous();
  batch.labels_BT = tokens.slice(1, 1).contiguous();
  return batch;
}

QuantizeOptions on(const std::string& grid, int64_t from_step = 0) {
  return {.weights = {grid}, .embedding = {grid}, .head = {grid}, .except = {}, .from_step = from_step};
}

// One rank's model, map and optimizer.
struct Training {
  explicit Training(const QuantizeOptions& options, at::ScalarType dtype = at::kFloat,
                    const models::DecoderSpec& spec = shared_spec(), const std::set<std::string>& frozen = {})
      : model(spec),
        map(options, freeze(model.parameters(), frozen)),
        objective(train::make_cross_entropy()) {
    models::initialise(model.parameters(), "gpt2", 0.05, 7);
    optimizer = train::make_optimizer({.lr = 3e-3}, model.parameters());
    models::bind_working(model.parameters(), map, dtype);
  }
  void train(int64_t begin, int64_t end, comm::Comm& comm, int64_t micro_batches) {
    train::TrainStep step({model, map, *objective, *optimizer, comm}, micro_batches, 1.0);
    for (int64_t s = begin; s < end; ++s) {
      std::vector<data::Batch> batches;
      for (int64_t g = 0; g < micro_batches; ++g)
        batches.push_back(
            sample_batch(static_cast<uint64_t>((s * comm.size() + comm.rank()) * micro_batches + g)));
      losses.push_back(step.run(s, batches, 3e-3).loss);
    }
  }

  static models::Parameters& freeze(models::Parameters& parameters, const std::set<std::string>& names) {
    for (const std::string& name : names) parameters.at(name).freeze();
    return parameters;
  }

  models::Decoder model;
  QuantizeMap map;
  std::unique_ptr<train::Objective> objective;
  std::unique_ptr<train::Optimizer> optimizer;
  std::vector<double> losses;
};

void expect_same_masters(Training& a, Training& b, const std::string& what) {
  for (const Parameter& p : a.model.parameters().unique())
    EXPECT_TRUE(same_bits(b.model.parameters().at(p.name).master, p.master)) << what << ": " << p.name;
}

// After two steps the file holds, bit for bit, what the last evaluation saw, in every tensor and every copy of a shared one.
void expect_judged_weights_in_file(const QuantizeOptions& options, const models::DecoderSpec& spec,
                                   formats::GgmlType type) {
  const testing::TemporaryDirectory directory;
  Training run(options, at::kFloat, spec);
  run.train(0, 2, *comm::make_self_comm(), 1);
  const Path path = directory / "m.gguf";
  models::save_gguf(
      local_files(), path, run.model, [&](const Parameter& p) { return run.map.pack(p); },
      data::make_byte_tokenizer()->gguf_metadata(), "test");
  const formats::GgufFile file(path);
  EXPECT_EQ(file.find_tensor("token_embd.weight")->type, type);
  EXPECT_NE(file.find("general.quantization_version"), nullptr);
  EXPECT_NE(file.find("general.file_type"), nullptr);
  const std::unique_ptr<models::Decoder> reloaded = models::load_gguf(path);
  const at::NoGradGuard no_grad;
  for (const models::ForeignTensor& tensor : models::families().at("llama").gguf_tensors(spec)) {
    const Parameter& p = run.model.parameters().at(tensor.parameter);
    EXPECT_TRUE(same_bits(reloaded->parameters().at(tensor.parameter).master, run.map.apply(p, p.master)))
        << tensor.parameter;
    EXPECT_TRUE(same_bits(p.working, run.map.apply(p, p.master))) << tensor.parameter;
  }
}

TEST(GridTraining, FileHoldsTheWeightsThatWereJudged) {
  for (const Grid& grid : grids()) {
    SCOPED_TRACE(grid.name);
    if (grid.ggml) expect_judged_weights_in_file(on(grid.name), shared_spec(), *grid.ggml);
  }
}

// So it does where rows of 288 make `wider` store what TQ1_0, Q2_K and Q3_K hold otherwise.
TEST(GridTraining, AWiderFileHoldsTheWeightsThatWereJudged) {
  models::DecoderSpec spec = shared_spec();
  spec.width = 288;
  spec.head_dim = 72;
  spec.ffn_width = 96;
  std::vector<std::string> widened;
  for (const Grid& grid : grids()) {
    if (grid.block <= 32) continue;
    SCOPED_TRACE(grid.name);
    QuantizeOptions options = on(grid.name);
    options.fallback = "wider";
    if (in_q4_0_blocks(grid) == nullptr) {
      EXPECT_THROW(Training(options, at::kFloat, spec), ConfigError);
      continue;
    }
    widened.push_back(grid.name);
    expect_judged_weights_in_file(options, spec, formats::GgmlType::Q4_0);
  }
  EXPECT_THAT(widened,
              ::testing::ElementsAre("lsq3", "seq2", "seq_ternary", "ternary", "ternary_row", "binary"));
}

// BitNet b1.58 as published, ternary weights and int8 activations: it learns, and its folder, or the GGUF of
// the model whose gate is SiLU, holds the weights that were judged.
TEST(GridTraining, TrainsBitnetOnTernaryWeightsAndInt8Activations) {
  const testing::TemporaryDirectory directory;
  const auto comm = comm::make_self_comm();
  for (const models::FfnKind ffn : {models::FfnKind::kRelu2glu, models::FfnKind::kSwiglu}) {
    models::DecoderSpec spec = shared_spec();
    spec.family = "bitnet";
    spec.ffn = ffn;
    spec.sub_norms = true;
    QuantizeOptions options = on("ternary");
    options.embedding = options.head = {"q8_0"};
    options.activations = "int8";
    Training run(options, at::kFloat, spec);
    run.train(0, 40, *comm, 1);
    EXPECT_LT(run.losses.back(), run.losses.front() - 0.3);

    std::unique_ptr<models::Decoder> reloaded;
    if (ffn == models::FfnKind::kSwiglu) {
      models::save_gguf(
          local_files(), directory / "m.gguf", run.model, [&](const Parameter& p) { return run.map.pack(p); },
          data::make_byte_tokenizer()->gguf_metadata(), "test");
      reloaded = models::load_gguf(directory / "m.gguf");
    } else {
      models::save_hf_folder(local_files(), directory / "hf", run.model, run.map, at::kFloat, {});
      reloaded = models::load_hf_folder(directory / "hf");
    }
    const at::NoGradGuard no_grad;
    for (Parameter& p : reloaded->parameters().unique()) {
      const Parameter& judged = run.model.parameters().at(p.name);
      EXPECT_TRUE(same_bits(p.master, judged.working)) << p.name;
      p.input_map = judged.input_map;  // activations are no part of a file
    }
    const models::TokenBlock block{sample_batch(100).tokens_BT, {}, {}};
    EXPECT_TRUE(same_bits(reloaded->hidden(block), run.model.hidden(block)));
    const at::Tensor& q = reloaded->parameters().at("layers.0.attn.q.weight").master;
    EXPECT_EQ(std::get<0>(at::_unique2(q)).numel(), 3);
  }
}

// Masters and scales move, and the loss falls, on each grid.
TEST(GridTraining, LearnsOnEveryGrid) {
  const auto comm = comm::make_self_comm();
  for (const Grid& grid : grids()) {
    if (grid.name == "q4_k" || grid.name == "q6_k") continue;  // after training only
    Training run(on(grid.name));
    run.train(0, 12, *comm, 1);
    EXPECT_LT(run.losses.back(), run.losses.front() - 0.1) << grid.name;
    if (!grid.learned) continue;
    const Parameter& p = run.model.parameters().at("layers.0.ffn.up.weight");
    const at::Tensor moved = run.model.parameters().at(p.name + "_scale").master;
    EXPECT_TRUE(moved.isfinite().all().item<bool>()) << grid.name;
    EXPECT_FALSE(at::allclose(moved, theta_of(grid.fit(p.master, {})), 1e-4, 1e-4)) << grid.name;
  }
}

TEST(GridTraining, ScalesDoNotDecay) {
  const auto comm = comm::make_self_comm();
  Training run(on("lsq4", 5));  // off: no gradient reaches the scales, and nothing else may move them
  run.train(0, 1, *comm, 1);
  for (Parameter& p : run.model.parameters().unique())
    if (p.role == models::Role::kScale) p.master.fill_(-4.0);
  run.train(1, 3, *comm, 1);
  EXPECT_TRUE(at::all(run.model.parameters().at("embed.weight_scale").master == -4.0).item<bool>());
}

// One rank with two micro-batches and two ranks with one train the same model, scales included.
TEST(GridTraining, RanksChangeNothing) {
  const testing::Threads one_thread(1);
  for (const char* grid : {"lsq3", "q4_0", "ternary"}) {
    Training alone(on(grid));
    alone.train(0, 3, *comm::make_self_comm(), 2);
    std::mutex mutex;
    comm::run_thread_ranks(2, [&](comm::Comm& comm) {
      Training mine(on(grid));
      mine.train(0, 3, comm, 1);
      const std::lock_guard lock(mutex);
      expect_same_masters(alone, mine, fmt::format("{} rank {}", grid, comm.rank()));
    });
  }
}

// Interrupted before the grid is switched on, at that step, and after it: the same bits as without a break.
TEST(GridTraining, ResumeContinuesWithEveryBit) {
  const auto comm = comm::make_self_comm();
  Training whole(on("seq2", 2));
  whole.train(0, 5, *comm, 1);
  for (const int64_t stop : {1, 2, 3}) {
    const testing::TemporaryDirectory directory;
    Training before(on("seq2", 2));
    before.train(0, stop, *comm, 1);
    train::CheckpointContent content;
    content.step = stop;
    content.optimizer = before.optimizer->state();
    content.weights = train::weights_of(before.model.parameters());
    train::save_checkpoint(local_files(), directory.path(), content, 1);

    const train::LoadedCheckpoint loaded =
        train::load_checkpoint(train::list_checkpoints(directory.path()).at(0));
    Training after(on("seq2", 2));
    train::copy_weights(loaded, after.model.parameters());
    models::refresh_working(after.model.parameters(), after.map);
    after.optimizer->set_state(loaded.optimizer);
    after.train(stop, 5, *comm, 1);
    expect_same_masters(whole, after, fmt::format("stopped at {}", stop));
  }
}

// Frozen weights, one of which two layers share and one of which is the head too, keep their bits, and their
// scales the ones that were fitted; a run that stops and continues ends like one that does not.
TEST(GridTraining, FrozenWeightsStayOnTheirGrid) {
  const auto comm = comm::make_self_comm();
  const std::set<std::string> names = {"embed.weight", "layers.0.ffn.up.weight"};
  for (const char* grid : {"q4_0", "lsq4", "ternary"}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const auto start = [&] { return std::make_unique<Training>(on(grid, 1), dtype, shared_spec(), names); };
      const auto whole = start(), before = start(), after = start();
      std::map<std::string, at::Tensor> masters;
      for (const std::string& name : names) masters[name] = whole->model.parameters().at(name).master.clone();
      whole->train(0, 5, *comm, 1);
      EXPECT_LT(whole->losses.back(), whole->losses.front()) << grid;

      before->train(0, 3, *comm, 1);
      const testing::TemporaryDirectory directory;
      train::CheckpointContent content;
      content.step = 3;
      content.optimizer = before->optimizer->state();
      content.weights = train::weights_of(before->model.parameters());
      train::save_checkpoint(local_files(), directory.path(), content, 1);
      const auto loaded = train::load_checkpoint(train::list_checkpoints(directory.path()).at(0));
      train::copy_weights(loaded, after->model.parameters());
      after->optimizer->set_state(loaded.optimizer);
      after->map.begin_step(2);
      models::refresh_working(after->model.parameters(), after->map);
      after->train(3, 5, *comm, 1);
      expect_same_masters(*whole, *after, grid);

      const at::NoGradGuard no_grad;
      for (const auto& [name, master] : masters) {
        const Parameter& p = whole->model.parameters().at(name);
        EXPECT_TRUE(same_bits(p.master, master)) << grid << " " << name;
        EXPECT_TRUE(same_bits(p.working, whole->map.apply(p, p.master).to(dtype))) << grid << " " << name;
        EXPECT_FALSE(same_bits(p.working.to(at::kFloat), master)) << grid << ": the grid is on";
        if (!grids().at(grid).learned) continue;
        EXPECT_TRUE(same_bits(whole->model.parameters().at(name + "_scale").master,
                              theta_of(grids().at(grid).fit(master, {}))))
            << grid << " " << name;
      }
      for (const auto& [name, tensor] : whole->optimizer->state())
        for (const std::string& still : names) EXPECT_EQ(name.find(still), name.npos) << name;
    }
  }
}

// Working copies in bf16 round once more; masters, scales and the judged values stay f32.
TEST(GridTraining, TrainsInBrainFloats) {
  Training run(on("lsq4"), at::kBFloat16);
  run.train(0, 6, *comm::make_self_comm(), 1);
  const Parameter& p = run.model.parameters().at("layers.0.ffn.up.weight");
  EXPECT_EQ(p.working.scalar_type(), at::kBFloat16);
  EXPECT_EQ(run.model.parameters().at(p.name + "_scale").working.scalar_type(), at::kFloat);
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(same_bits(run.map.apply(p, p.master).to(at::kBFloat16), p.working.detach()));
  EXPECT_LT(run.losses.back(), run.losses.front());
}

}  // namespace
}  // namespace retort::quantize
