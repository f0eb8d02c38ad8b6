// The readers of foreign bytes, as a table that three programs walk over: the fuzzer (fuzzer.cpp), the test that
// tries every file of corpus/NAME again (replay_test.cpp), and scripts/fuzz.sh. A reader takes any bytes and does
// with them what Retort does with such a file. What it may do is refuse them, by an error that names the file;
// everything else is a fault: another exception, a crash, a hang, memory beyond kMostBytes.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/file.h"
#include "core/registry.h"

namespace retort::fuzz {

using Bytes = std::span<const std::byte>;

struct Reader {
  std::string name;  // the folder of its corpus
  void (*read)(Bytes input);
};
const Registry<Reader>& readers();

// Of the heap and the stack, for a file of a few KB.
inline constexpr int64_t kMostBytes = 100'000'000;

inline std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A folder of this process, below $TMPDIR, which goes at its end; the same for one name.
Path folder(const std::string& name);
// Makes the input a file of it, in the place of an earlier one.
Path put(const Path& file, Bytes bytes);
inline Path put(const Path& file, std::string_view text) { return put(file, as_bytes(text)); }

[[noreturn]] void unnamed(const std::string& where, const char* said);

// True where `read` takes the file. It may throw one of the Refusals, whose message holds `where`.
template <class... Refusals, class Read>
bool accepts(const std::string& where, const Read& read) {
  try {
    read();
    return true;
  } catch (const Error& error) {
    const bool refusal = (... || (dynamic_cast<const Refusals*>(&error) != nullptr));
    if (!refusal) throw;
    if (std::string_view(error.what()).find(where) == std::string_view::npos) unnamed(where, error.what());
    return false;
  }
}

}  // namespace retort::fuzz
