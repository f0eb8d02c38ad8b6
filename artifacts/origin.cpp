#include "artifacts/origin.h"

#include <algorithm>
#include <array>
#include <map>
#include <sstream>
#include <vector>

namespace retort::artifacts {
namespace {

using formats::Json;

constexpr uint64_t kMostCard = uint64_t{1} << 22;  // bytes of a README.md that is read
constexpr size_t kLongest = 200;                   // of a value
constexpr std::string_view kHub = "https://huggingface.co/";

bool made_of(std::string_view text, std::string_view more) {
  return !text.empty() && text.size() <= kLongest && std::ranges::all_of(text, [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           more.find(c) != more.npos;
  });
}

// ORGANIZATION/NAME, or the bare name that the oldest models have.
bool is_hub_name(std::string_view text) {
  return made_of(text, "._-/") && std::ranges::count(text, '/') <= 1 && text.front() != '/' &&
         text.front() != '.' && text.back() != '/';
}

bool is_link(std::string_view text) { return made_of(text, "._-/:?=&#%+~@"); }

std::string_view stripped(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == text.npos) return "";
  text = text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
  const bool quoted = text.size() > 1 && (text.front() == '"' || text.front() == '\'');
  return quoted && text.back() == text.front() ? text.substr(1, text.size() - 2) : text;
}

// The texts of a README's front matter, the lines between two of ---: `key: text`, and lists of them.
using FrontMatter = std::map<std::string, std::vector<std::string>>;
FrontMatter front_matter(const std::string& text) {
  FrontMatter out;
  std::istringstream lines(text);
  std::string line, key;
  const auto next = [&] { return static_cast<bool>(std::getline(lines, line)); };
  if (!next() || stripped(line) != "---") return out;
  while (next() && stripped(line) != "---") {
    const std::string_view item = stripped(line);
    const size_t colon = line.find(':');
    if (item.starts_with("- ") && !key.empty()) {
      out[key].emplace_back(stripped(item.substr(2)));
    } else if (colon != line.npos && line.front() != ' ' && line.front() != '#') {
      key = line.substr(0, colon);
      out[key].clear();
      const std::string_view value = stripped(std::string_view(line).substr(colon + 1));
      if (!value.empty()) out[key].emplace_back(value);
    }
  }
  return line.empty() || stripped(line) != "---" ? FrontMatter() : out;
}

// The one text of a key; "" for none, and for several, of which none is the model's alone.
std::string only(const FrontMatter& card, const char* key) {
  const auto found = card.find(key);
  return found != card.end() && found->second.size() == 1 ? found->second.front() : "";
}

// models--ORGANIZATION--NAME/snapshots/REVISION.
std::string name_in_cache(const Path& folder) {
  const Path snapshots = std::filesystem::absolute(folder / "config.json").parent_path().parent_path();
  std::string name = snapshots.parent_path().filename().string();
  constexpr std::string_view kBegin = "models--";
  if (snapshots.filename() != "snapshots" || !name.starts_with(kBegin)) return "";
  name.erase(0, kBegin.size());
  const size_t at = name.find("--");
  return at == name.npos ? name : name.substr(0, at) + "/" + name.substr(at + 2);
}

// Only what has its form.
Origin sound(Origin origin) {
  if (!license_misfit(origin.license).empty()) origin.license.clear();
  if (!made_of(origin.license_name, "._- ()+,") || origin.license.empty()) origin.license_name.clear();
  if (!is_link(origin.license_link) || origin.license.empty()) origin.license_link.clear();
  if (!base_model_misfit(origin.base_model).empty()) origin.base_model.clear();
  return origin;
}

std::string hub_name_of(std::string_view url) {
  return url.starts_with(kHub) ? std::string(url.substr(kHub.size())) : "";
}

}  // namespace

Origin hf_origin(const Path& folder) {
  Origin out;
  const Path path = folder / "README.md";
  std::error_code none;
  if (std::filesystem::is_regular_file(path, none) && std::filesystem::file_size(path, none) <= kMostCard) {
    const FrontMatter card = front_matter(read_text(path));
    out = {.license = only(card, "license"),
           .license_name = only(card, "license_name"),
           .license_link = only(card, "license_link"),
           .base_model = only(card, "base_model"),
           .start = {}};
  }
  if (const std::string own = name_in_cache(folder); is_hub_name(own)) out.base_model = own;
  return sound(std::move(out));
}

Origin gguf_origin(const formats::GgufFile& file) {
  const auto text = [&](const char* key) {
    const auto* value = file.find(key);
    const auto* held = value != nullptr ? std::get_if<std::string>(value) : nullptr;
    return held != nullptr ? *held : std::string();
  };
  Origin out{.license = text("general.license"),
             .license_name = text("general.license.name"),
             .license_link = text("general.license.link"),
             .base_model = {},
             .start = {}};
  for (const char* key :
       {"general.repo_url", "general.source.repo_url", "general.base_model.0.repo_url"})  // the nearest first
    if (out.base_model.empty()) out.base_model = hub_name_of(text(key));
  return sound(std::move(out));
}

formats::GgufMetadata origin_keys(const Origin& origin) {
  formats::GgufMetadata out;
  const auto add = [&](const char* key, const std::string& value) {
    if (!value.empty()) out.emplace_back(key, value);
  };
  add("general.license", origin.license);
  add("general.license.name", origin.license_name);
  add("general.license.link", origin.license_link);
  if (origin.base_model.empty()) return out;
  const size_t slash = origin.base_model.find('/');
  const bool organized = slash != origin.base_model.npos;
  out.emplace_back("general.base_model.count", uint32_t{1});
  add("general.base_model.0.name", organized ? origin.base_model.substr(slash + 1) : origin.base_model);
  if (organized) add("general.base_model.0.organization", origin.base_model.substr(0, slash));
  add("general.base_model.0.repo_url", std::string(kHub) + origin.base_model);
  return out;
}

namespace {

// The fields by the names that they are kept under.
template <class Visit>
void fields_of(Visit visit) {
  visit("license", &Origin::license);
  visit("license_name", &Origin::license_name);
  visit("license_link", &Origin::license_link);
  visit("base_model", &Origin::base_model);
  visit("start", &Origin::start);
}

}  // namespace

Json to_json(const Origin& origin) {
  Json out = Json::object();
  fields_of([&](const char* name, std::string Origin::*field) {
    if (!(origin.*field).empty()) out[name] = origin.*field;
  });
  return out;
}

Origin read_origin(const Json& kept, const std::string& source) {
  Origin out;
  fields_of([&](const char* name, std::string Origin::*field) {
    if (kept.contains(name)) out.*field = formats::json_text(kept, name, source);
  });
  return out;
}

std::string license_misfit(const std::string& license) {
  if (license.empty() || made_of(license, ".-+")) return "";
  return fmt::format(
      "must be a license's short name, as \"apache-2.0\" (letters, digits, dots and hyphens), got \"{}\"",
      license);
}

std::string base_model_misfit(const std::string& base_model) {
  if (base_model.empty() || is_hub_name(base_model)) return "";
  return fmt::format("must be a model of the Hugging Face Hub, ORGANIZATION/NAME, got \"{}\"", base_model);
}

}  // namespace retort::artifacts
