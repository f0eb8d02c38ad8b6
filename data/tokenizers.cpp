// The table of named tokenizers. A new one is a file and a row.
#include "core/registry.h"
#include "data/tokenizer.h"

namespace retort::data {
namespace {

struct TokenizerSpec {
  std::string name;
  std::unique_ptr<Tokenizer> (*make)();
};

const Registry<TokenizerSpec>& tokenizers() {
  static const Registry<TokenizerSpec> table("tokenizer", {{"bytes", make_byte_tokenizer}});
  return table;
}

}  // namespace

std::unique_ptr<Tokenizer> make_tokenizer(std::string_view name) { return tokenizers().at(name).make(); }

std::vector<std::string> tokenizer_names() { return tokenizers().names(); }

}  // namespace retort::data
