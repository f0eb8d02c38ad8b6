#include "data/tokenizers/conversion.h"

#include <fmt/ranges.h>

#include "core/error.h"
#include "formats/json.h"

namespace retort::data {
namespace {

using formats::Json;

std::vector<int32_t> parse_ids(const std::string& text) {
  std::vector<int32_t> ids;
  for (size_t at = 0; (at = text.find_first_not_of(" ,\t\r\n", at)) != text.npos;) {
    const size_t end = std::min(text.find_first_of(" ,\t\r\n", at), text.size());
    const std::string word = text.substr(at, end - at);
    check<ConfigError>(word.size() < 10 && word.find_first_not_of("0123456789") == word.npos,
                       "an id must be a number, got \"{}\"", word);
    ids.push_back(std::stoi(word));
    at = end;
  }
  return ids;
}

std::vector<int32_t> ids_of(const Json& list) {
  check<DataError>(list.is_array(), "the ids of a text must be a list, got {}", list.type_name());
  std::vector<int32_t> ids;
  for (const Json& id : list) {
    check<DataError>(id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() <= INT32_MAX,
                     "an id must be a number, got {}", id.dump());
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

std::string line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string encode_as_text(const Tokenizer& tokenizer, const std::string& text) {
  return fmt::format("{}\n", fmt::join(tokenizer.encode(text), " "));
}

std::string decode_from_text(const Tokenizer& tokenizer, const std::string& ids) {
  return tokenizer.decode(parse_ids(ids));
}

std::string encode_json(const Tokenizer& tokenizer, const std::string& texts, const std::string& source) {
  const Json all = formats::parse_json(texts, source);
  check<DataError>(all.is_array(), "{}: the texts must be a list", source);
  Json out = Json::array();
  for (const Json& text : all) {
    check<DataError>(text.is_string(), "{}: a text must be a string, got {}", source, text.type_name());
    out.push_back(tokenizer.encode(text.get_ref<const std::string&>()));
  }
  return line(out);
}

std::string decode_json(const Tokenizer& tokenizer, const std::string& lists, const std::string& source) {
  const Json all = formats::parse_json(lists, source);
  check<DataError>(all.is_array(), "{}: the ids must be a list of lists", source);
  Json out = Json::array();
  for (const Json& list : all) out.push_back(tokenizer.decode(ids_of(list)));
  return line(out);
}

}  // namespace retort::data
