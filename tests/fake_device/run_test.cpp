// Whole runs of the trainer, and teachers that are asked in other ways, on a device.
#include <gmock/gmock.h>

#include "core/digest.h"
#include "core/error.h"
#include "distill/byte_teacher.h"
#include "distill/capture.h"
#include "distill/labels.h"
#include "distill/objectives.h"
#include "distill/on_policy.h"
#include "distill/preference_loss.h"
#include "models/family.h"
#include "tests/data/corpus.h"
#include "tests/distill/word_tokenizer.h"
#include "tests/fake_device/distilled_training.h"
#include "tests/fake_device/grid_training.h"
#include "tests/fake_device/memory.h"
#include "tests/kernels/gradcheck.h"
#include "tests/train/tiny_run.h"
#include "train/embedding_noise.h"

namespace retort::train {
namespace {

using testing::fake_device, testing::TemporaryDirectory, testing::Training;

TinyRun there() {
  TinyRun run;
  run.device = fake_device();
  run.options.steps = 10;
  run.options.checkpoint_every = 4;
  return run;
}

TEST(RunOnDevice, StoppingAndResumingDoesNotChangeABit) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const TemporaryDirectory whole_run, parts_run;
    TinyRun whole = there(), first = there(), second = there();
    whole.measured = first.measured = dtype;  // a run goes on in the precision of its checkpoint
    for (TinyRun* one : {&whole, &first, &second}) one->frozen = {"layers.0.ffn.up.weight"};
    const TrainReport expected = whole(whole_run.path());
    first.before_step = stop_at(5, 0);
    EXPECT_TRUE(first(parts_run.path()).preempted);
    const TrainReport report = second(parts_run.path());
    EXPECT_EQ(report.final_loss, expected.final_loss);
    expect_same(whole_run.path(), parts_run.path());
  }
}

// A checkpoint does not know where it was made.
TEST(RunOnDevice, ARunGoesOnElsewhere) {
  const TemporaryDirectory moved, stayed;
  TinyRun first = there(), second = there(), whole = there();
  first.before_step = stop_at(5, 0);
  first(moved.path());
  second.device = whole.device = at::kCPU;
  const TrainReport report = second(moved.path()), expected = whole(stayed.path());
  EXPECT_EQ(report.steps, expected.steps);
  EXPECT_NEAR(report.final_loss, expected.final_loss, 1e-4 * expected.final_loss);
}

// A teacher in the precision of what it teaches.
std::unique_ptr<models::Model> teaching(std::unique_ptr<models::Model> teacher, at::ScalarType dtype,
                                        const at::Device& device) {
  models::IdentityMap identity;
  models::bind_working(teacher->parameters(), identity, dtype);
  models::move_working_to(teacher->parameters(), device);
  return teacher;
}

std::unique_ptr<Objective> taught(const models::Model& student, std::unique_ptr<distill::Teacher> teacher,
                                  std::vector<distill::LossOptions> losses) {
  distill::ObjectiveInput input{.model = student};
  input.teacher = std::move(teacher);
  input.losses = std::move(losses);
  return distill::objectives().at("distillation").make(std::move(input));
}

std::shared_ptr<const distill::TeacherCache> captured(const std::string& kind,
                                                      const data::TokenShards& corpus, at::ScalarType dtype,
                                                      const at::Device& device, const Path& cache) {
  const auto teacher = teaching(testing::small_model(9), dtype, device);
  const distill::CacheFacts facts{.kind = kind,
                                  .size = 6,
                                  .vocabulary = teacher->tokens(),
                                  .tokenizer = corpus.tokenizer_fingerprint(),
                                  .corpus = hex(corpus.digest()),
                                  .tokens = corpus.size(),
                                  .block_tokens = 120,
                                  .teacher = "w",
                                  .teacher_name = "a teacher",
                                  .window = 12,
                                  .seed = 3};
  Log quiet(stderr, "", true);
  const std::atomic<bool> stop = false;
  distill::capture(*teacher, corpus, facts, 2, cache, *comm::make_self_comm(), local_files(), quiet, stop);
  return std::make_shared<const distill::TeacherCache>(cache);
}

TEST(RunOnDevice, TheCachesOfADeviceTeachAsThoseOfTheCpu) {
  const TemporaryDirectory directory;
  const auto corpus = testing::write_corpus(directory / "text", testing::random_documents(4, 12, 60, 31));
  const data::BatchStream stream(corpus, {.sequence = 12, .rows = 2, .seed = 3});
  for (const auto& [kind, loss] : {std::pair{"top_k", "top_k_ghost"}, {"sampled", "sampled"}}) {
    SCOPED_TRACE(kind);
    int caches = 0;
    const auto training = [&, kind = kind, loss = loss](at::ScalarType dtype) {
      Training out{.model = [] { return testing::small_model(); }, .dtype = dtype};
      out.batch = [&](int64_t number) { return stream.batch(number); };
      out.objective = [&, kind, loss, dtype](const models::Model& student, const at::Device& device) {
        const Path cache = directory / fmt::format("{}-{}", kind, caches++);
        return taught(student, distill::make_cached_teacher({captured(kind, *corpus, dtype, device, cache)}),
                      {{.fn = "cross_entropy"}, {.fn = loss}});
      };
      return out;
    };
    // What a cache keeps is f16 of what the teacher says, or draws from it.
    const testing::Ran got = run(training(at::kFloat), fake_device());
    expect_close(got, run(training(at::kFloat), at::kCPU),
                 std::string(kind) == "top_k" ? 0x1p-10 : testing::kChain);
    expect_nothing_sent_is_waited_for(got);
    testing::expect_as_good_as_the_cpus(training);
  }
}

TEST(RunOnDevice, AMixtureOfTeachersIsTheCpus) {
  const auto training = [](at::ScalarType dtype) {
    Training out{.model = [] { return testing::small_model(); }, .dtype = dtype};
    out.objective = [=](const models::Model& student, const at::Device& device) {
      std::vector<distill::Share> shares;
      for (const uint64_t seed : {9, 10})
        shares.push_back({distill::make_live_teacher(teaching(testing::small_model(seed), dtype, device)),
                          {static_cast<double>(seed)}});
      return taught(student, distill::make_mixed_teacher(std::move(shares)), {{.fn = "forward_kl"}});
    };
    return out;
  };
  expect_the_cpus(training(at::kFloat));
  testing::expect_as_good_as_the_cpus(training);
  expect_nothing_sent_is_waited_for(run(training(at::kFloat), fake_device()));
}

// A student on a grid learns of what it was before: a step, since a weight that is off by a rounding may then have another
// code.
TEST(RunOnDevice, ASelfTeacherIsTheCpus) {
  const auto training = [](at::ScalarType dtype) {
    Training out = testing::on_grid("ternary");
    out.dtype = dtype;
    return testing::distilled(out, out.model, {{.fn = "cross_entropy"}, {.fn = "forward_kl"}});
  };
  expect_the_cpus(training(at::kFloat), testing::kChain, 1);
  testing::expect_as_good_as_the_cpus(training, 1);
}

// It reads the teacher's logits on the host, and sends what it makes of them.
TEST(RunOnDevice, ATeacherOfWordsTeachesBytesAsOnTheCpu) {
  const TemporaryDirectory directory;
  const std::string text = "abca ab cabcabca b abc ab cab ab abc ca b a";
  const auto corpus = testing::write_corpus(directory / "text", {{text.begin(), text.end()}});
  const auto training = [&](at::ScalarType dtype) {
    Training out{.model = [] { return testing::small_model(); }, .dtype = dtype};
    out.batch = [&](int64_t number) { return data::windows(*corpus, {number, number + 9}, 12, false); };
    out.objective = [&, dtype](const models::Model& student, const at::Device& device) {
      models::DecoderSpec spec = testing::small_llama();
      spec.vocabulary = 10, spec.context = 64;
      auto teacher = std::make_unique<models::Decoder>(spec);
      models::initialise(teacher->parameters(), "normal", 0.5, 3);
      const std::vector<std::string> words{"<end>", "a", "b", "c", "ab", "abc", " ", " a", " ab", "ca"};
      return taught(
          student,
          distill::make_byte_teacher(teaching(std::move(teacher), dtype, device),
                                     std::make_unique<testing::WordTokenizer>(words, std::vector<int32_t>{0}),
                                     {corpus}, 32),
          {{.fn = "cross_entropy"}, {.fn = "forward_kl"}});
    };
    return out;
  };
  expect_the_cpus(training(at::kFloat));
  testing::expect_as_good_as_the_cpus(training);
  expect_nothing_sent_is_waited_for(run(training(at::kFloat), fake_device()));
}

TEST(RunOnDevice, NoiseOnEmbeddingsIsTheCpus) {
  Training training{.model = [] { return testing::small_model(); }};
  training.batch = [](int64_t number) {
    data::Batch batch = tiny_batch(number);
    batch.samples = {2 * number, 2 * number + 1};
    return batch;
  };
  training.objective = [](const models::Model&, const at::Device&) {
    return make_cross_entropy(EmbeddingNoise{.alpha = 5.0, .seed = 3});
  };
  expect_the_cpus(training);
  expect_nothing_sent_is_waited_for(run(training, fake_device()));
}

// Draws from a live teacher, of one row a chunk too.
TEST(RunOnDevice, DrawsFromALiveTeacherAreTheCpus) {
  const at::Tensor p = at::softmax(testing::normal({3, 40}, 1).to(at::kFloat), 1),
                   places = at::tensor({5, 900, 6}, at::kLong);
  for (const int64_t rows : {1, 3}) {
    const testing::Watch watch;
    const at::Tensor drawn =
        distill::draw_labels(p.narrow(0, 0, rows).to(fake_device()), 50, 3, places.narrow(0, 0, rows)).ids_NK;
    EXPECT_EQ(watch.traffic().uploads_waited, 1) << "the test's own";
    EXPECT_TRUE(at::equal(
        drawn.cpu(), distill::draw_labels(p.narrow(0, 0, rows), 50, 3, places.narrow(0, 0, rows)).ids_NK));
  }
}

// What a run says whose fourth step is refused memory.
std::string refused(TinyRun run) {
  const TemporaryDirectory directory;
  run.before_step = [](int, int64_t step, std::atomic<bool>&) {
    if (step == 3) testing::Memory::get().limit(1 << 12);
  };
  std::string said = "no error";
  try {
    run(directory.path());
  } catch (const ConfigError& error) {
    said = error.what();
  }
  testing::Memory::get().unlimit();
  return said;
}

// What holds most of it, and what to change.
TEST(RunOnDevice, OutOfMemoryNamesTheHolders) {
  const std::string said = refused(there());
  EXPECT_THAT(said,
              ::testing::HasSubstr("step 4: out of memory (fake device out of memory. Tried to allocate"));
  EXPECT_THAT(said, ::testing::ContainsRegex("optimizer [0-9.]+ kB, gradients [0-9.]+ kB, weights [0-9.]+ "
                                             "kB.*[0-9.]+ [kMG]?B of [0-9.]+ [kMG]?B are free"));
  EXPECT_THAT(said, ::testing::HasSubstr("data.micro_batch below 2"));
  EXPECT_THAT(said, ::testing::HasSubstr("optimizer: parallel.shard"));
}

// What a graph holds is told beside it.
TEST(RunOnDevice, OutOfMemoryNamesGraphs) {
  TinyRun run = there();
  run.repeatable = true;
  const std::string said = refused(std::move(run));
  EXPECT_THAT(said, ::testing::HasSubstr("step 4: out of memory"));
  EXPECT_THAT(said, ::testing::ContainsRegex("graph [0-9.]+ kB"));
}

TEST(RunOnDevice, OutOfMemoryInAValidationNamesTheHolders) {
  TinyRun run = there();
  run.before_run = [](int, TrainerParts& parts) {
    parts.validate = [](int64_t) -> std::map<std::string, double> {
      at::empty({int64_t{1} << 40}, at::TensorOptions(fake_device()).dtype(at::kByte));
      return {};
    };
  };
  const TemporaryDirectory directory;
  try {
    run(directory.path());
    ADD_FAILURE() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("validation after step 5: out of memory"));
    EXPECT_THAT(error.what(), ::testing::ContainsRegex("optimizer [0-9.]+ kB, .* are free"));
  }
}

// Of ten steps of two micro-batches the first captures its second one; two steps have a profile and run without the graph.
TEST(RunOnDevice, AProfileWaitsForTheDevice) {
  const TemporaryDirectory directory;
  TinyRun run = there();
  run.repeatable = true;
  run.before_run = [](int, TrainerParts& parts) { parts.profile = 2, parts.ceiling = 1e12; };
  const testing::Watch watch;
  run(directory.path());
  EXPECT_EQ(watch.traffic().graphs, 1);
  EXPECT_EQ(watch.traffic().replays, 2 * (10 - 2) - 1);
  for (const char* text :
       {"where 2 steps went", "micro-batches without graphs", "1 TFLOP/s of products", "aten::mm",
        "retort::adamw", "between operations", "% of products", "% of a copy", "| weights ", "| gradients ",
        "| optimizer ", "| graph ", "| activations ", "| other ", "| all ", "| free of "})
    EXPECT_THAT(run.log, ::testing::HasSubstr(text));
  const std::string trace = read_text(directory / "profile.json");
  for (const char* name : {"retort::attention", "retort::swiglu", "retort::gate_backward"})
    EXPECT_THAT(trace, ::testing::HasSubstr(name)) << "forward and backward are there";
  EXPECT_THAT(run.log, ::testing::Not(::testing::HasSubstr("no graph of a micro-batch")));
  EXPECT_TRUE(std::filesystem::exists(directory / "profile.json"));
}

// --- objectives that look at whole answers, and models that look at whole rows

// Four rows of 8 tokens: prompts of 2 and 4, answers of 3, 6, 2 and 1; every second one is the worse.
data::Batch answers(int64_t number) {
  data::Batch batch;
  batch.tokens_BT = (at::arange(32) * (7 + 2 * number) % 31 + 1).view({4, 8});
  batch.labels_BT = at::full({4, 8}, data::kIgnored, at::kLong);
  const int64_t prompts[] = {2, 2, 4, 4}, lengths[] = {3, 6, 2, 1};
  for (int64_t b = 0; b < 4; ++b)
    batch.labels_BT[b]
        .narrow(0, prompts[b] - 1, lengths[b])
        .copy_(batch.tokens_BT[b].narrow(0, prompts[b], lengths[b]));
  batch.chosen_B = at::arange(4).remainder(2) == 0;
  batch.samples = {4 * number, 4 * number + 1, 4 * number + 2, 4 * number + 3};
  return batch;
}

std::unique_ptr<distill::Teacher> teacher_on(const at::Device& device) {
  auto teacher = testing::small_model(9);
  models::move_working_to(teacher->parameters(), device);
  return distill::make_live_teacher(std::move(teacher));
}

TEST(RunOnDevice, EveryPreferenceIsTheCpus) {
  for (const distill::PreferenceLoss& loss : distill::preference_losses()) {
    SCOPED_TRACE(loss.name);
    Training training{.model = [] { return testing::small_model(); }, .batch = answers};
    training.objective = [&](const models::Model& student, const at::Device& device) {
      distill::ObjectiveInput input{.model = student};
      input.preference.loss = loss.name;
      if (loss.needs_reference) input.teacher = teacher_on(device);
      return distill::objectives().at(loss.paired() ? "pairs" : "rated").make(std::move(input));
    };
    expect_the_cpus(training);
  }
}

// The student's answers are the CPU's, drawn from the same streams, and so is what is learned of them.
TEST(RunOnDevice, OnPolicyDistillationIsTheCpus) {
  for (const double temperature : {1.0, 0.5}) {
    Training training{.model = [] { return testing::small_model(); }, .batch = answers};
    training.objective = [=](const models::Model& student, const at::Device& device) {
      distill::ObjectiveInput input{.model = student};
      input.teacher = teacher_on(device);
      input.losses = {{.fn = "reverse_kl"}};
      return distill::make_on_policy(distill::objectives().at("distillation").make(std::move(input)),
                                     {.share = 0.7, .tokens = 5, .temperature = temperature},
                                     {.ends = {7}, .seed = 3});
    };
    testing::expect_the_cpus(training, testing::kChain, 4);
    EXPECT_GT(run(training, testing::fake_device()).steps.back().parts.size(), 2u);
  }
}

TEST(RunOnDevice, BytePatchModelsAreTheCpus) {
  for (const bool parallel : {false, true})
    for (const char* family : {"spacebyte", "stlm"}) {
      if (parallel && std::string(family) == "spacebyte") continue;
      SCOPED_TRACE(fmt::format("{} {}", family, parallel));
      Training training;
      training.model = [=] {
        models::DecoderSpec spec = models::families().at(family).defaults;
        spec.vocabulary = parallel ? 257 : 256, spec.context = 64, spec.layers = 1, spec.width = 24;
        spec.heads = 2, spec.kv_heads = 2, spec.head_dim = 12, spec.ffn_width = 24,
        spec.tie_embeddings = false;
        spec.patch = models::PatchSpec{.width = 16, .layers = 2, .heads = 2, .ffn_width = 24};
        if (std::string(family) == "stlm") spec.patch->longest = 6, spec.patch->parallel = parallel;
        auto model = models::make_model(spec);
        models::initialise(model->parameters(), "gpt2", 0.1, 5);
        return model;
      };
      training.batch = [=](int64_t number) {
        data::Batch batch = tiny_batch(number);
        batch.tokens_BT = batch.tokens_BT % 4 * 17 + 32;  // spaces among letters
        if (parallel) batch.tokens_BT.masked_fill_(batch.tokens_BT == 32, 256);
        batch.document_BT = at::floor_divide(at::arange(12), 7).expand({2, 12}).contiguous();
        batch.positions_BT = (at::arange(12) % 7).expand({2, 12}).contiguous();
        return batch;
      };
      expect_the_cpus(training);
    }
}

}  // namespace
}  // namespace retort::train
