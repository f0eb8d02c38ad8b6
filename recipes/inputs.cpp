#include "recipes/inputs.h"

#include <algorithm>

#include "artifacts/identify.h"
#include "artifacts/model_shape.h"
#include "core/digest.h"
#include "data/prepare.h"
#include "data/templates/opened.h"
#include "data/tokenizers/tokenizer.h"
#include "recipes/data_options.h"
#include "recipes/preference_options.h"

namespace retort::recipes {
namespace {

namespace fs = std::filesystem;

// Too large to read whole: names, sizes and times.
std::string outside_state(const Path& path) {
  std::vector<std::string> lines;
  const auto add = [&](const fs::path& file) {
    lines.push_back(fmt::format("{} {} {}\n", file.string(), fs::file_size(file),
                                fs::last_write_time(file).time_since_epoch().count()));
  };
  if (fs::is_regular_file(path)) add(path);
  if (fs::is_directory(path))
    for (const auto& entry : fs::recursive_directory_iterator(path))
      if (entry.is_regular_file()) add(entry.path());
  std::sort(lines.begin(), lines.end());
  return fmt::format("{}", fmt::join(lines, ""));
}

std::string tokenizer_state(const std::string& address) {
  const auto tokenizer = data::make_tokenizer(address);
  return fmt::format("tokenizer {} {}\n", tokenizer->fingerprint(), hex(xxh3(tokenizer->chat_template())));
}

std::string trouble_with_path(const std::string& path, const char* missing = "no such file or directory") {
  std::error_code code;
  if (fs::exists(path, code)) return "";
  return fmt::format("{}: {}", code ? code.message() : missing, path);
}

std::string trouble_with_text(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored))
    return fmt::format("must be a file of text, got the directory {}", path);
  if (fs::is_other(path, ignored))  // it has no size, and nobody may ever write to it
    return fmt::format("must be a file of text, got the pipe, socket or device {}", path);
  if (fs::is_regular_file(path, ignored) && fs::file_size(path, ignored) == 0)
    return fmt::format("must hold at least one byte, got the empty file {}", path);
  return trouble_with_path(path, "no such file");
}

std::string trouble_with_shards(const Input& input) {
  const Path path = place_of(input, "");
  std::string trouble = trouble_with_path(input.address);
  if (!trouble.empty() || artifacts::holds_shards(path)) return trouble;
  return fmt::format("must be a directory of token shards (retort data prepare makes one), got {}",
                     input.address);
}

data::ShardKind kind_wanted(const Stage& stage) {
  const auto* preference = stage.find<PreferenceSection>();
  if (preference == nullptr || !*preference) return data::ShardKind::kText;
  const auto* loss = distill::preference_losses().find((*preference)->loss);
  return loss == nullptr || loss->paired() ? data::ShardKind::kPairs : data::ShardKind::kRated;
}

// Of outside the run; nullptr where there are none that open.
std::unique_ptr<data::TokenShards> shards_there(const Input& input) {
  const Path path = place_of(input, "");
  if (!artifacts::holds_shards(path)) return nullptr;
  try {
    return std::make_unique<data::TokenShards>(path);
  } catch (const Error&) {
    return nullptr;  // opening them says why
  }
}

// Nothing where it is not known yet.
std::optional<data::ShardKind> kind_there(const Recipe& recipe, const Input& input) {
  if (stage_of(input.address)) {
    const Stage* made = recipe.maker_of(input.address);
    const auto* prepare = made != nullptr ? made->find<data::PrepareOptions>() : nullptr;
    if (made == nullptr) return std::nullopt;
    return prepare != nullptr ? prepare->documents.kind() : data::ShardKind::kText;
  }
  const auto shards = shards_there(input);
  return shards ? std::optional(shards->kind()) : std::nullopt;
}

// What opening it says.
template <class Open>
std::string trouble_of(Open open) {
  try {
    open();
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

// A model's shape tells in milliseconds whether it opens; its weights are not read.
std::string trouble_with_model(const std::string& address) {
  const std::string trouble = trouble_with_path(address);
  return !trouble.empty() ? trouble : trouble_of([&] {
    artifacts::find_model(address);
    artifacts::model_shape(address);
  });
}

bool holds_labels(const Path& directory) {
  std::error_code ignored;
  const fs::directory_iterator entries(directory, ignored);
  return std::any_of(begin(entries), end(entries), [](const fs::directory_entry& entry) {
    return entry.path().extension() == ".h5" && entry.path().stem().string().starts_with("block-");
  });
}

// Directories of labels that may have been meant: beside a file of theirs, in a stage's directory, or in those of a
// run's stages.
std::vector<std::string> caches_near(const Path& path) {
  std::error_code ignored;
  std::vector<std::string> out;
  const auto add = [&](const Path& place) {
    if (holds_labels(place)) out.push_back(place.string());
  };
  if (fs::is_regular_file(path, ignored)) add(path.parent_path());
  add(path / "cache");
  for (const auto& entry : fs::directory_iterator(path, ignored)) add(entry.path() / "cache");
  std::sort(out.begin(), out.end());
  return out;
}

std::string trouble_with_cache(const std::string& address) {
  const Path path = address;
  if (holds_labels(path)) return "";  // opening it says whether they are whole
  std::error_code ignored;
  const bool there = fs::exists(path, ignored);
  const std::vector<std::string> meant = caches_near(there ? path : "runs" / path);
  std::string trouble =
      there ? fmt::format(
                  "must be a directory of labels, block-00000.h5 and more (a capture stage makes one "
                  "in its directory, as cache), got {}",
                  address)
            : trouble_with_path(address);
  if (meant.size() == 1) trouble += fmt::format("; did you mean {}?", meant.front());
  if (meant.size() > 1) trouble += fmt::format("; name one of {}", fmt::join(meant, ", "));
  return trouble;
}

}  // namespace

std::string trouble_with_kind(const Recipe& recipe, const Stage& stage, const Input& input) {
  if (input.thing != Thing::kShards) return "";
  const data::ShardKind wanted = kind_wanted(stage);
  const auto there = kind_there(recipe, input);
  const bool judged =
      input.key == "data.validation";  // bits per byte of a text, or answers as those that are learned
  if (!there || *there == wanted || (judged && *there == data::ShardKind::kText)) return "";
  if (wanted == data::ShardKind::kText)
    return fmt::format("must hold text, {} holds {}, which a train stage with preference reads",
                       input.address, name_of(*there));
  return fmt::format("must hold {}{} for preference.loss {} (prepare.{}), {} holds {}",
                     judged ? "text or " : "", name_of(wanted), (*stage.find<PreferenceSection>())->loss,
                     wanted == data::ShardKind::kPairs ? "chosen and rejected" : "label", input.address,
                     name_of(*there));
}

std::optional<bool> says_what_is_learned(const Recipe& recipe, const std::string& address) {
  if (address.empty()) return std::nullopt;
  if (!stage_of(address)) {
    const auto shards = shards_there({"data.train", address, Thing::kShards, "train"});
    return shards ? std::optional(shards->has_loss_mask()) : std::nullopt;
  }
  const Stage* made = recipe.maker_of(address);
  if (made == nullptr || kind_of(*made).makes != Thing::kShards) return std::nullopt;
  const auto* prepare = made->find<data::PrepareOptions>();
  return prepare == nullptr || prepare->documents.conversations();  // answers always do
}

std::string prompts_misfit(const std::string& text, std::optional<bool> says) {
  if (says.value_or(true)) return "";
  return fmt::format(
      "must be at least 1: {} does not say which of its tokens are learned, so the prompts are not known",
      text);
}

// What a tokenizer stage makes has pairs of bytes.
bool differ(const KnownTokenizer& a, const KnownTokenizer& b) {
  if (a.name.empty() || b.name.empty()) return false;
  if (!a.fingerprint.empty() && !b.fingerprint.empty()) return a.fingerprint != b.fingerprint;
  if (a.fingerprint.empty() && b.fingerprint.empty()) return false;  // two stages may make the same
  const std::string& there = a.fingerprint.empty() ? b.name : a.name;
  return there == "bytes" || there == "bytes+stop";
}

KnownTokenizer tokenizer_of_shards(const Recipe& recipe, Input input) {
  input.address = text_behind(recipe, input.address);
  if (input.address.empty()) return {};
  if (!stage_of(input.address)) {
    const auto shards = shards_there(input);
    return shards ? KnownTokenizer{shards->tokenizer_name(), shards->tokenizer_fingerprint()}
                  : KnownTokenizer{};
  }
  const Stage* made = recipe.maker_of(input.address);
  const auto* prepare = made != nullptr ? made->find<data::PrepareOptions>() : nullptr;
  if (prepare == nullptr) return {};
  if (stage_of(prepare->tokenizer)) return {prepare->tokenizer, ""};
  try {
    const auto tokenizer = data::prepared_tokenizer(*prepare);
    return {tokenizer->name(), tokenizer->fingerprint()};
  } catch (const Error&) {
    return {};  // missing_files() says why
  }
}

std::string tokenizers_misfit(const std::string& text, const KnownTokenizer& made,
                              const std::string& first_key, const KnownTokenizer& first) {
  if (!differ(made, first)) return "";
  return fmt::format("{} was made with tokenizer {}, the text of {} with {}", text, made.name, first_key,
                     first.name);
}

std::string digest_of_file(const Path& path) {
  Digest digest;
  digest.add(MappedFile::open(path)->bytes());
  return hex(digest.value());
}

std::string text_behind(const Recipe& recipe, std::string address) {
  for (size_t hops = 0; hops < recipe.stages.size(); ++hops) {
    const Stage* made = recipe.maker_of(address);
    const auto* data = made != nullptr ? made->find<DataOptions>() : nullptr;
    if (data == nullptr) break;
    address = data->train;
  }
  return address;
}

Path place_of(const Input& input, const Path& run) {
  const Path path = path_of(input.address, run);
  if (!stage_of(input.address)) {  // what `retort data prepare` made holds both parts
    const Path inner = path / input.part;
    return input.thing == Thing::kShards && fs::is_directory(inner) ? inner : path;
  }
  switch (input.thing) {
    case Thing::kShards:
      return path / input.part;
    case Thing::kCache:
      return path / "cache";
    case Thing::kResult:
      return path / "result.json";
    default:
      return path;
  }
}

std::string trouble_with(const Input& input) {
  if (stage_of(input.address) || preset_of(input.address)) return "";
  switch (input.thing) {
    case Thing::kText:
      return trouble_with_text(input.address);
    case Thing::kShards:
      return trouble_with_shards(input);
    case Thing::kTokenizer:
      return trouble_of([&] { data::make_tokenizer(input.address); });
    case Thing::kTemplate:
      return trouble_of([&] { data::open_template(input.address); });
    case Thing::kModel:
      return trouble_with_model(input.address);
    case Thing::kCache:
      return trouble_with_cache(input.address);
    default:
      return trouble_with_path(input.address);
  }
}

std::string state_of(const Input& input, const Path& run) {
  if (const auto stage = stage_of(input.address)) {
    const Path result = run / *stage / "result.json";
    if (input.thing == Thing::kResult && !fs::exists(result))  // it failed, and is reported as such
      return fmt::format("stage {} without a result\n", *stage);
    return fmt::format("stage {} {}\n", *stage, digest_of_file(result));
  }
  if (preset_of(input.address)) return "";
  if (input.thing == Thing::kText) return fmt::format("text {}\n", digest_of_file(input.address));
  if (input.thing == Thing::kTokenizer) return tokenizer_state(input.address);
  if (input.thing == Thing::kTemplate)
    return fmt::format("template {}\n", data::open_template(input.address).digest());
  return outside_state(input.address);
}

std::shared_ptr<const data::TokenShards> open_shards(const Input& input, const Path& run) {
  return std::make_shared<data::TokenShards>(place_of(input, run));
}

void open_all_shards(const Recipe& recipe, const Stage& stage) {
  KnownTokenizer first;
  std::string key;
  for (const Input& input : inputs_of(recipe, stage)) {
    if (input.thing != Thing::kShards) continue;
    const std::string trouble = trouble_with_kind(recipe, stage, input);
    check<DataError>(trouble.empty(), "{} {}", input.key, trouble);
    const auto shards = open_shards(input, recipe.run.dir);
    const KnownTokenizer made{shards->tokenizer_name(), shards->tokenizer_fingerprint()};
    const std::string misfit = tokenizers_misfit(input.address, made, key, first);
    check<DataError>(misfit.empty(), "{}: {}", input.key, misfit);
    if (key.empty()) first = made, key = input.key;
  }
}

}  // namespace retort::recipes
