#include "data/templates/opened.h"

#include "core/digest.h"
#include "core/error.h"
#include "data/templates/shipped.h"
#include "data/templates/store.h"

namespace retort::data {
namespace {

// The model's; of a .jinja file that of the folder that it lies in.
std::unique_ptr<Tokenizer> own_tokenizer(const Path& address) {
  try {
    return open_tokenizer((address.extension() == ".jinja" ? folder_of(address) : address).string());
  } catch (const Error&) {  // none, or of a kind that Retort does not read
    return nullptr;
  }
}

}  // namespace

std::string OpenedTemplate::digest() const {
  return hex(xxh3(fmt::format("{}\n{}\n{}", text, special.dump(), fmt::join(ends, " "))));
}

OpenedTemplate open_template(const std::string& address, const std::string& name, bool tools) {
  if (shipped_templates().find(address) != nullptr) {
    const std::string text(shipped_text(address));
    return {ChatTemplate(address, text), text, true, formats::Json::object(), {}, nullptr};
  }
  if (!std::filesystem::exists(address)) {
    const std::vector<std::string> names = shipped_templates().names();
    check<IoError>(address.find('/') == address.npos, "{}: no such chat template, model folder or GGUF",
                   address);
    fail<ConfigError>("unknown chat template \"{}\"{}: must be {}, a .jinja file, a model's folder or a GGUF",
                      address, did_you_mean(address, names), fmt::join(names, ", "));
  }
  const StoredTemplates stored = read_templates(address);
  const std::string& text = choose_template(stored, name, tools);
  return {
      ChatTemplate(stored.source, text), text, false, stored.special, stored.ends, own_tokenizer(address)};
}

}  // namespace retort::data
