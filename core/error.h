// The errors of Retort, one tree. Every message says where, the rule, and what came:
//   [rms_norm] weight_D must have 768 elements, got 512
// main() catches once, prints "rank 3: ..." and exits with the error's code; nothing else calls exit().
// check() is for callers' mistakes and bad input; RETORT_ASSERT is for bugs of our own.
// Thread rule: throwing is safe anywhere; an exception on one rank must reach Comm::abort().
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace retort {

// The process's exit codes. Persistent: schedulers and supervisors act on them. Documented in docs/recipe.md.
enum class ExitCode : int {
  kDone = 0,
  kBarMissed = 1,       // a claim's figures are there, and one of its bars does not hold
  kUsage = 2,           // command line or recipe wrong; every problem was printed
  kBadData = 65,        // corrupt or unusable data, model file or checkpoint
  kInternal = 70,       // a bug of ours
  kInputOutput = 74,    // a file could not be read or written (disk full)
  kPreempted = 75,      // stopped by a signal, saved: run it again
  kCommunication = 76,  // a peer was lost or a collective timed out
  kNonFinite = 77,      // NaN or infinity beyond the policy
};

class Error : public std::runtime_error {
 public:
  Error(const std::string& what, ExitCode code) : std::runtime_error(what), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// The recipe, the command line or an Options struct is wrong.
struct ConfigError : Error {
  explicit ConfigError(const std::string& what) : Error(what, ExitCode::kUsage) {}
};
// A tensor has the wrong shape, dtype or device: a caller's mistake inside the program.
struct ShapeError : Error {
  explicit ShapeError(const std::string& what) : Error(what, ExitCode::kInternal) {}
};
// A file's content is not what its format or its user promises.
struct DataError : Error {
  explicit DataError(const std::string& what) : Error(what, ExitCode::kBadData) {}
};
struct CheckpointError : Error {
  explicit CheckpointError(const std::string& what) : Error(what, ExitCode::kBadData) {}
};
// The operating system refused: missing file, full disk, failed fsync.
struct IoError : Error {
  explicit IoError(const std::string& what) : Error(what, ExitCode::kInputOutput) {}
};
struct CommError : Error {
  explicit CommError(const std::string& what) : Error(what, ExitCode::kCommunication) {}
};
struct NonFiniteError : Error {
  explicit NonFiniteError(const std::string& what) : Error(what, ExitCode::kNonFinite) {}
};
struct InternalError : Error {
  explicit InternalError(const std::string& what) : Error(what, ExitCode::kInternal) {}
};

template <class E, class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) {
  throw E(fmt::format(text, std::forward<Args>(args)...));
}

// check<DataError>(ok, "[where] rule, got {}", value): throws E unless ok holds.
template <class E = ShapeError, class... Args>
void check(bool ok, fmt::format_string<Args...> text, Args&&... args) {
  if (!ok) [[unlikely]]
    fail<E>(text, std::forward<Args>(args)...);
}

}  // namespace retort

#define RETORT_ASSERT(condition)                                                                         \
  do {                                                                                                   \
    if (!(condition)) [[unlikely]]                                                                       \
      throw ::retort::InternalError(                                                                     \
          ::fmt::format("{}:{}: assertion failed: {} (please report)", __FILE__, __LINE__, #condition)); \
  } while (false)
