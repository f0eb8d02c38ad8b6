#include "artifacts/inspect.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "artifacts/open_model.h"
#include "core/error.h"
#include "core/shape.h"
#include "data/token_shards.h"
#include "data/tokenizers/tokenizer.h"
#include "data/tokenizers/tokenizer_file.h"
#include "formats/gguf.h"
#include "formats/hdf5.h"
#include "formats/safetensors.h"
#include "models/family.h"
#include "train/checkpoint.h"

namespace retort::artifacts {
namespace {

namespace fs = std::filesystem;

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

void say_metadata(const formats::GgufMetadata& metadata, const Say& say) {
  for (const auto& [key, value] : metadata) say(fmt::format("{}: {}", key, value_text(value)));
}

// Where a model has its parameters, for a person: unique ones, and each of their uses.
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
    case models::Role::kLoraA:
    case models::Role::kLoraB:
    case models::Role::kMagnitude:
      return "adapters";
    default:
      return p.name.find(".attn.") != std::string::npos ? "attention" : "feed-forward";
  }
}

void say_counts(const models::Parameters& parameters, const Say& say) {
  std::map<std::string, Counts> parts;
  for (const models::Parameter& p : parameters.unique()) {
    Counts& part = parts[part_of(p)];
    part.unique += p.numel();
    part.expanded += p.numel() * p.copies();
  }
  const auto row = [&](const std::string& name, const std::string& unique, const std::string& expanded) {
    say(fmt::format("{:<14}{:>16}{:>16}", name, unique, expanded));
  };
  row("parameters", "unique", "expanded");
  for (const char* name :
       {"embedding", "positions", "attention", "feed-forward", "norms", "adapters", "head"})
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

// A file may hold a model that only others run: that is no error of the file.
void say_model(const Path& path, const Say& say, Log& log) {
  try {
    inspect_spec(open_model(path, log).decoder->spec(), say);
  } catch (const DataError& error) {
    say(fmt::format("not a model that retort runs: {}", error.what()));
  }
}

void of_safetensors(const Path& path, const Say& say) {
  const formats::SafetensorsFile file(path);
  for (const auto& [key, value] : file.metadata()) say(fmt::format("{}: {}", key, value));
  for (const auto& [name, entry] : file.entries())
    say(fmt::format("{}  {}  {}", name, entry.dtype, format_shape(entry.shape)));
}

void of_gguf(const Path& path, const Say& say, Log& log) {
  const formats::GgufFile file(path);
  say_model(path, say, log);
  say_metadata(file.metadata(), say);
  for (const formats::GgufTensorInfo& tensor : file.tensors())
    say(fmt::format("{}  {}  {}", tensor.name, formats::ggml_type_info(tensor.type).name,
                    format_shape(tensor.shape)));
}

void of_hdf5(const Path& path, const Say& say) {
  const formats::Hdf5File file(path);
  for (const auto& [key, value] : file.attributes())
    say(fmt::format("{}: {}", key, std::visit([](const auto& v) { return fmt::format("{}", v); }, value)));
  for (const auto& [name, dataset] : file.datasets())
    say(fmt::format("{}  {} bytes a value  [{}]", name, formats::hdf5_type_bytes(dataset.type),
                    dataset.size));
}

// `part`: "train: " of what a directory prepared, or "".
void of_shards(const Path& path, const std::string& part, const Say& say) {
  const data::TokenShards shards(path);
  shards.verify();
  say(fmt::format("{}token shards: {} tokens of {} bytes in {} document(s), tokenizer {} ({}), vocabulary {}",
                  part, shards.size(), shards.text_bytes(), shards.documents(), shards.tokenizer_name(),
                  shards.tokenizer_fingerprint(), shards.vocabulary()));
  if (shards.kind() != data::ShardKind::kText) say(fmt::format("kind: {}", name_of(shards.kind())));
  if (shards.has_loss_mask()) say(fmt::format("loss mask: {} tokens are learned", shards.learned()));
  say(fmt::format("source: {}\nchecksums hold", shards.source()));
}

void of_prepared(const Path& path, const Say& say) {
  for (const std::string part : {"train", "validation"})
    if (holds_shards(path / part)) of_shards(path / part, part + ": ", say);
}

// 3 special tokens: 0 "<unk>", 1 "<s>", 2 "</s>"; many by their beginning.
std::string special_tokens(const data::Tokenizer& tokenizer) {
  constexpr size_t kShown = 20;
  std::vector<std::string> all;
  for (int32_t id = 0; id < tokenizer.vocabulary(); ++id)
    if (tokenizer.is_special(id)) all.push_back(fmt::format("{} {:?}", id, tokenizer.token_bytes(id)));
  std::string out = fmt::format("{} special tokens", all.size());
  for (size_t i = 0; i < std::min(all.size(), kShown); ++i) out += (i == 0 ? ": " : ", ") + all[i];
  return all.size() > kShown ? out + ", ..." : out;
}

// With what a GGUF would say of it: how it cuts a text, which tokens begin and end one. Of a file that cannot be read,
// broken or only others', there is nothing else to tell: DataError.
void of_tokenizer(const Path& file, const Say& say) {
  const std::unique_ptr<data::Tokenizer> tokenizer = data::open_tokenizer(file);
  say(fmt::format("tokenizer of byte pairs: {} tokens, fingerprint {}", tokenizer->vocabulary(),
                  tokenizer->fingerprint()));
  say(special_tokens(*tokenizer));
  try {
    say_metadata(tokenizer->gguf_metadata(), say);
  } catch (const DataError& error) {
    say(fmt::format("no GGUF holds it: {}", error.what()));
  }
}

// How far each source was read.
void say_sources(const formats::Json& extra, const std::string& where, const Say& say) {
  const auto train = extra.find("train");
  if (train == extra.end() || !train->contains("sources")) return;
  for (const formats::Json& source : train->at("sources"))
    say(fmt::format("source {}: weight {}, {} samples read, {:.3f} epochs",
                    formats::json_text(source, "name", where), formats::json_real(source, "weight", where),
                    formats::json_integer(source, "samples", where),
                    formats::json_real(source, "epochs", where)));
}

void of_checkpoint(const Path& path, const Say& say, Log& log) {
  const train::LoadedCheckpoint checkpoint = train::load_checkpoint(path);
  say(fmt::format("checkpoint of step {}; checksums hold", checkpoint.step));
  say_sources(checkpoint.extra, path.string(), say);
  const OpenedModel model = open_model(path, log);
  inspect_spec(model.decoder->spec(), say);
  for (const auto& [name, tensor] : checkpoint.weights) {
    const models::Parameters& parameters = model.decoder->parameters();
    const size_t uses = parameters.contains(name) ? parameters.at(name).uses.size() : 1;
    say(fmt::format("{}  {}{}", name, format_shape(tensor.sizes()),
                    uses > 1 ? fmt::format("  used {} times", uses) : ""));
  }
}

void of_peft(const Path& path, const Say& say, Log& log) {
  const models::PeftConfig config = models::read_peft_config(path);
  say(fmt::format("adapters of rank {}, alpha {}{}{}, for the base {}", config.options.rank,
                  config.options.alpha, config.options.rslora ? ", rslora" : "",
                  config.options.dora ? ", dora" : "", config.base));
  say_model(path, say, log);
  of_safetensors(path / models::kPeftTensors, say);
}

void of_hf_folder(const Path& path, const Say& say, Log& log) {
  say_model(path, say, log);
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.path().extension() == ".safetensors") of_safetensors(entry.path(), say);
}

void of_stages(const Path& path, const Say& say) {
  std::vector<std::string> parts;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.is_directory()) parts.push_back(entry.path().filename().string());
  std::sort(parts.begin(), parts.end());
  say(fmt::format("holds: {}", fmt::join(parts, ", ")));
}

}  // namespace

// All of it follows from the shape: nothing of the model's size is allocated.
void inspect_spec(const models::DecoderSpec& spec, const Say& say) {
  const auto model = models::make_model(spec, at::kMeta);
  say(fmt::format(
      "{} decoder: {} layers, width {}, {} heads ({} kv) of {}, ffn {}, vocabulary {}, context {}",
      spec.family, spec.layers, spec.width, spec.heads, spec.kv_heads, spec.head_dim, spec.ffn_width,
      spec.vocabulary, spec.context));
  if (spec.patch)
    say(fmt::format("runs once a patch; byte layers: {} of width {}, {} heads, ffn {}", spec.patch->layers,
                    spec.patch->width, spec.patch->heads, spec.patch->ffn_width));
  say_counts(model->parameters(), say);
  const int64_t tokens = std::min<int64_t>(spec.context, 2048);
  const double flops = model->flops_per_token(tokens);
  say(fmt::format("FLOPs a token in sequences of {}: {:.4g} forward, {:.4g} trained", tokens, flops / 3,
                  flops));
  if (spec.patch) return;  // it keeps tokens, not keys
  say(fmt::format("bytes a token in a bf16 key/value cache: {}",
                  spec.layers * 2 * spec.kv_heads * spec.head_dim * 2));
}

void inspect(const Path& asked, const Say& say, Log& log) {
  const Artifact found = identify(asked);
  const Path& path = found.path;
  if (fs::exists(asked / "result.json")) {
    const std::string result = read_text(asked / "result.json");
    say(std::string_view(result).substr(0, result.find_last_not_of('\n') + 1));
  }
  const bool other = found.kind == Kind::kUnknown || found.kind == Kind::kJson || found.kind == Kind::kStage;
  if (const Path file = other ? data::tokenizer_file(path) : Path(); !file.empty())
    return of_tokenizer(file, say);
  switch (found.kind) {
    case Kind::kCheckpoint:
      return of_checkpoint(path, say, log);
    case Kind::kCheckpoints:
      return of_checkpoint(train::model_checkpoint(path), say, log);
    case Kind::kHfFolder:
      return of_hf_folder(path, say, log);
    case Kind::kPeft:
      return of_peft(path, say, log);
    case Kind::kGguf:
      return of_gguf(path, say, log);
    case Kind::kLlama2c:
      return say_model(path, say, log);
    case Kind::kShards:
      return of_shards(path, "", say);
    case Kind::kPrepared:
      return of_prepared(path, say);
    case Kind::kSafetensors:
      return of_safetensors(path, say);
    case Kind::kHdf5:
      return of_hdf5(path, say);
    case Kind::kJson:
      return say(formats::read_json(path).dump(2));
    case Kind::kRun:
    case Kind::kStage:
      return of_stages(path, say);
    case Kind::kNothing:
      fail<IoError>("{}: {}", path.string(), found.trouble);
    case Kind::kForeign:
      fail<DataError>("{}: {}", path.string(), found.trouble);
    default:
      fail<DataError>(
          "{}: is nothing that is known here: no model, tokenizer, token shards, teacher cache, run, "
          "safetensors, HDF5 or JSON",
          path.string());
  }
}

}  // namespace retort::artifacts
