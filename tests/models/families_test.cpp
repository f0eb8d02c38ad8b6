// The translations of configurations: every family both ways, other people's spellings, and what is refused.
#include <gmock/gmock.h>

#include <set>

#include "core/error.h"
#include "models/families/gguf_keys.h"
#include "models/families/hf_config.h"
#include "models/families/llama_form.h"
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
  EXPECT_EQ(families().names(),
            (std::vector<std::string>{gpt2_family().name, llama_family().name, phi3_family().name,
                                      qwen2_family().name, qwen3_family().name, gemma3_family().name,
                                      bitnet_family().name, spacebyte_family().name, stlm_family().name}));
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
    if (family.make) continue;  // other people's files do not know it
    const Json json = family.hf_config(family.defaults);
    EXPECT_EQ(json.at("model_type"), family.hf_model_types.at(0));
    EXPECT_TRUE(family.spec_from_hf(json, "config.json") == family.defaults) << family.name;
  }
}

// A tensor list names every use of every parameter once, and fused rows are adjacent and complete.
TEST(Families, TensorListsCoverTheModel) {
  for (const DecoderSpec& spec : testing::tiny_families()) {
    const Family& family = families().at(spec.family);
    const Decoder model(spec, at::kMeta);
    for (const auto& list : {family.hf_tensors(spec), family.gguf_tensors(spec)}) {
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

template <class E, class F>
std::string message_of(const F& run) {
  try {
    run();
  } catch (const E& e) {
    return e.what();
  }
  return "no error";
}

// What an architecture's files cannot say is refused when the model is made, not when it is written.
TEST(Families, RefuseChoicesOfOthers) {
  const auto message = [](const char* family, const std::function<void(DecoderSpec&)>& change) {
    for (DecoderSpec s : testing::tiny_families()) {
      if (s.family != family) continue;
      change(s);
      return message_of<ConfigError>([&] { s.validate(); });
    }
    return std::string("no such family");
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(message("llama", [](DecoderSpec& s) { s.qk_norm = true; }),
              HasSubstr("model.family llama has qk_norm false, got true"));
  EXPECT_THAT(message("llama", [](DecoderSpec& s) { s.window = 8; }), HasSubstr("has window 0, got 8"));
  EXPECT_THAT(message("qwen2", [](DecoderSpec& s) { s.qkv_bias = false; }), HasSubstr("qkv_bias"));
  EXPECT_THAT(message("qwen3", [](DecoderSpec& s) { s.rope_scaling.kind = "llama3"; }),
              HasSubstr("model.family qwen3 has rope_scaling none, linear, got llama3"));
  EXPECT_THAT(message("phi3", [](DecoderSpec& s) { s.head_dim = 16; }), HasSubstr("must equal model.width"));
  EXPECT_THAT(
      message("gemma3", [](DecoderSpec& s) { s.window = s.global_every = 0, s.rope_local_theta = 0; }),
      HasSubstr("has a window"));
  EXPECT_THAT(message("gpt2", [](DecoderSpec& s) { s.logit_softcap = 30; }), HasSubstr("logit_softcap"));
  EXPECT_THAT(message("llama", [](DecoderSpec& s) { s.sub_norms = true; }), HasSubstr("has sub_norms false"));
  EXPECT_THAT(message("bitnet", [](DecoderSpec& s) { s.sub_norms = false; }),
              HasSubstr("has sub_norms true"));
  EXPECT_THAT(message("bitnet", [](DecoderSpec& s) { s.ffn = FfnKind::kGeglu; }),
              HasSubstr("model.ffn must be relu2glu or swiglu"));
  EXPECT_THAT(message("bitnet", [](DecoderSpec& s) { s.head_dim = 16; }),
              HasSubstr("must equal model.width"));
}

TEST(Families, QwenRefusesSlidingLayers) {
  const auto read_qwen = [](const char* key, const Json& value) {
    Json json = families().at("qwen3").hf_config(families().at("qwen3").defaults);
    json[key] = value;
    return message_of<DataError>([&] { families().at("qwen3").spec_from_hf(json, "config.json"); });
  };
  EXPECT_EQ(read_qwen("layer_types", Json::array({"full_attention"})), "no error");
  EXPECT_THAT(read_qwen("layer_types", Json::array({"full_attention", "sliding_attention"})),
              ::testing::HasSubstr("layer_types must be full_attention"));
  EXPECT_THAT(read_qwen("use_sliding_window", true), ::testing::HasSubstr("use_sliding_window"));
}

DecoderSpec tiny(const std::string& family) {
  const std::vector<DecoderSpec> all = testing::tiny_families();
  return *std::find_if(all.begin(), all.end(), [&](const DecoderSpec& s) { return s.family == family; });
}

DecoderSpec longrope_spec() {
  for (const DecoderSpec& s : testing::tiny_families())
    if (s.rope_scaling.kind == "longrope") return s;
  return {};
}

TEST(Families, Phi3ReadsLongropeInAllItsSpellings) {
  const Family& phi3 = families().at("phi3");
  const DecoderSpec spec = longrope_spec();
  const auto again = [&](const Json& json) { return phi3.spec_from_hf(json, "config.json"); };
  Json both = phi3.hf_config(spec), four = both;
  EXPECT_EQ(both["rope_scaling"].size(), 3u);  // all that transformers 4 accepts
  EXPECT_TRUE(again(both) == spec);
  four.erase("rope_parameters");
  for (const char* name : {"longrope", "su", "yarn"}) {
    four["rope_scaling"]["type"] = name;
    EXPECT_TRUE(again(four) == spec) << name;
  }
  both["original_max_position_embeddings"] = 32;  // wins over the one inside
  EXPECT_EQ(again(both).rope_scaling.original_context, 32);
  DecoderSpec odd = spec;  // a factor that is not context / original
  odd.rope_scaling.factor = 3.0;
  odd.rope_scaling.attention_factor = 1.25;
  const Json said = phi3.hf_config(odd);
  EXPECT_GT(said["rope_scaling"].size(), 3u);
  EXPECT_TRUE(again(said) == odd);
  both["rope_parameters"]["partial_rotary_factor"] = 0.75;
  EXPECT_THAT(message_of<DataError>([&] { again(both); }), ::testing::HasSubstr("partial_rotary_factor"));
}

// Of two spellings that differ, in every family: rope_scaling counts, as in transformers 5.17, and a base
// that would be lost with the other is refused.
TEST(Families, OneRuleForTwoSpellingsOfRope) {
  struct Case {
    const char* name;
    Json four, five, theta;
    std::string kind;  // "": refused
    double base;
  };
  const Json linear = {{"rope_type", "linear"}, {"factor", 4.0}}, plain = {{"rope_type", "default"}};
  const auto at = [](Json scaling, double theta) {
    scaling["rope_theta"] = theta;
    return scaling;
  };
  for (const Family& family : families()) {
    // Those without rotary positions, and the one that has a part for each kind of layer (below).
    if (family.spec_from_hf == nullptr || family.name == "gpt2" || family.name == "gemma3") continue;
    const double usual = family.defaults.rope_theta;
    const Case cases[] = {
        {"scaling was added", linear, at(plain, usual), nullptr, "linear", usual},
        {"scaling without its parameters", linear, nullptr, 5000.0, "linear", 5000},
        {"null says nothing", nullptr, at(linear, 5000), 7000.0, "linear", 5000},
        {"nor does an empty section", Json::object(), at(linear, 5000), nullptr, "linear", 5000},
        {"scaling was taken away", at(plain, 5000), at(linear, 5000), nullptr, "none", 5000},
        {"its own base counts", at(linear, 5000), nullptr, 7000.0, "linear", 5000},
        {"and both may say it", at(linear, 5000), at(plain, 5000), 5000.0, "linear", 5000},
        {"a base would be lost", linear, at(plain, 5000), nullptr, "", 0},
        {"a base differs", at(linear, 7000), at(plain, 5000), nullptr, "", 0},
    };
    for (const Case& c : cases) {
      Json json = family.hf_config(tiny(family.name));
      json["rope_scaling"] = c.four;
      json["rope_theta"] = c.theta;
      json["rope_parameters"] = c.five;
      const auto read_it = [&] { return family.spec_from_hf(json, "config.json"); };
      if (c.kind.empty()) {
        EXPECT_THAT(message_of<DataError>(read_it), ::testing::AllOf(::testing::HasSubstr("rope_scaling"),
                                                                     ::testing::HasSubstr("rope_parameters")))
            << family.name << ": " << c.name;
        continue;
      }
      EXPECT_EQ(read_it().rope_scaling.kind, c.kind) << family.name << ": " << c.name;
      EXPECT_EQ(read_it().rope_theta, c.base) << family.name << ": " << c.name;
    }
  }
}

// There the parts of rope_scaling go over those of the global layers.
TEST(Families, Gemma3ScalesItsGlobalLayers) {
  const Family& family = families().at("gemma3");
  Json json = family.hf_config(tiny("gemma3"));
  json["rope_parameters"] = {{"full_attention", {{"rope_type", "default"}, {"rope_theta", 5000.0}}},
                             {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 70.0}}}};
  json["rope_local_base_freq"] = 90.0;
  json["rope_theta"] = 6000.0;
  json["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 4.0}};
  const DecoderSpec spec = family.spec_from_hf(json, "config.json");
  EXPECT_EQ(spec.rope_scaling.kind, "linear");
  EXPECT_EQ(spec.rope_scaling.factor, 4.0);
  EXPECT_EQ(spec.rope_theta, 5000.0);
  EXPECT_EQ(spec.rope_local_theta, 70.0);
}

TEST(Families, Gemma3ReadsItsWindowsFromEitherSpelling) {
  const Family& gemma = families().at("gemma3");
  DecoderSpec spec = tiny("gemma3");
  spec.layers = 7;
  spec.rope_scaling.kind = "linear";
  spec.rope_scaling.factor = 8.0;
  spec.query_scalar = 12.5;
  const auto read_with = [&](const std::function<void(Json&)>& change) {
    Json json = gemma.hf_config(spec);
    change(json);
    return gemma.spec_from_hf(json, "config.json");
  };
  EXPECT_TRUE(read_with([](Json&) {}) == spec);
  EXPECT_TRUE(read_with([](Json& j) { j.erase("layer_types"), j.erase("rope_parameters"); }) == spec);
  EXPECT_TRUE(read_with([](Json& j) {
                j.erase("rope_theta"), j.erase("rope_scaling"), j.erase("rope_local_base_freq");
                j.erase("sliding_window_pattern");
              }) == spec);
  for (const int64_t every : {0, 1, 7, 100}) {
    spec.global_every = every;
    const DecoderSpec back = read_with([](Json& j) { j.erase("_sliding_window_pattern"); });
    for (int64_t n = 0; n < spec.layers; ++n) EXPECT_EQ(back.windowed(n), spec.windowed(n)) << every;
  }
  EXPECT_THAT(
      message_of<DataError>([&] { read_with([](Json& j) { j["layer_types"][1] = "full_attention"; }); }),
      ::testing::HasSubstr("every P-th layer"));
  EXPECT_THAT(message_of<DataError>([&] { read_with([](Json& j) { j["layer_types"].erase(0); }); }),
              ::testing::HasSubstr("name 7 layers"));
  EXPECT_THAT(message_of<DataError>([&] { read_with([](Json& j) { j["final_logit_softcapping"] = 30.0; }); }),
              ::testing::HasSubstr("final_logit_softcapping"));
  EXPECT_THAT(message_of<ConfigError>([&] { gemma.gguf_metadata(spec); }),
              ::testing::HasSubstr("query_scalar"));
}

TEST(Families, BitnetReadsItsActivation) {
  const Family& bitnet = families().at("bitnet");
  const DecoderSpec spec = tiny("bitnet");
  const auto read_with = [&](const std::function<void(Json&)>& change) {
    Json json = bitnet.hf_config(spec);
    change(json);
    return bitnet.spec_from_hf(json, "config.json");
  };
  EXPECT_EQ(bitnet.hf_config(spec)["architectures"], Json::array({"BitNetForCausalLM"}));
  EXPECT_EQ(read_with([](Json& j) { j.erase("hidden_act"); }).ffn, FfnKind::kRelu2glu);
  EXPECT_EQ(read_with([](Json& j) { j["hidden_act"] = "silu"; }).ffn, FfnKind::kSwiglu);
  EXPECT_THAT(message_of<DataError>([&] { read_with([](Json& j) { j["hidden_act"] = "gelu"; }); }),
              ::testing::HasSubstr("config.json: hidden_act must be relu2 or silu, got gelu"));
  EXPECT_THAT(message_of<DataError>([&] { read_with([](Json& j) { j["attention_bias"] = true; }); }),
              ::testing::HasSubstr("attention_bias"));
}

// llama.cpp's bitnet computes SiLU and takes the embedding for the head: another model is not written as one.
TEST(Families, BitnetWritesTheGgufThatLlamaCppComputes) {
  const testing::TemporaryDirectory directory;
  const auto refusal = [&](const std::function<void(DecoderSpec&)>& change) {
    DecoderSpec spec = tiny("bitnet");
    spec.ffn = FfnKind::kSwiglu;
    change(spec);
    return message_of<ConfigError>([&] {
      const auto pack = [](const Parameter& p) { return formats::pack(formats::GgmlType::F32, p.master); };
      save_gguf(local_files(), directory / "m.gguf", *testing::random_model(spec), pack, {}, "test");
    });
  };
  EXPECT_EQ(refusal([](DecoderSpec&) {}), "no error");
  const formats::GgufFile file(directory / "m.gguf");
  EXPECT_EQ(file.find_tensor("blk.2.attn_sub_norm.weight")->shape, std::vector<int64_t>({32}));
  EXPECT_EQ(file.find_tensor("blk.2.ffn_sub_norm.weight")->shape, std::vector<int64_t>({64}));
  EXPECT_THAT(refusal([](DecoderSpec& s) { s.ffn = FfnKind::kRelu2glu; }),
              ::testing::HasSubstr("computes SiLU: model.ffn must be swiglu, got relu2glu"));
  EXPECT_THAT(refusal([](DecoderSpec& s) { s.tie_embeddings = false; }),
              ::testing::HasSubstr("no head of its own"));
  // a file that says so is read as what it says
  std::vector<std::pair<std::string, formats::PackedTensor>> tensors;
  for (const formats::GgufTensorInfo& t : file.tensors())
    tensors.emplace_back(t.name, formats::pack(formats::GgmlType::F32, file.values(t.name)));
  for (const auto& [word, ffn] : {std::pair{"relu2", FfnKind::kRelu2glu}, {"silu", FfnKind::kSwiglu}}) {
    formats::GgufMetadata metadata = file.metadata();
    metadata.emplace_back("bitnet.hidden_activation", std::string(word));
    formats::write_gguf(local_files(), directory / "said.gguf", metadata, tensors);
    EXPECT_EQ(load_gguf(directory / "said.gguf")->spec().ffn, ffn);
  }
}

// Whatever stands at a key of config.json, the answer is a valid spec or a DataError.
TEST(Families, HostileConfigsAreReadOrRefused) {
  const Json hostile[] = {nullptr, true, 0,  -1, int64_t{1} << 62, uint64_t{1} << 63,     1e308,
                          0.3,     "x",  "", {}, Json::array(),    Json::array({1, "x"}), Json::object()};
  int refused = 0;
  for (const DecoderSpec& spec : testing::tiny_families()) {
    const Family& family = families().at(spec.family);
    const Json good = family.hf_config(spec), flat = good.flatten();
    std::vector<Json::json_pointer> keys;
    for (const auto& [path, value] : flat.items())  // leaves, and what holds them
      for (Json::json_pointer key(path); !key.empty(); key.pop_back()) keys.push_back(key);
    for (const auto& key : keys)
      for (const Json& value : hostile) {
        Json bad = good;
        bad[key] = value;
        try {
          check_foreign_spec(family.spec_from_hf(bad, "config.json"), "config.json");
        } catch (const DataError& e) {
          EXPECT_TRUE(std::string_view(e.what()).starts_with("config.json")) << e.what();
          ++refused;
        }
      }
  }
  EXPECT_GT(refused, 500);
}

// ... and of a GGUF's metadata: nothing is allocated for what the file does not hold.
TEST(SlowFamilies, HostileMetadataIsReadOrRefused) {
  const testing::TemporaryDirectory directory;
  const Path path = directory / "m.gguf";
  const formats::GgufValue hostile[] = {uint32_t{0}, uint32_t{0xFFFFFFFF}, std::nanf(""), std::string("x")};
  int refused = 0;
  for (const DecoderSpec& spec : testing::tiny_gguf_families()) {
    const auto pack = [](const Parameter& p) { return formats::pack(formats::GgmlType::F32, p.master); };
    save_gguf(local_files(), path, *testing::random_model(spec), pack, {}, "test");
    std::vector<std::pair<std::string, formats::PackedTensor>> tensors;
    const formats::GgufFile good(path);
    for (const formats::GgufTensorInfo& t : good.tensors())
      tensors.emplace_back(t.name, formats::pack(formats::GgmlType::F32, good.values(t.name)));
    const formats::GgufMetadata metadata = good.metadata();
    for (size_t i = 0; i < metadata.size(); ++i)
      for (const formats::GgufValue& value : hostile) {
        formats::GgufMetadata bad = metadata;
        bad[i].second = value;
        formats::write_gguf(local_files(), path, bad, tensors);
        try {
          load_gguf(path);
        } catch (const DataError& e) {
          EXPECT_NE(std::string_view(e.what()).find("m.gguf"), std::string_view::npos) << e.what();
          ++refused;
        }
      }
  }
  EXPECT_GT(refused, 200);
}

TEST(Families, Phi3RefusesFactorsThatDoNotFit) {
  const testing::TemporaryDirectory directory;
  const Path path = directory / "m.gguf";
  const auto pack = [](const Parameter& p) { return formats::pack(formats::GgmlType::F32, p.master); };
  save_gguf(local_files(), path, *testing::random_model(longrope_spec()), pack, {}, "test");
  EXPECT_TRUE(load_gguf(path)->spec() == longrope_spec());
  const formats::GgufFile good(path);
  std::vector<std::pair<std::string, formats::PackedTensor>> tensors;
  for (const formats::GgufTensorInfo& t : good.tensors()) {
    const at::Tensor values = good.values(t.name);
    const bool cut = t.name == "rope_factors_short.weight";
    tensors.emplace_back(t.name,
                         formats::pack(formats::GgmlType::F32, cut ? values.narrow(0, 0, 3) : values));
  }
  formats::write_gguf(local_files(), directory / "cut.gguf", good.metadata(), tensors);
  EXPECT_THAT(message_of<DataError>([&] { load_gguf(directory / "cut.gguf"); }),
              ::testing::HasSubstr("rope_factors_short.weight must hold 4 factors"));
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
