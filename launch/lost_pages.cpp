#include "launch/lost_pages.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdint>
#include <string_view>

#include "core/error.h"

// All of this is what a handler may call: no memory is asked for, and no lock taken.
namespace retort::launch {
namespace {

// Lines of /proc/self/maps: "BEGIN-END rights offset device inode     PATH".
class Mappings {
 public:
  std::string_view next() {  // without the end of the line; longer ones are cut; "" after the last
    size_t length = 0;
    for (char c = take(); c != '\n'; c = take()) {
      if (c == '\0') return {};
      if (length < sizeof line_) line_[length++] = c;
    }
    return {line_, length};
  }

 private:
  char take() {
    if (at_ == held_) {
      at_ = 0;
      held_ = ::read(descriptor_, window_, sizeof window_);
      if (held_ <= 0) return held_ = 0, '\0';
    }
    return window_[at_++];
  }

  const int descriptor_ = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  char window_[512], line_[1024];
  ssize_t at_ = 0, held_ = 0;
};

std::string_view file_at(uintptr_t address, Mappings& mappings) {
  for (std::string_view line = mappings.next(); !line.empty(); line = mappings.next()) {
    uintptr_t begin = 0, end = 0;
    const char* const dash = std::from_chars(line.begin(), line.end(), begin, 16).ptr;
    if (dash == line.end()) continue;
    std::from_chars(dash + 1, line.end(), end, 16);
    const size_t path = line.find('/');
    if (begin <= address && address < end && path != line.npos) return line.substr(path);
  }
  return "a file";
}

void lose(int /*signal*/, siginfo_t* info, void* /*context*/) {
  if (info->si_code != BUS_ADRERR) {  // somebody's kill, or broken memory
    std::signal(SIGBUS, SIG_DFL);
    std::raise(SIGBUS);
    return;
  }
  Mappings mappings;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  std::string_view parts[] = {"retort: ", file_at(address, mappings),
                              ": cannot read: the disk refuses it, or it has become shorter\n"};
  iovec text[std::size(parts)];
  for (size_t i = 0; i < std::size(parts); ++i)
    text[i] = {const_cast<char*>(parts[i].data()), parts[i].size()};
  [[maybe_unused]] const ssize_t said = ::writev(STDERR_FILENO, text, std::size(parts));
  ::_exit(static_cast<int>(ExitCode::kInputOutput));
}

}  // namespace

void fail_at_lost_pages() {
  struct sigaction action = {};
  action.sa_sigaction = lose;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace retort::launch
