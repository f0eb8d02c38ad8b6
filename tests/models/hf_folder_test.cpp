#include "models/hf_folder.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include "core/error.h"
#include "models/family.h"
#include "tests/models/tiny.h"
#include "tests/process_memory.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using formats::Json;
using testing::same_bits;

std::vector<DecoderSpec> specs() {
  DecoderSpec shared = testing::tiny_llama();
  shared.layers = 4;
  shared.repeat = 2;
  shared.share_ffn = shared.tie_embeddings = shared.attention_bias = shared.ffn_bias = true;
  shared.rope_scaling = {"llama3", 8.0, 1.0, 4.0, 32};
  DecoderSpec untied = testing::tiny_gpt2();
  untied.tie_embeddings = false;
  std::vector<DecoderSpec> all = testing::tiny_families();
  DecoderSpec bitnet = testing::tiny_bitnet();
  bitnet.share_ffn = true;
  all.insert(all.begin(), {testing::tiny_llama(), shared, testing::tiny_gpt2(), untied, bitnet});
  return all;
}

void save(const Decoder& model, const Path& path, at::ScalarType dtype = at::kFloat,
          const HfExtras& extras = {}) {
  IdentityMap identity;
  save_hf_folder(local_files(), path, model, identity, dtype, extras);
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

TEST(HfFolder, ComesBackBitForBit) {
  const testing::TemporaryDirectory directory;
  for (const DecoderSpec& spec : specs()) {
    const auto model = testing::random_model(spec);
    save(*model, directory / "hf");  // replaces the one before
    const auto loaded = load_hf_folder(directory / "hf");
    DecoderSpec plain = spec;
    plain.share_ffn = false;
    plain.repeat = 1;
    EXPECT_TRUE(loaded->spec() == plain) << spec.family;
    for (const Parameter& p : loaded->parameters().unique()) {
      EXPECT_TRUE(same_bits(p.master, model->parameters().at(p.name).master)) << p.name;
      EXPECT_TRUE(p.working.is_alias_of(p.master)) << p.name;
    }
    EXPECT_EQ(loaded->parameters().stored(), model->parameters().expanded());
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}),
            1);  // nothing left beside it
}

TEST(HfFolder, WritesWhatTheMapMadeInTheDtypeAsked) {
  struct Halves final : WeightMap {
    at::Tensor apply(const Parameter&, const at::Tensor& x) override { return (x * 64).round() / 64; }
    at::Tensor pull_back(const Parameter&, const at::Tensor& gradient) override { return gradient; }
  } map;
  const testing::TemporaryDirectory directory;
  const auto model = testing::random_model(testing::tiny_llama());
  save_hf_folder(local_files(), directory / "hf", *model, map, at::kBFloat16, {});
  const auto loaded = load_hf_folder(directory / "hf");
  for (const Parameter& p : loaded->parameters().unique()) {
    const at::Tensor made = map.apply(p, model->parameters().at(p.name).master);
    EXPECT_TRUE(same_bits(p.master, made.to(at::kBFloat16).to(at::kFloat))) << p.name;
  }
  EXPECT_EQ(formats::read_json(directory / "hf" / "config.json")["dtype"], "bfloat16");
  EXPECT_THROW(save(*model, directory / "hf", at::kDouble), ConfigError);
}

TEST(HfFolder, WritesBothSpellingsAndExtras) {
  const testing::TemporaryDirectory directory;
  HfExtras extras;
  extras.files["tokenizer.json"] = "{}";
  extras.config = {{"bos_token_id", 1}, {"eos_token_id", Json::array({2, 3})}, {"pad_token_id", nullptr}};
  const DecoderSpec spec = specs()[1];
  save(*testing::random_model(spec), directory / "hf", at::kFloat, extras);
  const Json config = formats::read_json(directory / "hf" / "config.json");
  EXPECT_EQ(config["architectures"], Json::array({"LlamaForCausalLM"}));
  EXPECT_EQ(config["torch_dtype"], "float32");
  EXPECT_EQ(config["rope_scaling"]["rope_type"], "llama3");
  EXPECT_EQ(config["rope_parameters"]["rope_theta"], 10000.0);
  EXPECT_EQ(config["rope_theta"], 10000.0);
  EXPECT_EQ(config["eos_token_id"], Json::array({2, 3}));
  EXPECT_EQ(formats::read_json(directory / "hf" / "generation_config.json")["bos_token_id"], 1);
  EXPECT_EQ(read_text(directory / "hf" / "tokenizer.json"), "{}");
  const formats::SafetensorsFile file(directory / "hf" / "model.safetensors");
  EXPECT_FALSE(file.contains("lm_head.weight"));                    // tied
  EXPECT_TRUE(file.contains("model.layers.3.mlp.up_proj.weight"));  // expanded
}

TEST(HfFolder, ReadsShardsAndFilesWithoutPrefix) {
  const testing::TemporaryDirectory directory;
  const auto model = testing::random_model(testing::tiny_gpt2());
  save(*model, directory / "hf");
  const Path folder = directory / "hf";
  const formats::SafetensorsFile whole(folder / "model.safetensors");
  formats::NamedTensors first, second;
  Json map = Json::object();
  for (const auto& [name, entry] : whole.entries()) {
    const std::string bare = name.substr(std::string("transformer.").size());
    const bool early = first.size() < whole.entries().size() / 2;
    (early ? first : second).emplace_back(bare, whole.tensor(name).clone());
    map[bare] = early ? "model-00001-of-00002.safetensors" : "model-00002-of-00002.safetensors";
  }
  second.emplace_back("h.0.attn.bias", at::ones({1, 1, 64, 64}));  // the causal mask of old files
  map["h.0.attn.bias"] = "model-00002-of-00002.safetensors";
  formats::write_safetensors(local_files(), folder / "model-00001-of-00002.safetensors", first);
  formats::write_safetensors(local_files(), folder / "model-00002-of-00002.safetensors", second);
  const auto write_index = [&] {
    const Json index = {{"metadata", {{"total_size", 1}}}, {"weight_map", map}};
    write_durably(local_files(), folder / "model.safetensors.index.json", index.dump());
  };
  write_index();
  std::filesystem::remove(folder / "model.safetensors");
  const auto loaded = load_hf_folder(folder);
  for (const Parameter& p : loaded->parameters().unique())
    EXPECT_TRUE(same_bits(p.master, model->parameters().at(p.name).master)) << p.name;

  map["wte.weight"] = "model-00001-of-00002.safetensors";  // it lies in the second
  write_index();
  EXPECT_THAT(message_of<DataError>([&] { load_hf_folder(folder); }), ::testing::HasSubstr("wte.weight"));
  map["wte.weight"] = "../model-00002-of-00002.safetensors";
  write_index();
  EXPECT_THAT(message_of<DataError>([&] { load_hf_folder(folder); }),
              ::testing::HasSubstr("must name a file"));
}

// As transformers does: an index that was left beside model.safetensors says nothing.
TEST(HfFolder, ReadsTheSingleFileBeforeAnIndex) {
  const testing::TemporaryDirectory directory;
  const auto model = testing::random_model(testing::tiny_llama());
  const Path folder = directory / "hf";
  save(*model, folder);
  const formats::SafetensorsFile whole(folder / "model.safetensors");
  formats::NamedTensors zeros;
  Json map = Json::object();
  for (const auto& [name, entry] : whole.entries()) {
    zeros.emplace_back(name, at::zeros(entry.shape));
    map[name] = "model-00001-of-00001.safetensors";
  }
  write_durably(local_files(), folder / "model.safetensors.index.json", Json{{"weight_map", map}}.dump());
  for (const bool shards : {true, false}) {
    const Path shard = folder / "model-00001-of-00001.safetensors";
    if (shards) formats::write_safetensors(local_files(), shard, zeros);
    if (!shards) std::filesystem::remove(shard);
    const auto loaded = load_hf_folder(folder);
    for (const Parameter& p : loaded->parameters().unique())
      EXPECT_TRUE(same_bits(p.master, model->parameters().at(p.name).master)) << p.name;
    EXPECT_TRUE(hf_spec(folder) == loaded->spec());
  }
}

// The flag and the tensors must say the same.
TEST(HfFolder, RefusesAHeadThatIsTiedByOneOfTwo) {
  for (const DecoderSpec& spec : testing::tiny_families()) {
    const testing::TemporaryDirectory directory;
    const Path folder = directory / "hf";
    DecoderSpec untied = spec;
    untied.tie_embeddings = false;
    const auto change = [&](bool tied) {
      Json config = formats::read_json(folder / "config.json");
      config["tie_word_embeddings"] = tied;
      write_durably(local_files(), folder / "config.json", config.dump());
    };
    save(*testing::random_model(untied), folder);
    change(true);
    EXPECT_THAT(message_of<DataError>([&] { load_hf_folder(folder); }),
                ::testing::HasSubstr("lm_head.weight"))
        << spec.family;
    untied.tie_embeddings = true;
    std::filesystem::remove_all(folder);
    save(*testing::random_model(untied), folder);
    change(false);
    EXPECT_THAT(
        message_of<DataError>([&] { load_hf_folder(folder); }),
        ::testing::AllOf(::testing::HasSubstr("lm_head.weight"), ::testing::HasSubstr("tie_word_embeddings")))
        << spec.family;
  }
}

TEST(HfFolder, WritesShardsOfABoundedSize) {
  const testing::TemporaryDirectory directory;
  const Path folder = directory / "hf";
  HfExtras extras;
  extras.shard_bytes = 24576;
  for (const DecoderSpec& spec : testing::tiny_families()) {
    const auto model = testing::random_model(spec);
    save(*model, folder, at::kFloat, extras);
    EXPECT_FALSE(std::filesystem::exists(folder / "model.safetensors"));
    const Json index = formats::read_json(folder / "model.safetensors.index.json");
    uint64_t bytes = 0;
    for (const auto& [name, file] : index["weight_map"].items()) {
      const formats::SafetensorsFile shard(folder / file.get<std::string>());
      bytes += shard.bytes(name).size();
      uint64_t all = 0;
      for (const auto& [other, entry] : shard.entries()) all += entry.end - entry.begin;
      EXPECT_TRUE(all <= 24576 || shard.entries().size() == 1) << file;
    }
    EXPECT_EQ(index["metadata"]["total_size"].get<uint64_t>(), bytes);
    const auto loaded = load_hf_folder(folder);
    for (const Parameter& p : loaded->parameters().unique())
      EXPECT_TRUE(same_bits(p.master, model->parameters().at(p.name).master)) << spec.family << p.name;
  }
}

TEST(HfFolder, ReadsANetworkThatIsKeptOnceAsShared) {
  const testing::TemporaryDirectory directory;
  DecoderSpec spec = testing::tiny_llama();
  spec.layers = 3;
  spec.share_ffn = true;
  const auto model = testing::random_model(spec);
  save(*model, directory / "hf");
  const Path file = directory / "hf" / "model.safetensors";
  const auto keep = [&](const std::function<bool(const std::string&)>& wanted) {
    const formats::SafetensorsFile whole(file);
    formats::NamedTensors kept;
    for (const auto& [name, entry] : whole.entries())
      if (wanted(name)) kept.emplace_back(name, whole.tensor(name).clone());
    formats::write_safetensors(local_files(), file, kept);
  };
  const auto of_layer = [](const std::string& name, const char* layer) {
    return name.find(".mlp.") != std::string::npos && name.find(layer) != std::string::npos;
  };
  keep([&](const std::string& name) { return !of_layer(name, ".1.") && !of_layer(name, ".2."); });
  const auto loaded = load_hf_folder(directory / "hf");
  EXPECT_TRUE(loaded->spec() == spec);
  for (const Parameter& p : model->parameters().unique())
    EXPECT_TRUE(same_bits(p.master, loaded->parameters().at(p.name).master)) << p.name;
  keep([&](const std::string& name) { return !of_layer(name, ".0."); });
  EXPECT_THAT(message_of<DataError>([&] { load_hf_folder(directory / "hf"); }),
              ::testing::HasSubstr("model.layers.0.mlp.gate_proj.weight"));
}

// The file is mapped and each tensor copied once into its master: there is never a second copy of the model.
TEST(HfFolder, LoadsInTheModelsOwnSize) {
  const testing::TemporaryDirectory directory;
  DecoderSpec spec = testing::tiny_llama();
  spec.vocabulary = 16384;
  spec.width = 1024;  // 64 MiB: the allocator gives so large a block back
  spec.layers = 1;
  spec.tie_embeddings = true;
  uint64_t size = 0;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    {
      Decoder model(spec);
      for (Parameter& p : model.parameters().unique()) p.master.fill_(0.5);
      size = static_cast<uint64_t>(4 * model.parameters().stored());
      save(model, directory / "hf", dtype);
    }
    // Private writable memory, which RLIMIT_DATA bounds; a mapped file is none of it.
    const auto before = static_cast<uint64_t>(testing::status_bytes("VmData"));
    if (before > uint64_t{1} << 40) GTEST_SKIP() << "memory is not counted here (a sanitizer)";
    rlimit usual{};
    ASSERT_EQ(::getrlimit(RLIMIT_DATA, &usual), 0);
    const rlimit bound{before + size + size / 4, usual.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_DATA, &bound), 0);
    std::unique_ptr<Decoder> loaded;
    EXPECT_NO_THROW(loaded = load_hf_folder(directory / "hf"));
    EXPECT_THROW(Decoder{spec}, std::exception);  // a second one has no room: the bound binds
    ASSERT_EQ(::setrlimit(RLIMIT_DATA, &usual), 0);
    EXPECT_EQ(loaded->parameters().at("embed.weight").master[7][7].item<float>(), 0.5f);
  }
}

TEST(HfFolder, ListsTheKnownArchitectures) {
  const testing::TemporaryDirectory directory;
  std::filesystem::create_directory(directory / "hf");
  write_durably(local_files(), directory / "hf" / "config.json", R"({"model_type": "mamba"})");
  EXPECT_THAT(message_of<DataError>([&] { load_hf_folder(directory / "hf"); }),
              ::testing::HasSubstr(
                  "model_type \"mamba\" is not known; known: gpt2, llama, mobilellm, phi3, qwen2, "));
}

TEST(HfFolder, LeavesOtherPeoplesFoldersAndFailuresAlone) {
  const testing::TemporaryDirectory directory;
  const auto model = testing::random_model(testing::tiny_llama());
  std::filesystem::create_directory(directory / "photos");
  EXPECT_THROW(save(*model, directory / "photos"), IoError);
  EXPECT_TRUE(std::filesystem::remove(directory / "photos"));

  save(*model, directory / "hf");
  HfExtras broken;
  broken.files["no/such/folder/file"] = "x";
  EXPECT_THROW(save(*model, directory / "hf", at::kFloat, broken), IoError);
  EXPECT_NO_THROW(load_hf_folder(directory / "hf"));  // the old export stands
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}), 1);
}

// Whatever stands beside a config.json was nobody's to delete: only an older export may go.
TEST(HfFolder, ReplacesAnOlderExportOnly) {
  const testing::TemporaryDirectory directory;
  const auto model = testing::random_model(testing::tiny_llama());
  const Path folder = directory / "hf";
  HfExtras shards;
  shards.shard_bytes = 4096;
  shards.files["tokenizer.json"] = "{}";
  save(*model, folder, at::kFloat, shards);
  save(*model, folder, at::kFloat, shards);
  const auto refused = [&](const HfExtras& extras) {
    return message_of<IoError>([&] { save(*model, folder, at::kFloat, extras); });
  };
  EXPECT_THAT(refused({}), ::testing::HasSubstr("it holds tokenizer.json, which an export does not write"));

  std::filesystem::create_directories(folder / "src");
  write_durably(local_files(), folder / "src" / "main.c", "int main;");
  EXPECT_THAT(refused(shards), ::testing::AllOf(::testing::HasSubstr("it holds src,"),
                                                ::testing::HasSubstr("name a folder that does not exist")));
  EXPECT_EQ(read_text(folder / "src" / "main.c"), "int main;");
  std::filesystem::remove_all(folder / "src");

  std::filesystem::create_directory(folder / "model-00077-of-00078.safetensors");  // no file of ours
  EXPECT_THAT(refused(shards), ::testing::HasSubstr("model-00077-of-00078.safetensors"));
  std::filesystem::remove(folder / "model-00077-of-00078.safetensors");

  write_durably(local_files(), folder / "config.json", R"({"name": "a web page"})");
  EXPECT_THAT(refused(shards), ::testing::HasSubstr("model_type"));
  write_durably(local_files(), folder / "config.json", "# not JSON");
  EXPECT_THAT(refused(shards), ::testing::HasSubstr("config.json"));
  std::filesystem::remove(folder / "config.json");
  EXPECT_THAT(refused(shards), ::testing::HasSubstr("lacks config.json"));
  EXPECT_TRUE(std::filesystem::exists(folder / "tokenizer.json"));
}

}  // namespace
}  // namespace retort::models
