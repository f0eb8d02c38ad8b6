#include "models/gguf_adapter.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/random.h"
#include "formats/gguf.h"
#include "models/gguf_model.h"
#include "models/hf_folder.h"
#include "models/peft_folder.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using ::testing::HasSubstr;
using testing::same_bits;

AdapterOptions on(std::vector<std::string> modules) {
  AdapterOptions options;
  options.modules = std::move(modules);
  options.rank = 3;
  options.alpha = 6.0;
  return options;
}

std::unique_ptr<Model> adapted(const DecoderSpec& spec, const AdapterOptions& options) {
  auto model = adapt(testing::random_model(spec), options, 5);
  const at::NoGradGuard no_grad;
  for (Parameter& p : model->parameters().unique())
    if (p.role == Role::kLoraB) Random(4, p.name).fill_normal(p.master, 0.1);
  return model;
}

// llama.cpp's converter wrote the file, and llama.cpp's answers with it are those of peft.
TEST(GgufAdapter, IsThatOfLlamaCppsConverter) {
  RETORT_NEEDS_TEST_DATA();
  const Path folder = testing::test_data() / "finetune" / "stories260K-lora";
  const PeftConfig config = read_peft_config(folder);
  const auto model = load_peft(folder, config, load_hf_folder(testing::test_data() / "models" / config.base));
  const testing::TemporaryDirectory directory;
  save_gguf_adapter(local_files(), directory / "a.gguf", *model, config.options, "retort");
  const formats::GgufFile ours(directory / "a.gguf"), theirs(folder / "adapter.gguf");
  for (const char* key : {"general.architecture", "general.type", "adapter.type"})
    EXPECT_EQ(ours.text(key), theirs.text(key)) << key;
  EXPECT_EQ(ours.real("adapter.lora.alpha"), theirs.real("adapter.lora.alpha"));
  ASSERT_EQ(ours.tensors().size(), theirs.tensors().size());
  for (const formats::GgufTensorInfo& tensor : theirs.tensors()) {
    ASSERT_NE(ours.find_tensor(tensor.name), nullptr) << tensor.name;
    EXPECT_EQ(ours.find_tensor(tensor.name)->type, tensor.type) << tensor.name;
    EXPECT_TRUE(same_bits(ours.values(tensor.name), theirs.values(tensor.name))) << tensor.name;
  }
}

// What the reader makes of a file, alpha / rank B A, is what the merge adds to the base's GGUF.
TEST(GgufAdapter, SaysWhatAMergeDoes) {
  AdapterOptions uneven = on({"all-linear"});
  uneven.overrides = {{".*down.*|.*c_proj", 5, 0.0}};
  AdapterOptions stable = on({"all-linear"});
  stable.rslora = true;
  for (const AdapterOptions& options : {on({"all-linear"}), uneven, stable})
    for (const DecoderSpec& spec : testing::tiny_gguf_families()) {
      const auto model = adapted(spec, options);
      const testing::TemporaryDirectory directory;
      IdentityMap identity;
      const auto pack = [](const Parameter& p) { return formats::pack(formats::GgmlType::F32, p.master); };
      save_gguf_adapter(local_files(), directory / "a.gguf", *model, options, "a");
      save_gguf(local_files(), directory / "merged.gguf", *merge_adapters(*model, identity), pack, {}, "m");
      save_gguf(local_files(), directory / "base.gguf", *testing::random_model(spec), pack, {}, "b");
      const formats::GgufFile adapter(directory / "a.gguf"), merged(directory / "merged.gguf"),
          base(directory / "base.gguf");
      const double alpha = adapter.real("adapter.lora.alpha");
      size_t joined = 0;
      for (const formats::GgufTensorInfo& tensor : base.tensors()) {
        if (adapter.find_tensor(tensor.name + ".lora_a") == nullptr) continue;
        const at::Tensor a = adapter.values(tensor.name + ".lora_a"),
                         b = adapter.values(tensor.name + ".lora_b");
        const at::Tensor sum =
            base.values(tensor.name) + alpha / static_cast<double>(b.size(1)) * b.matmul(a);
        EXPECT_LT(testing::relative_error(sum, merged.values(tensor.name)), 1e-6)
            << spec.family << tensor.name;
        joined += 2;
      }
      EXPECT_EQ(joined, adapter.tensors().size()) << spec.family;
    }
}

TEST(GgufAdapter, TurnsTheEmbeddingRound) {
  const auto model = adapted(testing::tiny_llama(), on({"embed_tokens"}));
  const testing::TemporaryDirectory directory;
  save_gguf_adapter(local_files(), directory / "a.gguf", *model, on({"embed_tokens"}), "a");
  const formats::GgufFile file(directory / "a.gguf");
  EXPECT_EQ(file.find_tensor("token_embd.weight.lora_a")->shape, (std::vector<int64_t>{96, 3}));
  EXPECT_EQ(file.find_tensor("token_embd.weight.lora_b")->shape, (std::vector<int64_t>{32, 3}));
}

TEST(GgufAdapter, IsNoModel) {
  const testing::TemporaryDirectory directory;
  save_gguf_adapter(local_files(), directory / "a.gguf", *adapted(testing::tiny_llama(), on({"q_proj"})),
                    on({"q_proj"}), "a");
  EXPECT_THAT(
      [&] { load_gguf(directory / "a.gguf"); },
      ::testing::ThrowsMessage<DataError>(HasSubstr("a.gguf: is an adapter, which llama.cpp applies")));
}

// The base's file holds the tokens alone, and so must the adapter's tables.
TEST(GgufAdapter, LeavesOutRowsThatAreNoTokens) {
  const AdapterOptions options = on({"embed_tokens", "lm_head"});
  auto base = testing::random_model(testing::tiny_llama());
  base->set_tokens(90);
  auto model = adapt(std::move(base), options, 5);
  const at::NoGradGuard no_grad;
  for (const char* use : {"embed.lora_b.weight", "lm_head.lora_b.weight"})
    Random(4, use).fill_normal(model->parameters().at(use).master, 0.1);
  const testing::TemporaryDirectory directory;
  save_gguf_adapter(local_files(), directory / "a.gguf", *model, options, "a");
  const formats::GgufFile file(directory / "a.gguf");
  EXPECT_TRUE(same_bits(file.values("token_embd.weight.lora_a"),
                        model->parameters().at("embed.lora_b.weight").master.narrow(0, 0, 90)));
  EXPECT_TRUE(same_bits(file.values("output.weight.lora_b"),
                        model->parameters().at("lm_head.lora_b.weight").master.narrow(0, 0, 90)));
}

TEST(GgufAdapter, SaysWhatItCannotHold) {
  const auto misfit = [](DecoderSpec spec, AdapterOptions options, bool tied = false) {
    spec.tie_embeddings = tied;
    return gguf_adapter_misfit(*adapted(spec, options), options);
  };
  const DecoderSpec llama = testing::tiny_llama();
  AdapterOptions options = on({"q_proj"});
  EXPECT_EQ(misfit(llama, options), "");
  options.dora = true;
  EXPECT_THAT(misfit(llama, options), HasSubstr("no row lengths (dora); export a merged GGUF"));
  options.dora = false;
  options.whole = {"lm_head"};
  EXPECT_THAT(misfit(llama, options), HasSubstr("no part that is trained whole (lm_head)"));
  EXPECT_EQ(misfit(llama, on({"embed_tokens"})), "");
  EXPECT_THAT(misfit(llama, on({"embed_tokens"}), true), HasSubstr("cannot tell the sides of a tied"));
}

}  // namespace
}  // namespace retort::models
