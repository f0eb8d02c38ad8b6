// libFuzzer's two entries: RETORT_FUZZ_READER names a row of readers(). scripts/fuzz.sh starts it.
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/reader.h"

namespace {
const retort::fuzz::Reader* reader = nullptr;
}

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* name = std::getenv("RETORT_FUZZ_READER");
  reader = name == nullptr ? nullptr : retort::fuzz::readers().find(name);
  if (reader == nullptr) {  // what there is, for scripts
    for (const auto& row : retort::fuzz::readers()) std::printf("%s\n", row.name.c_str());
    std::exit(name == nullptr ? 0 : 2);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  reader->read({reinterpret_cast<const std::byte*>(data), size});
  return 0;
}
