// retort: the only place that catches, and that turns an error into an exit code.
#include <cstdio>
#include <exception>

#include "launch/command_line.h"
#include "launch/together.h"

int main(int argc, char** argv) {
  using namespace retort;
  try {
    return static_cast<int>(launch::parse_command_line({argv + 1, argv + argc})());
  } catch (const launch::SharedError& error) {
    if (error.speaks) std::fprintf(stderr, "retort: %s\n", error.what());
    return static_cast<int>(error.code());
  } catch (...) {
    const Error error = launch::as_error(std::current_exception());
    std::fprintf(stderr, "retort: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
