#include "recipes/stages/teachers.h"

#include <gmock/gmock.h>

#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "tests/artifacts/tiny.h"
#include "tests/data/corpus.h"
#include "tests/recipes/recipe_run.h"
#include "train/objective.h"

namespace retort::recipes {
namespace {

using artifacts::save_tiny;
using artifacts::tiny_model;

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kRecipe = R"(
run: { seed: 1 }
data: { train: stage:text, validation: stage:text, sequence: 32, batch_tokens: 256, micro_batch: 4 }
model: { context: 32, layers: 1, width: 32, heads: 2, ffn_width: 64, tie_embeddings: false }
train:
  { steps: 8, precision: fp32, checkpoint_every: 3, keep_checkpoints: 9, optimizer: { lr: 4.0e-3 },
    schedule: { kind: constant, warmup: 0 } }
distill: { losses: [ { fn: forward_kl } ] }
stages:
  - { name: text, kind: prepare }
  - { name: teacher, kind: train, distill: ~, train: { steps: 40 } }
)";

std::string with(const std::string& stages) { return std::string(kRecipe) + stages; }

using Teachers = RecipeRun;

// Bytes under another name.
class OtherBytes final : public data::Tokenizer {
 public:
  std::string name() const override { return "other"; }
  int64_t vocabulary() const override { return 256; }
  std::vector<int32_t> encode(std::string_view) const override { return {}; }
  std::string decode(std::span<const int32_t>) const override { return {}; }
  std::string_view token_bytes(int32_t) const override { return {}; }
  bool is_special(int32_t) const override { return false; }
  std::optional<int32_t> separator() const override { return std::nullopt; }
  std::string fingerprint() const override { return "00000000deadbeef"; }
  formats::GgufMetadata gguf_metadata() const override { return {}; }
  std::map<std::string, std::string> hf_files() const override { return {}; }
};

}  // namespace

// Quantization-aware distillation: the teacher is what the stage began with. It is the same after an
// interruption, when the student's own weights are others.
TEST_F(Teachers, SelfIsWhatTheStageBeganWith) {
  const Recipe r = recipe(with(R"(
  - name: self
    kind: train
    model: { from: stage:teacher }
    quantize: {}
    distill: { teacher: { kind: self, precision: fp32 } }
  - name: named
    kind: train
    model: { from: stage:teacher }
    quantize: {}
    distill: { teacher: { model: stage:teacher, precision: fp32 } }
)"));
  run(r);
  const std::string whole = weights_digest("self");
  EXPECT_EQ(whole, weights_digest("named"));
  EXPECT_GT(figure("self", "final_loss"), 0.0);

  std::filesystem::remove(in_run("self/result.json"));
  for (const char* later : {"step_00000006", "step_00000008"})
    std::filesystem::remove_all(in_run("self/checkpoints") / later);
  EXPECT_THAT(run(r), HasSubstr("step_00000003"));
  EXPECT_EQ(weights_digest("self"), whole);
}

// A mixture of a teacher with itself is the teacher, and a share of 0 is none.
TEST_F(Teachers, SeveralAreMixedByTheirShares) {
  run(recipe(with(R"(
  - { name: other, kind: train, distill: ~, model: { width: 48 }, train: { steps: 20 } }
  - { name: one, kind: train, distill: { teacher: { model: stage:teacher, precision: fp32 } } }
  - name: twice
    kind: train
    distill:
      teachers: [ { model: stage:teacher, precision: fp32, weight: 3 }, { model: stage:teacher, precision: fp32 } ]
  - name: alone
    kind: train
    distill:
      teachers: [ { model: stage:teacher, precision: fp32 }, { model: stage:other, precision: fp32, weight: 0 } ]
  - name: both
    kind: train
    distill:
      teachers: [ { model: stage:teacher, precision: fp32 }, { model: stage:other, precision: fp32 } ]
)")));
  const double one = figure("one", "final_loss");
  EXPECT_NEAR(figure("twice", "final_loss"), one, 1e-3 * one);
  EXPECT_NEAR(figure("alone", "final_loss"), one, 1e-3 * one);
  EXPECT_GT(std::abs(figure("both", "final_loss") - one), 5e-3 * one);
}

TEST_F(Teachers, AShorterContextReadsInWindows) {
  const std::string said = run(recipe(with(R"(
  - { name: short, kind: train, distill: ~, model: { context: 16 }, data: { sequence: 16 } }
  - { name: student, kind: train, distill: { teacher: { model: stage:short, precision: fp32 } } }
)")));
  EXPECT_THAT(said, HasSubstr("reads 16 tokens at once, so rows of 32 in windows"));
  EXPECT_EQ(code_, ExitCode::kDone);
}

TEST_F(Teachers, OfAnotherTokenizerIsRefused) {
  testing::write_corpus(directory_ / "other", testing::random_documents(1, 20, 90, 256), 1 << 20,
                        OtherBytes());
  const std::string student = with(R"(
  - { name: student, kind: train, distill: { teacher: { model: stage:teacher } }, data: { validation: '' } }
)");
  try {
    recipe(student, {"stages.student.data.train=" + (directory_ / "other").string()});
    ADD_FAILURE() << "before anything is trained";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("student.distill.teacher.model: must read tokenizer other, which " +
                                        (directory_ / "other").string() +
                                        " is made with, got stage:teacher, which reads bytes"));
  }
  Recipe unchecked = recipe(student);
  unchecked.stages.back().get<DataOptions>().train = (directory_ / "other").string();
  EXPECT_THAT(error_of(unchecked), HasSubstr("distill.teacher.model: " + in_run("teacher").string()));
  EXPECT_EQ(code_, ExitCode::kUsage);
  EXPECT_FALSE(std::filesystem::exists(in_run("student/checkpoints")));
}

TEST_F(Teachers, WeightsThatAreNotFiniteStopBeforeTheFirstStep) {
  const auto sick = tiny_model(1);
  {
    const at::NoGradGuard no_grad;
    sick->parameters().at("embed.weight").master[7].fill_(NAN);
  }
  save_tiny(*sick, directory_ / "sick", 1, std::nullopt);
  EXPECT_THAT(error_of(recipe(with(R"(
  - { name: student, kind: train, distill: { teacher: { model: DIR } } }
)"),
                              {"stages.student.distill.teacher.model=" + (directory_ / "sick").string()})),
              HasSubstr("weights must be finite, embed.weight is not"));
  EXPECT_EQ(code_, ExitCode::kNonFinite);
  EXPECT_FALSE(std::filesystem::exists(in_run("student/checkpoints")));
}

// ---- Cached

namespace {

constexpr const char* kCached = R"(
  - name: labels
    kind: capture
    model: { from: stage:teacher }
    capture: { kind: top_k, k: 256, block_tokens: 992, precision: fp32 }
  - name: student
    kind: train
    distill: { teacher: { kind: cached, cache: stage:labels }, losses: [ { fn: top_k_ghost, k: 256 } ] }
)";

void flip_byte(const Path& path, uint64_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  const auto byte = static_cast<char>(file.get() ^ 0x10);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(byte);
}

}  // namespace

// All ids of a small vocabulary, in halves: the student learns what the live teacher teaches.
TEST_F(Teachers, ACacheOfAllIdsTeachesWhatTheLiveTeacherDoes) {
  run(recipe(with(std::string(kCached) + R"(
  - { name: live, kind: train, distill: { teacher: { model: stage:teacher, precision: fp32 } } }
  - { name: plain, kind: train, distill: ~ }
)")));
  EXPECT_NEAR(figure("student", "bits_per_byte"), figure("live", "bits_per_byte"), 2e-3);
  EXPECT_GT(std::abs(figure("plain", "bits_per_byte") - figure("live", "bits_per_byte")), 1e-2);
}

// The same labels reach the same tokens whatever shapes the batches: one rank or four, in one piece or with
// an interruption, the weights have the same bits.
TEST_F(Teachers, ACachedStudentDoesNotDependOnRanksOrInterruptions) {
  const std::vector<std::string> sets = {"data.micro_batch=2"};
  const Recipe r = recipe(with(kCached), sets);
  run(r);
  const std::string whole = weights_digest("student");
  std::filesystem::remove_all(in_run("student"));
  run(recipe(with(kCached), {"data.micro_batch=2", "stages.student.parallel.ranks=4"}));
  EXPECT_EQ(weights_digest("student"), whole);
  std::filesystem::remove(in_run("student/result.json"));
  for (const char* later : {"step_00000006", "step_00000008"})
    std::filesystem::remove_all(in_run("student/checkpoints") / later);
  EXPECT_THAT(run(r), HasSubstr("step_00000003"));
  EXPECT_EQ(weights_digest("student"), whole);
}

// Each is found before the first step, and says what is wrong.
TEST_F(Teachers, CachesThatDoNotFitAreRefusedBeforeTheFirstStep) {
  const std::string other = R"(
  - { name: other, kind: train, distill: ~, train: { steps: 2 } }
)";
  const std::string made = in_run("labels/cache").string();
  run(recipe(with(kCached)));
  std::filesystem::remove_all(in_run("student"));
  const auto refused = [&](const std::string& yaml, const std::vector<std::string>& sets) {
    std::string said;
    try {
      said = error_of(recipe(yaml, sets));
    } catch (const ConfigError& error) {  // already as it is read
      said = error.what();
      code_ = error.code();
    }
    EXPECT_FALSE(std::filesystem::exists(in_run("student/checkpoints"))) << said;
    return said;
  };
  const std::string student = R"(
  - name: student
    kind: train
    distill: { teacher: { kind: cached, cache: DIR }, losses: [ { fn: top_k_ghost, k: 256 } ] }
)";
  const std::string cache = "stages.student.distill.teacher.cache=" + made;

  EXPECT_THAT(refused(with(other + student), {cache, "stages.student.distill.teacher.model=stage:other"}),
              AllOf(HasSubstr("is of another teacher"), HasSubstr(made)));
  EXPECT_EQ(code_, ExitCode::kBadData);
  EXPECT_THAT(
      refused(with(student), {cache, "stages.student.data.train=" + in_run("text/validation").string()}),
      HasSubstr("was captured on other text"));
  EXPECT_EQ(code_, ExitCode::kBadData);
  EXPECT_THAT(
      refused(with(student), {cache, "stages.student.distill.losses=[{fn: top_k_ghost, temperature: 2}]"}),
      HasSubstr("distill.losses: loss 1: top_k_ghost: temperature must be that of the teacher's labels, 1"));
  EXPECT_EQ(code_, ExitCode::kUsage);
  EXPECT_THAT(refused(with(student), {cache, "stages.student.distill.losses=[{fn: forward_kl}]"}),
              HasSubstr("distill.losses: loss 1: forward_kl needs the teacher's whole distribution"));
  EXPECT_EQ(code_, ExitCode::kUsage);

  const Path block = distill::block_path(made, 1);
  flip_byte(block, std::filesystem::file_size(block) / 2);
  EXPECT_THAT(refused(with(student), {cache}), AllOf(HasSubstr(block.string()), HasSubstr("is damaged")));
  EXPECT_EQ(code_, ExitCode::kBadData);
  std::filesystem::remove(block);
  EXPECT_THAT(refused(with(student), {cache}), HasSubstr("capture was not finished"));
  EXPECT_EQ(code_, ExitCode::kBadData);
}

// ---- Sharing

// Every way of sharing that a recipe can choose: trained, written and read back as the same model.
TEST_F(Teachers, StudentsShareWhatTheirRecipeSays) {
  const Recipe r = recipe(with(R"(
  - { name: plain, kind: train, model: { layers: 4 } }
  - { name: tied, kind: train, model: { layers: 4, tie_embeddings: true } }
  - { name: ffn, kind: train, model: { layers: 4, share: { ffn: all } } }
  - name: interior
    kind: train
    model: { layers: 4, share: { ffn: all, keep_first: 1, keep_last: 1, lora_rank: 2 } }
  - { name: repeated, kind: train, model: { layers: 4, repeat: 2 } }
  - { name: plain_file, kind: export, model: { from: stage:plain }, export: { evaluate: true } }
  - { name: tied_file, kind: export, model: { from: stage:tied }, export: { evaluate: true } }
  - { name: ffn_file, kind: export, model: { from: stage:ffn }, export: { evaluate: true } }
  - { name: interior_file, kind: export, model: { from: stage:interior }, export: { evaluate: true } }
  - { name: repeated_file, kind: export, model: { from: stage:repeated }, export: { evaluate: true } }
)"),
                          {"distill.teacher.model=stage:teacher"});
  run(r);
  const double ffn = 3 * 32 * 64, layer = 4 * 32 * 32 + ffn + 2 * 32, plain = figure("plain", "stored");
  EXPECT_EQ(plain, 4 * layer + 2 * 256 * 32 + 32);
  EXPECT_EQ(figure("tied", "stored"), plain - 256 * 32);
  EXPECT_EQ(figure("ffn", "stored"), plain - 3 * ffn);
  EXPECT_EQ(figure("interior", "stored"), plain - ffn + 2 * 3 * 2 * (32 + 64));
  EXPECT_EQ(figure("repeated", "stored"), plain - 2 * layer);
  for (const char* stage : {"plain", "tied", "ffn", "interior", "repeated"})
    EXPECT_NEAR(figure(stage + std::string("_file"), "bits_per_byte"), figure(stage, "bits_per_byte"), 1e-4)
        << stage;
}

// What an objective learns is in checkpoints and in no file for other software.
TEST_F(Teachers, ProjectionsAreNotExported) {
  run(recipe(with(R"(
  - name: student
    kind: train
    model: { width: 16 }
    distill:
      { teacher: { model: stage:teacher }, losses: [ { fn: forward_kl }, { fn: hidden_mse, weight: .1 } ] }
  - { name: folder, kind: export, model: { from: stage:student }, export: { format: hf, evaluate: true } }
  - { name: file, kind: export, model: { from: stage:student }, export: { format: gguf, evaluate: true } }
)")));
  const Path newest = train::list_checkpoints(in_run("student/checkpoints")).front();
  const auto projections = [](const auto& names) {
    return std::count_if(names.begin(), names.end(), [](const auto& entry) {
      return entry.first.find(train::kLearnedPrefix) != std::string::npos;
    });
  };
  EXPECT_EQ(projections(formats::SafetensorsFile(newest / "weights.safetensors").entries()), 1);
  EXPECT_EQ(figure("student", "file_bytes") + 4 * 32 * 16,
            static_cast<double>(std::filesystem::file_size(newest / "weights.safetensors")));
  const formats::SafetensorsFile folder(in_run("folder/model.safetensors"));
  EXPECT_EQ(projections(folder.entries()), 0);
  EXPECT_EQ(folder.entries().size(), 12u);  // embedding, head, norm, and nine of the layer
  EXPECT_EQ(formats::GgufFile(in_run("file/model.gguf")).tensors().size(), 12u);
  for (const char* stage : {"folder", "file"})
    EXPECT_NEAR(figure(stage, "bits_per_byte"), figure("student", "bits_per_byte"), 1e-4) << stage;
}

}  // namespace retort::recipes
