// encode: text to ids on stdout, decode: the way
// back; with --json of many texts at once, ["text", ...] to [[ids], ...] and back.
#include <fmt/ranges.h>

#include <iostream>
#include <iterator>

#include "data/tokenizers/tokenizer.h"
#include "formats/json.h"
#include "launch/verbs.h"

namespace retort::launch {
namespace {

using formats::Json;

std::string standard_input() { return {std::istreambuf_iterator<char>(std::cin), {}}; }

// The text of the command line, else of a file, else of stdin.
std::string given(const TokenizerArguments& arguments) {
  if (arguments.text) return *arguments.text;
  return arguments.files.empty() ? standard_input() : read_text(arguments.files.front());
}

// Ids with spaces or commas between.
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

Json encode_all(const data::Tokenizer& tokenizer, const Json& texts) {
  check<DataError>(texts.is_array(), "the texts must be a list");
  Json out = Json::array();
  for (const Json& text : texts) {
    check<DataError>(text.is_string(), "a text must be a string, got {}", text.type_name());
    out.push_back(tokenizer.encode(text.get_ref<const std::string&>()));
  }
  return out;
}

Json decode_all(const data::Tokenizer& tokenizer, const Json& lists) {
  check<DataError>(lists.is_array(), "the ids must be a list of lists");
  Json out = Json::array();
  for (const Json& list : lists) {
    check<DataError>(list.is_array(), "the ids of a text must be a list, got {}", list.type_name());
    std::vector<int32_t> ids;
    for (const Json& id : list) {
      check<DataError>(id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() <= INT32_MAX,
                       "an id must be a number, got {}", id.dump());
      ids.push_back(id.get<int32_t>());
    }
    out.push_back(tokenizer.decode(ids));
  }
  return out;
}

void convert(const TokenizerArguments& arguments) {
  const auto tokenizer = data::make_tokenizer(arguments.tokenizer);
  const bool encode = arguments.action == "encode";
  const std::string input = given(arguments);
  std::string output;
  if (arguments.json) {
    const Json json = formats::parse_json(input, arguments.files.empty() ? "input" : arguments.files.front());
    // What is no UTF-8 becomes U+FFFD: JSON has no other way.
    output = (encode ? encode_all(*tokenizer, json) : decode_all(*tokenizer, json))
                 .dump(-1, ' ', false, Json::error_handler_t::replace) +
             "\n";
  } else if (encode) {
    output = fmt::format("{}\n", fmt::join(tokenizer->encode(input), " "));
  } else {
    output = tokenizer->decode(parse_ids(input));
  }
  std::fwrite(output.data(), 1, output.size(), stdout);
}

}  // namespace

ExitCode tokenizer_verb(const TokenizerArguments& arguments) {
  convert(arguments);
  return ExitCode::kDone;
}

}  // namespace retort::launch
