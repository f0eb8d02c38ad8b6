#include "launch/lost_pages.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

#include "core/file.h"
#include "tests/testing.h"

namespace retort::launch {

TEST(LostPagesDeathTest, Fault16AMappedFileThatCannotBeReadEndsTheProcessWithItsName) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const testing::TemporaryDirectory directory;
  const Path path = directory / "a file";
  write_durably(local_files(), path, std::string(20'000, 'a'));
  const auto lose = [&] {
    fail_at_lost_pages();
    const auto file = MappedFile::open(path);
    std::filesystem::resize_file(path, 5000);
    if (file->bytes()[4999] != std::byte{'a'}) ::_exit(1);  // what is there is read
    ::_exit(file->bytes()[10'000] == std::byte{'a'} ? 2 : 3);
  };
  EXPECT_EXIT(lose(), ::testing::ExitedWithCode(74), "^retort: /.*/a file: cannot read: the disk refuses it");
}

TEST(LostPagesDeathTest, AnotherSignalOfTheKindKills) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto kill = [] {
    fail_at_lost_pages();
    std::raise(SIGBUS);
  };
  EXPECT_EXIT(kill(), ::testing::KilledBySignal(SIGBUS), "");
}

}  // namespace retort::launch
