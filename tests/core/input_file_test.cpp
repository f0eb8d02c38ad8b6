#include "core/input_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "core/error.h"
#include "tests/refused_reads.h"
#include "tests/testing.h"

namespace retort {
namespace {

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const IoError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST(InputFile, Fault16InterruptedAndShortReadsGoOn) {
  const testing::TemporaryDirectory directory;
  write_durably(local_files(), directory / "a", "0123456789");
  testing::Reads reads;
  reads.interruptions = 5, reads.most = 3;
  EXPECT_EQ(read_text(directory / "a"), "0123456789");
  EXPECT_EQ(reads.interruptions, 0);
}

TEST(InputFile, Fault16WhatTheDiskRefusesIsNamed) {
  const testing::TemporaryDirectory directory;
  for (const char* name : {"a", "b"}) write_durably(local_files(), directory / name, name);
  testing::Reads reads;
  reads.refused = "/b";
  EXPECT_EQ(read_text(directory / "a"), "a");
  EXPECT_EQ(error_of([&] { read_text(directory / "b"); }),
            (directory / "b").string() + ": cannot read: Input/output error");
}

TEST(InputFile, AFileThatBecomesShorterEndsThere) {
  const testing::TemporaryDirectory directory;
  const Path path = directory / "a";
  write_durably(local_files(), path, "0123456789");
  const InputFile file(path);
  std::filesystem::resize_file(path, 7);
  std::vector<std::byte> bytes(6);
  EXPECT_EQ(file.size(), 10u);
  EXPECT_EQ(file.read(4, bytes), 3u);
  EXPECT_EQ(bytes[2], std::byte{'6'});
  EXPECT_EQ(file.read(7, bytes), 0u);
}

TEST(InputFile, OnlyFilesAreRead) {
  EXPECT_EQ(error_of([] { InputFile("/no/such/file"); }),
            "/no/such/file: cannot open: No such file or directory");
  EXPECT_EQ(error_of([] { InputFile("/tmp"); }), "/tmp: cannot read: not a regular file");
}

// Which nobody may ever write to.
TEST(InputFile, NoPipeIsWaitedFor) {
  const testing::TemporaryDirectory directory;
  const Path pipe = directory / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { InputFile{pipe}; }), pipe.string() + ": cannot read: not a regular file");
  EXPECT_EQ(error_of([&] { MappedFile::open(pipe); }), pipe.string() + ": cannot map: not a regular file");
}

}  // namespace retort
