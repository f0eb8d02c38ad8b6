#include "data/templates/opened.h"

#include "core/error.h"
#include "data/templates/shipped.h"
#include "data/templates/store.h"

namespace retort::data {
namespace {

std::unique_ptr<Tokenizer> own_tokenizer(const std::string& address) {
  if (address.ends_with(".jinja")) return nullptr;
  try {
    return open_tokenizer(address);
  } catch (const DataError&) {  // none, or of a kind that Retort does not read
    return nullptr;
  }
}

}  // namespace

OpenedTemplate open_template(const std::string& address, const std::string& name, bool tools) {
  if (shipped_templates().find(address) != nullptr) {
    const std::string text(shipped_text(address));
    return {ChatTemplate(address, text), text, true, formats::Json::object(), {}, nullptr};
  }
  if (!std::filesystem::exists(address)) {
    if (address.find_first_of("/.") == address.npos)
      shipped_templates().at(address);  // throws, with the names
    fail<IoError>("{}: no such chat template, model folder or GGUF", address);
  }
  const StoredTemplates stored = read_templates(address);
  const std::string& text = choose_template(stored, name, tools);
  return {
      ChatTemplate(stored.source, text), text, false, stored.special, stored.ends, own_tokenizer(address)};
}

}  // namespace retort::data
