#include "models/gguf_model.h"

#include <gmock/gmock.h>

#include <set>

#include "core/error.h"
#include "models/hf_folder.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using formats::GgmlType;
using testing::same_bits;

Packer as_type(GgmlType type) {
  return [type](const Parameter& p) { return formats::pack(type, p.master); };
}

DecoderSpec shared_spec() {
  DecoderSpec spec = testing::tiny_llama();
  spec.layers = 4;
  spec.ffn_width = 64;
  spec.tie_embeddings = spec.share_ffn = spec.attention_bias = true;
  return spec;
}

TEST(GgufModel, F32ComesBackBitForBit) {
  const testing::TemporaryDirectory directory;
  DecoderSpec untied = testing::tiny_gpt2();
  untied.tie_embeddings = false;
  std::vector<DecoderSpec> specs = testing::tiny_gguf_families();
  specs.insert(specs.end(), {testing::tiny_llama(), shared_spec(), testing::tiny_gpt2(), untied});
  for (const DecoderSpec& spec : specs) {
    const auto model = testing::random_model(spec);
    save_gguf(local_files(), directory / "m.gguf", *model, as_type(GgmlType::F32), {}, "tiny");
    const auto loaded = load_gguf(directory / "m.gguf");
    DecoderSpec plain = spec;
    plain.share_ffn = false;
    EXPECT_TRUE(loaded->spec() == plain) << spec.family;
    for (const Parameter& p : loaded->parameters().unique()) {
      const at::Tensor& ours = model->parameters().at(p.name).master;
      // stored as 1 + w, rounded to f32, where that is what multiplies
      EXPECT_TRUE(same_bits(p.master, p.offset == 0 ? ours : (ours + p.offset) - p.offset)) << p.name;
    }
  }
}

// Rows of q and k change places in the file as whole rows: what comes back are the packed values of our rows.
TEST(GgufModel, QuantizedRowsSurviveThePermutation) {
  const testing::TemporaryDirectory directory;
  const auto model = testing::random_model(shared_spec());
  for (const GgmlType type : {GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0, GgmlType::Q4_0}) {
    std::vector<std::string> packed;
    const auto packer = [&](const Parameter& p) {
      packed.push_back(p.name);
      return formats::pack(type, p.master);
    };
    save_gguf(local_files(), directory / "m.gguf", *model, packer, {}, "tiny");
    const auto loaded = load_gguf(directory / "m.gguf");
    for (const Parameter& p : loaded->parameters().unique()) {
      const at::Tensor& ours = model->parameters().at(p.name).master;
      const bool f32 = p.role == Role::kNorm || p.role == Role::kBias;
      const at::Tensor expected = f32 ? ours : formats::unpack(formats::pack(type, ours));
      EXPECT_TRUE(same_bits(p.master, expected)) << p.name;
    }
    // one call a unique matrix: the shared FFN's copies come from the same codes
    EXPECT_EQ(packed.size(), std::set<std::string>(packed.begin(), packed.end()).size());
    EXPECT_EQ(packed.size(), 1u + 4 * 4 + 3);
  }
}

TEST(GgufModel, WritesWhatTheClientDemands) {
  const testing::TemporaryDirectory directory;
  DecoderSpec spec = shared_spec();
  spec.rope_scaling = {"llama3", 8.0, 1.0, 4.0, 32};
  const auto model = testing::random_model(spec);
  const formats::GgufMetadata tokenizer = {{"tokenizer.ggml.model", std::string("gpt2")}};
  save_gguf(local_files(), directory / "m.gguf", *model, as_type(GgmlType::Q4_0), tokenizer, "tiny");
  const formats::GgufFile file(directory / "m.gguf");
  EXPECT_EQ(file.metadata().at(0).first, "general.architecture");
  EXPECT_EQ(file.text("general.name"), "tiny");
  EXPECT_EQ(file.text("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(file.integer("general.file_type"), 2);
  EXPECT_EQ(file.integer("general.quantization_version"), 2);
  EXPECT_EQ(file.integer("llama.attention.head_count_kv"), 2);
  EXPECT_EQ(file.integer("llama.rope.dimension_count"), 8);
  EXPECT_EQ(file.find("llama.rope.scaling.type"), nullptr);
  EXPECT_EQ(file.find_tensor("output.weight"), nullptr);  // tied
  for (const formats::GgufTensorInfo& t : file.tensors())
    EXPECT_EQ(t.type, t.shape.size() == 1 ? GgmlType::F32 : GgmlType::Q4_0) << t.name;
  const auto bytes = [&](const char* name) {
    const auto span = file.bytes(*file.find_tensor(name));
    return std::vector<std::byte>(span.begin(), span.end());
  };
  EXPECT_EQ(bytes("blk.3.ffn_up.weight"), bytes("blk.0.ffn_up.weight"));
  EXPECT_EQ(file.find_tensor("rope_freqs.weight")->shape, std::vector<int64_t>({4}));
}

TEST(GgufModel, RefusesFusedTensorsOfTwoTypes) {
  const testing::TemporaryDirectory directory;
  const auto model = testing::random_model(testing::tiny_gpt2());
  const auto packer = [](const Parameter& p) {
    return formats::pack(p.name.ends_with("attn.k.weight") ? GgmlType::F16 : GgmlType::F32, p.master);
  };
  EXPECT_THROW(save_gguf(local_files(), directory / "m.gguf", *model, packer, {}, "x"), ConfigError);
}

TEST(GgufModel, RefusesOtherArchitecturesAndTornModels) {
  const testing::TemporaryDirectory directory;
  const Path path = directory / "m.gguf";
  const auto message = [&] {
    try {
      load_gguf(path);
    } catch (const DataError& e) {
      return std::string(e.what());
    }
    return std::string("loaded");
  };
  formats::write_gguf(local_files(), path, {{"general.architecture", std::string("rwkv")}}, {});
  EXPECT_THAT(message(), ::testing::HasSubstr("\"rwkv\" is not known; known: gpt2, llama"));
  const auto model = testing::random_model(testing::tiny_llama());
  save_gguf(local_files(), path, *model, as_type(GgmlType::F32), {}, "tiny");
  const formats::GgufFile file(path);
  std::vector<std::pair<std::string, formats::PackedTensor>> tensors;
  for (const formats::GgufTensorInfo& t : file.tensors())
    if (t.name != "blk.1.attn_k.weight")
      tensors.emplace_back(t.name, formats::pack(GgmlType::F32, file.values(t.name)));
  formats::write_gguf(local_files(), directory / "torn.gguf", file.metadata(), tensors);
  EXPECT_THROW(load_gguf(directory / "torn.gguf"), DataError);
}

// Hugging Face -> GGUF -> Hugging Face on other people's weights.
TEST(GgufModel, GoldenModelsMakeTheRoundTrip) {
  RETORT_NEEDS_TEST_DATA();
  const testing::TemporaryDirectory directory;
  for (const char* name :
       {"gpt2", "llama", "llama3-tied", "phi3", "phi3-longrope", "qwen2", "qwen3", "gemma3"}) {
    const auto model = load_hf_folder(testing::test_data() / "models" / "tiny" / name);
    save_gguf(local_files(), directory / "m.gguf", *model, as_type(GgmlType::F32), {}, name);
    const auto back = load_gguf(directory / "m.gguf");
    IdentityMap identity;
    save_hf_folder(local_files(), directory / "hf", *back, identity, at::kFloat, {});
    const auto again = load_hf_folder(directory / "hf");
    for (const Parameter& p : model->parameters().unique()) {
      const at::Tensor& read = back->parameters().at(p.name).master;
      EXPECT_TRUE(same_bits(p.master, read) || (p.offset != 0 && at::allclose(p.master, read, 0, 0x1p-24)))
          << name << " " << p.name;
      EXPECT_TRUE(same_bits(read, again->parameters().at(p.name).master)) << name << " " << p.name;
    }
    EXPECT_TRUE(model->spec() == back->spec()) << name;
    const at::Tensor tokens = testing::random_tokens(1, 40, 256);
    const at::Tensor ours_BTD = model->hidden({tokens, {}, {}}), theirs_BTD = back->hidden({tokens, {}, {}});
    EXPECT_TRUE(same_bits(ours_BTD, theirs_BTD) || testing::relative_error(theirs_BTD, ours_BTD) < 1e-6)
        << name;
  }
}

TEST(GgufModel, ReplacesAnOlderGgufOnly) {
  const testing::TemporaryDirectory directory;
  const auto model = testing::random_model(testing::tiny_llama());
  const auto save = [&](const char* name) {
    save_gguf(local_files(), directory / name, *model, as_type(GgmlType::F32), {}, "tiny");
  };
  save("m.gguf");
  EXPECT_NO_THROW(save("m.gguf"));
  write_durably(local_files(), directory / "empty", "");
  EXPECT_NO_THROW(save("empty"));
  write_durably(local_files(), directory / "thesis.tex", "GG");
  EXPECT_THROW(save("thesis.tex"), IoError);
  EXPECT_EQ(read_text(directory / "thesis.tex"), "GG");
}

}  // namespace
}  // namespace retort::models
