// tokenizer encode, decode: text to ids on stdout, or the way back.
#include <iostream>
#include <iterator>

#include "data/tokenizers/conversion.h"
#include "launch/verbs.h"

namespace retort::launch {

ExitCode tokenizer_verb(const TokenizerArguments& arguments) {
  const auto tokenizer = data::make_tokenizer(arguments.tokenizer);
  const std::string source = arguments.files.empty() ? "input" : arguments.files.front();
  std::string input;
  if (arguments.text)
    input = *arguments.text;
  else if (!arguments.files.empty())
    input = read_text(source);
  else
    input.assign(std::istreambuf_iterator<char>(std::cin), {});
  const bool encode = arguments.action == "encode";
  std::string output;
  if (arguments.json)
    output =
        encode ? data::encode_json(*tokenizer, input, source) : data::decode_json(*tokenizer, input, source);
  else
    output = encode ? data::encode_as_text(*tokenizer, input) : data::decode_from_text(*tokenizer, input);
  std::fwrite(output.data(), 1, output.size(), stdout);
  return ExitCode::kDone;
}

}  // namespace retort::launch
