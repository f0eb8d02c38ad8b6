// data render: a conversation in a model's chat template; the text, or with --json also ids and what is learned.
#include <cstdio>

#include "formats/json.h"
#include "launch/verbs.h"

namespace retort::launch {

ExitCode render_verb(const RenderArguments& arguments) {
  data::RenderOptions options = arguments.options;
  options.messages = formats::read_json(arguments.messages);
  if (!arguments.tools.empty()) options.tools = formats::read_json(arguments.tools);
  const data::RenderedChat chat = data::render_chat(options);
  // What is no UTF-8 becomes U+FFFD: JSON has no other way.
  const std::string output =
      arguments.json
          ? data::to_json(chat).dump(-1, ' ', false, formats::Json::error_handler_t::replace) + "\n"
          : chat.text;
  std::fwrite(output.data(), 1, output.size(), stdout);
  return ExitCode::kDone;
}

}  // namespace retort::launch
