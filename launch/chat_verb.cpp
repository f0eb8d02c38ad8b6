// chat: a conversation, line by line from stdin; answers to stdout, all else to stderr. Whoever types at a terminal
// gets a sign to type at, and goes on after an error; of lines from a pipe an error is the end.
#include <unistd.h>

#include <iostream>

#include "launch/verbs.h"

namespace retort::launch {
namespace {

auto printer(std::FILE* to) {
  return [to](std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), to);
    return std::fflush(to) == 0;
  };
}

// False at the end of input, or when nobody reads any more.
bool take_line(recipes::Chat& chat, bool typed) {
  if (typed) fmt::print(stderr, "> ");
  std::string line;
  if (!std::getline(std::cin, line)) return false;
  try {
    return chat.take(line);
  } catch (const Error& error) {
    if (!typed) throw;
    fmt::print(stderr, "{}\n", error.what());
  }
  return true;
}

}  // namespace

ExitCode chat_verb(const ChatArguments& arguments) {
  Log log;
  recipes::Chat chat(arguments.model, arguments.options, printer(stdout), printer(stderr), log);
  const bool typed = ::isatty(STDIN_FILENO) == 1;
  if (typed) fmt::print(stderr, "{}; /help says what else there is\n", chat.source());
  while (take_line(chat, typed)) {
  }
  if (typed) fmt::print(stderr, "\n");
  return ExitCode::kDone;
}

}  // namespace retort::launch
