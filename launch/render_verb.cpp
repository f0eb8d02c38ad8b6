// data render: a conversation in a model's chat template; the text, or with --json also ids and what is learned.
#include <iostream>

#include "launch/verbs.h"

namespace retort::launch {

ExitCode render_verb(const RenderArguments& arguments) {
  data::RenderOptions options = arguments.render;
  options.messages = formats::read_json(arguments.messages);
  if (!arguments.tools.empty()) options.tools = formats::read_json(arguments.tools);
  const data::RenderedChat chat = data::render_chat(options);
  // What is no UTF-8 becomes U+FFFD: JSON has no other way.
  std::cout << (arguments.json
                    ? data::to_json(chat).dump(-1, ' ', false, formats::Json::error_handler_t::replace) + "\n"
                    : chat.text)
            << std::flush;
  check<IoError>(std::cout.good(), "stdout could not be written");
  return ExitCode::kDone;
}

}  // namespace retort::launch
