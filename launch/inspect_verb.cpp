// What is in a file or directory: names, shapes, types, metadata, and whether checksums hold.
#include <fmt/ranges.h>

#include "data/token_shards.h"
#include "distill/teacher_cache.h"
#include "formats/gguf.h"
#include "formats/hdf5.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "launch/model_address.h"
#include "launch/verbs.h"
#include "models/family.h"
#include "recipes/address.h"
#include "recipes/presets.h"
#include "train/checkpoint.h"

namespace retort::launch {
namespace {

namespace fs = std::filesystem;

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// One value of a GGUF's metadata; long lists by their beginning.
std::string value_text(const formats::GgufValue& value) {
  const auto show = []<class T>(const T& v) -> std::string {
    if constexpr (std::is_same_v<T, std::string>) {
      return fmt::format("\"{}\"", v.size() > 60 ? v.substr(0, 60) + "..." : v);
    } else if constexpr (requires { v.size(); }) {
      return fmt::format("list of {}", v.size());
    } else {
      return fmt::format("{}", v);
    }
  };
  return std::visit(show, value);
}

// Where a model's parameters lie, for a person: unique ones, and each of their uses.
struct Counts {
  int64_t unique = 0, expanded = 0;
};

std::string part_of(const models::Parameter& p) {
  switch (p.role) {
    case models::Role::kEmbedding:
      return "embedding";
    case models::Role::kPositions:
      return "positions";
    case models::Role::kHead:
      return "head";
    case models::Role::kNorm:
      return "norms";
    default:
      return p.name.find(".attn.") != std::string::npos ? "attention" : "feed-forward";
  }
}

void print_counts(const models::Parameters& parameters) {
  std::map<std::string, Counts> parts;
  for (const models::Parameter& p : parameters.unique()) {
    Counts& part = parts[part_of(p)];
    part.unique += p.numel();
    part.expanded += p.numel() * p.copies();
  }
  const auto row = [](const std::string& name, const std::string& unique, const std::string& expanded) {
    fmt::print("{:<14}{:>16}{:>16}\n", name, unique, expanded);
  };
  row("parameters", "unique", "expanded");
  for (const char* name : {"embedding", "positions", "attention", "feed-forward", "norms", "head"})
    if (parts.contains(name))
      row(name, std::to_string(parts[name].unique), std::to_string(parts[name].expanded));
  row("total", std::to_string(parameters.stored()), std::to_string(parameters.expanded()));
  const auto bytes = [&](const char* name, int64_t each) {
    row(name, format_bytes(static_cast<uint64_t>(each * parameters.stored())),
        format_bytes(static_cast<uint64_t>(each * parameters.expanded())));
  };
  bytes("as f32", 4);
  bytes("as bf16", 2);
}

// All of it follows from the shape: nothing of the model's size is allocated.
void inspect_spec(const models::DecoderSpec& spec) {
  const auto model = models::make_model(spec, at::kMeta);
  fmt::print("{} decoder: {} layers, width {}, {} heads ({} kv) of {}, ffn {}, vocabulary {}, context {}\n",
             spec.family, spec.layers, spec.width, spec.heads, spec.kv_heads, spec.head_dim, spec.ffn_width,
             spec.vocabulary, spec.context);
  if (spec.patch)
    fmt::print("runs once a patch; byte layers: {} of width {}, {} heads, ffn {}\n", spec.patch->layers,
               spec.patch->width, spec.patch->heads, spec.patch->ffn_width);
  print_counts(model->parameters());
  const int64_t tokens = std::min<int64_t>(spec.context, 2048);
  const double flops = model->flops_per_token(tokens);
  fmt::print("FLOPs a token in sequences of {}: {:.4g} forward, {:.4g} trained\n", tokens, flops / 3, flops);
  if (spec.patch) return;  // it keeps tokens, not keys
  fmt::print("bytes a token in a bf16 key/value cache: {}\n",
             spec.layers * 2 * spec.kv_heads * spec.head_dim * 2);
}

// A file may hold a model that only others run: that is no error of the file.
void inspect_model(const Path& path) {
  Log log(stderr);
  try {
    inspect_spec(open_model(path.string(), "", 0, log).decoder->spec());
  } catch (const DataError& error) {
    fmt::print("not a model that retort runs: {}\n", error.what());
  }
}

void inspect_safetensors(const Path& path) {
  const formats::SafetensorsFile file(path);
  for (const auto& [key, value] : file.metadata()) fmt::print("{}: {}\n", key, value);
  for (const auto& [name, entry] : file.entries())
    fmt::print("{}  {}  {}\n", name, entry.dtype, shape_text(entry.shape));
}

void inspect_gguf(const Path& path) {
  const formats::GgufFile file(path);
  inspect_model(path);
  for (const auto& [key, value] : file.metadata()) fmt::print("{}: {}\n", key, value_text(value));
  for (const formats::GgufTensorInfo& tensor : file.tensors())
    fmt::print("{}  {}  {}\n", tensor.name, formats::ggml_type_info(tensor.type).name,
               shape_text(tensor.shape));
}

void inspect_hdf5(const Path& path) {
  const formats::Hdf5File file(path);
  for (const auto& [key, value] : file.attributes())
    fmt::print("{}: {}\n", key, std::visit([](const auto& v) { return fmt::format("{}", v); }, value));
  for (const auto& [name, dataset] : file.datasets())
    fmt::print("{}  {} bytes a value  [{}]\n", name, formats::hdf5_type_bytes(dataset.type), dataset.size);
}

void inspect_shards(const Path& path) {
  const data::TokenShards shards(path);
  shards.verify();
  fmt::print("token shards: {} tokens of {} bytes in {} document(s), tokenizer {} ({}), vocabulary {}\n",
             shards.size(), shards.text_bytes(), shards.documents(), shards.tokenizer_name(),
             shards.tokenizer_fingerprint(), shards.vocabulary());
  if (shards.has_loss_mask()) fmt::print("loss mask: {} tokens are learned\n", shards.learned());
  fmt::print("source: {}\nchecksums hold\n", shards.source());
}

// How far each source was read.
void print_sources(const formats::Json& extra, const std::string& where) {
  const auto train = extra.find("train");
  if (train == extra.end() || !train->contains("sources")) return;
  for (const formats::Json& source : train->at("sources"))
    fmt::print("source {}: weight {}, {} samples read, {:.3f} epochs\n",
               formats::json_text(source, "name", where), formats::json_real(source, "weight", where),
               formats::json_integer(source, "samples", where), formats::json_real(source, "epochs", where));
}

// What a cache holds, and that it is whole; with shards or a tokenizer, that it is of them (else DataError).
void inspect_cache(const InspectArguments& arguments) {
  const distill::TeacherCache cache(arguments.path);
  const distill::CacheFacts& f = cache.facts();
  const auto tokens = static_cast<double>(f.tokens);
  fmt::print("teacher cache: {} of {}, {} blocks of {} tokens, {} tokens in all\n", f.kind, f.teacher_name,
             f.blocks(), f.block_tokens, f.tokens);
  fmt::print("{} {} a token at temperature {}: {:.2f} labels and {:.2f} bytes a token, {} in all\n", f.size,
             f.kind == "sampled" ? "draws" : "likeliest ids", f.temperature,
             static_cast<double>(cache.labels()) / tokens, static_cast<double>(cache.bytes()) / tokens,
             format_bytes(cache.bytes()));
  fmt::print("vocabulary {}, tokenizer {}, corpus {}, teacher {}; read in windows of {} tokens{}\n",
             f.vocabulary, f.tokenizer, f.corpus, f.teacher, f.window,
             f.isolate_documents ? ", documents apart" : "");
  cache.verify();
  fmt::print("checksums hold\n");
  if (!arguments.shards.empty()) {
    cache.check_corpus(data::TokenShards(arguments.shards));
    fmt::print("fits the shards {}\n", arguments.shards);
  }
  if (arguments.tokenizer.empty()) return;
  const auto tokenizer = data::make_tokenizer(arguments.tokenizer);
  check<DataError>(tokenizer->fingerprint() == f.tokenizer, "{}: its tokenizer must be {} ({}), got {}",
                   arguments.path, arguments.tokenizer, tokenizer->fingerprint(), f.tokenizer);
  fmt::print("fits the tokenizer {}\n", arguments.tokenizer);
}

void inspect_checkpoint(const Path& path) {
  const train::LoadedCheckpoint checkpoint = train::load_checkpoint(path);
  fmt::print("checkpoint of step {}; checksums hold\n", checkpoint.step);
  print_sources(checkpoint.extra, path.string());
  Log log(stderr);
  const OpenedModel model = open_model(path.string(), "", 0, log);
  inspect_spec(model.decoder->spec());
  for (const auto& [name, tensor] : checkpoint.weights) {
    const auto& p = model.decoder->parameters().at(name);
    fmt::print("{}  {}{}\n", name, shape_text(tensor.sizes().vec()),
               p.uses.size() > 1 ? fmt::format("  used {} times", p.uses.size()) : "");
  }
}

// The cache in a directory, or in a capture stage's; "" for other directories.
Path cache_in(const Path& path) {
  for (const Path& directory : {path, path / "cache"})
    if (fs::exists(distill::block_path(directory, 0))) return directory;
  return {};
}

// What `retort data prepare` made in a directory.
std::vector<const char*> prepared_parts(const Path& path) {
  std::vector<const char*> parts;
  for (const char* part : {"train", "validation"})
    if (fs::exists(path / part / "shard-00000.h5")) parts.push_back(part);
  return parts;
}

void inspect_directory(const Path& path) {
  if (fs::exists(path / "manifest.json")) return inspect_checkpoint(path);
  if (fs::exists(path / "shard-00000.h5")) return inspect_shards(path);
  if (const auto parts = prepared_parts(path); !parts.empty()) {
    for (const char* part : parts) {
      fmt::print("{}: ", part);
      inspect_shards(path / part);
    }
    return;
  }
  if (fs::exists(path / "result.json")) fmt::print("{}", read_text(path / "result.json"));
  if (fs::exists(path / "config.json")) {
    inspect_model(path);
    for (const auto& entry : fs::directory_iterator(path))
      if (entry.path().extension() == ".safetensors") inspect_safetensors(entry.path());
    return;
  }
  if (fs::exists(path / "model.gguf")) return inspect_gguf(path / "model.gguf");
  if (const auto all = train::list_checkpoints(path / "checkpoints"); !all.empty())
    return inspect_checkpoint(all.front());
  std::vector<std::string> parts;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.is_directory()) parts.push_back(entry.path().filename().string());
  std::sort(parts.begin(), parts.end());
  check<DataError>(fs::exists(path / "result.json") || fs::exists(path / "recipe.yaml"),
                   "{}: neither shards, a checkpoint, a model folder nor a run", path.string());
  fmt::print("holds: {}\n", fmt::join(parts, ", "));
}

}  // namespace

ExitCode inspect_verb(const InspectArguments& arguments) {
  if (const auto preset = recipes::preset_of(arguments.path)) {
    inspect_spec(recipes::preset_spec(*preset));
    return ExitCode::kDone;
  }
  const Path path = arguments.path;
  check<IoError>(fs::exists(path), "{}: no such file or directory", path.string());
  const Path cache = cache_in(path);
  check<ConfigError>(!cache.empty() || (arguments.shards.empty() && arguments.tokenizer.empty()),
                     "{}: --shards and --tokenizer are for a teacher cache, and it is none", path.string());
  if (!cache.empty()) {
    inspect_cache({cache.string(), arguments.shards, arguments.tokenizer});
    return ExitCode::kDone;
  }
  if (fs::is_directory(path))
    inspect_directory(path);
  else if (path.extension() == ".gguf")
    inspect_gguf(path);
  else if (path.extension() == ".safetensors")
    inspect_safetensors(path);
  else if (path.extension() == ".h5")
    inspect_hdf5(path);
  else if (path.extension() == ".bin")
    inspect_model(path);
  else if (path.extension() == ".json")
    fmt::print("{}\n", formats::read_json(path).dump(2));
  else
    fail<DataError>("{}: a file must be .gguf, .safetensors, .h5, .bin or .json", path.string());
  return ExitCode::kDone;
}

}  // namespace retort::launch
