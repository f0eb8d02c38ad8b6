// retort: the only place that catches, and that turns an error into an exit code.
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <exception>

#include "comm/together.h"
#include "core/errno_text.h"
#include "launch/command_line.h"
#include "launch/lost_pages.h"
#include "launch/signals.h"

namespace {

using retort::ExitCode;

// Whoever closed the pipe wants no more, which is no error.
bool reader_left() {
  pollfd out = {STDOUT_FILENO, POLLOUT, 0};
  return ::poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0;
}

int ended(const retort::Error& error, bool speaks) {
  if (speaks) std::fprintf(stderr, "retort: %s\n", error.what());
  return static_cast<int>(error.code());
}

// What was printed must have arrived.
int ended(ExitCode code) {
  const bool failed_before = std::ferror(stdout) != 0;
  if ((std::fflush(stdout) == 0 && !failed_before) || reader_left()) return static_cast<int>(code);
  const std::string why = failed_before ? "" : ": " + retort::errno_text();
  return ended(retort::IoError("stdout: what was printed could not be written" + why), true);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace retort;
  launch::fail_at_file_limits();
  launch::fail_at_lost_pages();
  try {
    return ended(launch::parse_command_line({argv + 1, argv + argc})());
  } catch (const comm::SharedError& error) {
    return ended(error, error.speaks);
  } catch (...) {
    if (std::ferror(stdout) != 0 && reader_left()) return ended(ExitCode::kDone);
    return ended(comm::as_error(std::current_exception()), true);
  }
}
