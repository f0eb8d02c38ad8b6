// Weights that were trained on a grid, written in bf16 for other software, and put back on it: recover.
#include <map>

#include "formats/gguf.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using formats::GgmlType;
using ::testing::HasSubstr;

constexpr const char* kRecipe = R"(
run: { seed: 1, threads: 1 }
data: { train: stage:text, validation: stage:text, sequence: 16, batch_tokens: 64, micro_batch: 4 }
model: { context: 32, layers: 1, width: 256, heads: 4, kv_heads: 2, ffn_width: 256 }
train: { steps: 3, precision: fp32, schedule: { warmup: 0 } }
quantize: { weights: { grid: q4_0 }, embedding: { grid: q8_0 } }
stages:
  - { name: text, kind: prepare }
  - { name: trained, kind: train }
  - { name: gguf, kind: export, model: { from: stage:trained } }
  - { name: bf16, kind: export, model: { from: stage:trained }, export: { format: hf, type: bf16 } }
  - { name: f32, kind: export, model: { from: stage:trained }, export: { format: hf, type: f32 } }
  - { name: again, kind: quantize, model: { from: stage:bf16 }, post_training: { recover: true } }
  - { name: bytes, kind: quantize, model: { from: stage:f32 }, post_training: { recover: true } }
  - { name: plain, kind: train, quantize: ~ }
  - { name: rounded, kind: quantize, model: { from: stage:plain }, post_training: { recover: true } }
)";

using RecoverStage = RecipeRun;

std::map<std::string, std::pair<GgmlType, std::string>> tensors_in(const Path& path) {
  const formats::GgufFile file(path);
  std::map<std::string, std::pair<GgmlType, std::string>> out;
  for (const formats::GgufTensorInfo& tensor : file.tensors()) {
    const auto bytes = file.bytes(tensor);
    out[tensor.name] = {tensor.type, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}};
  }
  return out;
}

// The bytes of blocks without their scale's two: the last of TQ1_0, else the first.
std::string codes_of(const std::pair<GgmlType, std::string>& tensor) {
  const auto block = static_cast<size_t>(formats::ggml_type_info(tensor.first).block_bytes);
  std::string out;
  for (size_t b = 0; b < tensor.second.size(); b += block)
    out += tensor.second.substr(b + (tensor.first == GgmlType::TQ1_0 ? 0 : 2), block - 2);
  return out;
}

}  // namespace

TEST_F(RecoverStage, WritesTheCodesThatWereTrained) {
  for (const std::string grid : {"q4_0", "q8_0", "ternary"}) {
    const std::string directory = (directory_ / grid).string();
    const std::string said =
        run(recipe(kRecipe, {"quantize.weights.grid=" + grid, "run.dir=" + directory}), {});
    EXPECT_EQ(code_, ExitCode::kDone);
    EXPECT_THAT(said, HasSubstr("recovered: 9 of 9 tensors lie on their grids and keep their codes"));
    EXPECT_THAT(said,
                HasSubstr("recovered: 0 of 9 tensors lie on their grids and keep their codes; 9 do not"));
    EXPECT_THAT(said, HasSubstr("does not lie on " + grid));
    const auto trained = tensors_in(Path(directory) / "gguf/model.gguf");
    const auto again = tensors_in(Path(directory) / "again/model.gguf");
    ASSERT_EQ(trained.size(), again.size());
    for (const auto& [name, tensor] : trained) {
      ASSERT_EQ(tensor.first, again.at(name).first) << name;
      if (tensor.first != GgmlType::F32)  // norms are bf16 there
      {
        EXPECT_TRUE(codes_of(tensor) == codes_of(again.at(name))) << grid << " " << name;
      }
    }
    EXPECT_TRUE(trained == tensors_in(Path(directory) / "bytes/model.gguf")) << grid;
    EXPECT_THAT(read_text(Path(directory) / "again/quantization.md"), HasSubstr("was on the grid"));
  }
}

// What cannot be done is a finding, before any work.
TEST_F(RecoverStage, IsOfferedWhereValuesTell) {
  const auto refused = [&](const std::vector<std::string>& sets) { return refusal_of(kRecipe, sets); };
  EXPECT_EQ(refused({}), "");
  EXPECT_THAT(refused({"stages.again.quantize.weights.grid=q4_k"}),
              HasSubstr("have parts that values do not tell"));
  EXPECT_THAT(refused({"stages.again.post_training.clip_search=true"}), HasSubstr("take method rtn"));
  EXPECT_THAT(refused({"stages.again.quantize.except=[{ match: \"*.attn.v.weight\", grid: q4_k }]"}),
              HasSubstr("codes can be recovered on"));
}

}  // namespace retort::recipes
