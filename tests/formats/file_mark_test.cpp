#include "formats/file_mark.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/testing.h"

namespace retort::formats {

TEST(FileMark, IsWhatTheFileBeginsWith) {
  const testing::TemporaryDirectory directory;
  write_durably(local_files(), directory / "a.bin", "GGUF and more");
  write_durably(local_files(), directory / "b.gguf", "no");
  EXPECT_EQ(first_bytes(directory / "a.bin", 6), "GGUF a");
  EXPECT_EQ(first_bytes(directory / "b.gguf", 6), "no");
  EXPECT_EQ(first_bytes(directory / "c.gguf", 6), "");
  EXPECT_EQ(first_bytes(directory.path(), 6), "");
  ASSERT_EQ(::mkfifo((directory / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(first_bytes(directory / "pipe", 6), "") << "nobody may ever write to it";
  EXPECT_TRUE(is_gguf(directory / "a.bin"));
  EXPECT_FALSE(is_gguf(directory / "b.gguf"));
}

}  // namespace retort::formats
