// The translations of configurations: every family both ways, other people's spellings, and what is refused.
#include <set>

#include "core/error.h"
#include "models/families/gguf_keys.h"
#include "models/families/hf_config.h"
#include "models/families/rows.h"
#include "models/family.h"
#include "models/gguf_model.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using formats::Json;

const Family& llama() { return families().at("llama"); }
DecoderSpec read(const Json& config) { return llama().spec_from_hf(config, "config.json"); }
Json config() { return llama().hf_config(testing::tiny_llama()); }

TEST(Families, TheRegistryHoldsEveryRow) {
  EXPECT_EQ(families().names(), (std::vector<std::string>{gpt2_family().name, llama_family().name}));
}

TEST(Families, HfConfigNamesFileAndKey) {
  const Json json = {{"a", 3}, {"b", nullptr}, {"c", {{"d", true}}}, {"e", "x"}};
  const HfConfig config(json, "config.json");
  EXPECT_EQ(config.integer("a", 5), 3);
  EXPECT_EQ(config.integer("b", 5), 5);
  EXPECT_EQ(config.text("missing", "y"), "y");
  EXPECT_TRUE(config.object("c").flag("d", false));
  EXPECT_NO_THROW(config.object("c").must_be("d", true));
  for (const std::function<void()>& wrong : std::vector<std::function<void()>>{
           [&] { config.integer("b"); }, [&] { config.integer("e", 1); }, [&] { config.flag("a", false); },
           [&] { config.object("a"); }, [&] { config.object("c").must_be("d", false); }}) {
    try {
      wrong();
      ADD_FAILURE() << "accepted";
    } catch (const DataError& e) {
      EXPECT_TRUE(std::string_view(e.what()).starts_with("config.json")) << e.what();
    }
  }
}

// 1e-5f is 9.99999974e-06: the decimal that was meant comes back, and with it the same arithmetic.
TEST(Families, GgufRealsAreTheDecimalsThatWereMeant) {
  const testing::TemporaryDirectory directory;
  const formats::GgufMetadata metadata = {
      {"general.architecture", std::string("x")}, {"x.eps", 1e-5f}, {"x.n", uint32_t{7}}};
  formats::write_gguf(local_files(), directory / "m.gguf", metadata, {});
  const formats::GgufFile file(directory / "m.gguf");
  const GgufKeys keys(file, "x");
  EXPECT_EQ(keys.real("eps"), 1e-5);
  EXPECT_EQ(keys.integer("n"), 7);
  EXPECT_EQ(keys.integer("m", 8), 8);
  EXPECT_THROW(keys.integer("m"), DataError);
}

TEST(Families, DefaultsAreValidAndComeBackFromHf) {
  for (const Family& family : families()) {
    EXPECT_NO_THROW(family.defaults.validate()) << family.name;
    EXPECT_EQ(family.defaults.family, family.name);
    const Json json = family.hf_config(family.defaults);
    EXPECT_EQ(json.at("model_type"), family.hf_model_types.at(0));
    EXPECT_TRUE(family.spec_from_hf(json, "config.json") == family.defaults) << family.name;
  }
}

// A tensor list names every use of every parameter once, and fused rows are adjacent and complete.
TEST(Families, TensorListsCoverTheModel) {
  for (const Family& family : families()) {
    const Decoder model(family.defaults, at::kMeta);
    for (const auto& list : {family.hf_tensors(family.defaults), family.gguf_tensors(family.defaults)}) {
      std::set<std::string> covered;
      std::string last;
      int64_t end = 0;
      for (const ForeignTensor& t : list) {
        EXPECT_TRUE(covered.insert(t.parameter).second) << t.parameter;
        EXPECT_LE(t.name.size(), 63u);
        EXPECT_EQ(t.row_begin, t.name == last ? end : 0) << t.name;
        last = t.name;
        end = t.row_begin + t.rows;
        EXPECT_TRUE(t.rows == 0 || t.rows == model.parameters().at(t.parameter).master.size(0)) << t.name;
      }
      size_t uses = 0;
      for (const Parameter& p : model.parameters().unique()) uses += p.uses.size();
      EXPECT_EQ(covered.size(), uses) << family.name;
    }
  }
}

TEST(Families, ReadsTheRopeOfTransformers4) {
  Json four = config();
  four.erase("rope_parameters");
  four["rope_theta"] = 500000.0;
  four["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  EXPECT_EQ(read(four).rope_theta, 500000.0);
  EXPECT_EQ(read(four).rope_scaling.kind, "linear");
  EXPECT_EQ(read(four).rope_scaling.factor, 2.0);
  four["rope_scaling"] = nullptr;
  EXPECT_EQ(read(four).rope_scaling.kind, "none");
  four.erase("rope_scaling");
  four.erase("rope_theta");
  EXPECT_EQ(read(four).rope_theta, 10000.0);
}

TEST(Families, ReadsTheRopeOfTransformers5) {
  Json five = config();
  five.erase("rope_theta");
  five.erase("rope_scaling");
  five["rope_parameters"] = {{"rope_type", "llama3"},   {"rope_theta", 500000.0},
                             {"factor", 32.0},          {"low_freq_factor", 1.0},
                             {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
  const DecoderSpec spec = read(five);
  EXPECT_EQ(spec.rope_theta, 500000.0);
  EXPECT_EQ(spec.rope_scaling.kind, "llama3");
  EXPECT_EQ(spec.rope_scaling.factor, 32.0);
  EXPECT_EQ(spec.rope_scaling.original_context, 8192);
}

TEST(Families, NullAndAbsentMeanTheDefault) {
  Json json = config();
  json["num_key_value_heads"] = nullptr;
  json.erase("head_dim");
  json.erase("tie_word_embeddings");
  EXPECT_EQ(read(json).kv_heads, 4);
  EXPECT_EQ(read(json).head_dim, 8);
  EXPECT_FALSE(read(json).tie_embeddings);  // LlamaConfig's default; GPT-2's is true:
  Json gpt2 = families().at("gpt2").hf_config(testing::tiny_gpt2());
  gpt2.erase("tie_word_embeddings");
  gpt2["n_inner"] = nullptr;
  const DecoderSpec spec = families().at("gpt2").spec_from_hf(gpt2, "config.json");
  EXPECT_TRUE(spec.tie_embeddings);
  EXPECT_EQ(spec.ffn_width, 128);
}

TEST(Families, RefusesWhatTheDecoderHasNot) {
  const auto with = [](const char* key, Json value) {
    Json json = config();
    json[key] = std::move(value);
    return json;
  };
  EXPECT_THROW(read(with("hidden_act", "gelu")), DataError);
  EXPECT_THROW(read(with("rope_parameters", {{"rope_type", "yarn"}, {"factor", 2.0}})), DataError);
  EXPECT_THROW(read(with("num_attention_heads", 0)), DataError);
  EXPECT_THROW(read(with("hidden_size", "big")), DataError);
  EXPECT_THROW(read(with("tie_word_embeddings", 1)), DataError);
  EXPECT_THROW(read(with("rope_parameters", 7)), DataError);
  Json gpt2 = families().at("gpt2").hf_config(testing::tiny_gpt2());
  gpt2["scale_attn_by_inverse_layer_idx"] = true;
  EXPECT_THROW(families().at("gpt2").spec_from_hf(gpt2, "config.json"), DataError);
}

// A llama3 scaling survives GGUF, which keeps only the divisors: with blended frequencies and without.
TEST(Families, Llama3ScalingIsReadBackFromItsDivisors) {
  const testing::TemporaryDirectory directory;
  const std::tuple<int64_t, double, double, int64_t> cases[] = {{128, 500000.0, 8.0, 8192},
                                                                {64, 500000.0, 32.0, 8192},
                                                                {16, 500000.0, 8.0, 32},
                                                                {8, 10000.0, 4.0, 100}};
  for (const auto& [head_dim, theta, factor, original] : cases) {
    DecoderSpec spec = testing::tiny_llama();
    spec.head_dim = head_dim;
    spec.norm_eps = 1e-6;
    spec.rope_theta = theta;
    spec.rope_scaling = {"llama3", factor, 1.0, 4.0, original};
    const auto model = testing::random_model(spec);
    const auto pack = [](const Parameter& p) { return formats::pack(formats::GgmlType::F32, p.master); };
    save_gguf(local_files(), directory / "m.gguf", *model, pack, {}, "test");
    const auto loaded = load_gguf(directory / "m.gguf");
    const auto scaled = [](const DecoderSpec& s) {
      return kernels::rope_frequencies(s.head_dim, s.rope_theta, s.rope_scaling);
    };
    EXPECT_TRUE(testing::same_bits(scaled(spec), scaled(loaded->spec()))) << head_dim;
    EXPECT_EQ(loaded->spec().rope_scaling.factor, factor);
    EXPECT_EQ(loaded->spec().norm_eps, 1e-6);
  }
}

}  // namespace
}  // namespace retort::models
