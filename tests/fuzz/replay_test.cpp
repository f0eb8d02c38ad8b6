// Every file of corpus/READER again: what a fuzzer has found once, and the seeds that it starts from. Each input
// has a process of its own, which must end by itself and within the memory of a file that lies.
#include "tests/fuzz/reader.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/process_memory.h"
#include "tests/testing.h"

namespace retort::fuzz {
namespace {

Path corpus() { return testing::source_directory() / "tests/fuzz/corpus"; }

// What a child says by its exit code; an exception or a signal ends it with others.
enum Verdict { kGood = 0, kUncounted = 3, kMemory = 4 };

// The second time, when libraries have set themselves up.
[[noreturn]] void try_in_child(const Reader& reader, Bytes input) {
  rlimit limit{60, 60};  // seconds of processor time: a hang ends, and a slow machine is no failure
  ::setrlimit(RLIMIT_CPU, &limit);
  reader.read(input);
  if (testing::kSanitized || !testing::reset_peak()) ::_exit(kUncounted);
  ::_exit(testing::peak_growth([&] { reader.read(input); }) < kMostBytes ? kGood : kMemory);
}

int verdict_of(const Reader& reader, Bytes input) {
  folder(reader.name);  // ours, and removed at our end; a child ends without cleaning up
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      try_in_child(reader, input);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      std::abort();
    }
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

class Replay : public ::testing::TestWithParam<std::string> {};

}  // namespace

TEST_P(Replay, Fault36EveryFileOfItsCorpusIsReadOrRefused) {
  const Reader& reader = readers().at(GetParam());
  int64_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(corpus() / reader.name)) {
    const auto file = MappedFile::open(entry.path());
    const int status = verdict_of(reader, file->bytes());
    EXPECT_TRUE(WIFEXITED(status)) << entry.path() << ": ended by signal " << WTERMSIG(status);
    if (!WIFEXITED(status)) continue;
    EXPECT_NE(WEXITSTATUS(status), kMemory) << entry.path() << ": took more than " << kMostBytes << " bytes";
    EXPECT_TRUE(WEXITSTATUS(status) == kGood || WEXITSTATUS(status) == kUncounted ||
                WEXITSTATUS(status) == kMemory)
        << entry.path() << ": exit code " << WEXITSTATUS(status);
    ++files;
  }
  EXPECT_GT(files, 0) << "no seeds";
}

INSTANTIATE_TEST_SUITE_P(Reader, Replay, ::testing::ValuesIn(readers().names()),
                         [](const auto& row) { return row.param; });

TEST(Corpus, HasAReaderForEveryFolderAndNoLargeFiles) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(corpus())) {
    if (entry.is_directory())
      EXPECT_NE(readers().find(entry.path().filename().string()), nullptr) << entry.path();
    else
      EXPECT_LE(entry.file_size(), 16'384u) << entry.path();
  }
}

// The test's own means: a reader that takes too much is found, and so is one that dies.
TEST(ReplayItself, SeesFaults) {
  const std::string input = "x";
  const Reader dies{"dies", [](Bytes) { std::abort(); }};
  const int died = verdict_of(dies, as_bytes(input));
  EXPECT_TRUE(WIFSIGNALED(died) && WTERMSIG(died) == SIGABRT);
  const Reader throws{"throws", [](Bytes) { throw std::bad_alloc(); }};
  EXPECT_TRUE(WIFSIGNALED(verdict_of(throws, as_bytes(input))));
  RETORT_NEEDS_COUNTED_MEMORY();
  const Reader takes{"takes", [](Bytes) { std::string(size_t{kMostBytes} * 2, 'x').find('y'); }};
  EXPECT_EQ(WEXITSTATUS(verdict_of(takes, as_bytes(input))), kMemory);
}

}  // namespace retort::fuzz
