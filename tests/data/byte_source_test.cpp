#include "data/byte_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"
#include "tests/data/packing.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using retort::testing::gzipped;
using retort::testing::TemporaryDirectory;
using retort::testing::write_file;
using retort::testing::xz_packed;
using retort::testing::zstd_packed;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Pack = std::string (*)(const std::string&);
struct Packing {
  const char* name;
  Pack pack;
};
const std::vector<Packing> kPackings = {{"gzip", gzipped}, {"zstd", zstd_packed}, {"xz", xz_packed}};

// 3 MB that pack somewhat: more than a window on both sides.
std::string some_text(uint64_t seed = 1, size_t size = 3 << 20) {
  const Random random(seed, "test/text");
  std::string out(size, '\0');
  for (size_t i = 0; i < size; ++i)
    out[i] = static_cast<char>("abcdefgh\n \xc3\xa9.,;:"[random.below(i, 17)]);
  return out;
}

std::string read_all(const Path& path, size_t window = 70000) {
  const auto source = open_bytes(path);
  std::string out, buffer(window, '\0');
  while (const size_t got = source->read(buffer)) out.append(buffer, 0, got);
  EXPECT_EQ(source->read(buffer), 0u);  // the end stays the end
  EXPECT_EQ(source->consumed(), std::filesystem::file_size(path));
  return out;
}

void expect_damaged(const Path& path, const ::testing::Matcher<std::string>& message) {
  try {
    read_all(path);
    ADD_FAILURE() << path << " was read";
  } catch (const DataError& error) {
    EXPECT_THAT(std::string(error.what()), AllOf(HasSubstr(path.string()), message));
  }
}

std::vector<std::string> lines_of(const Path& path) {
  LineReader lines(path);
  std::vector<std::string> out;
  for (std::string line; lines.next(line);) {
    out.push_back(line);
    EXPECT_EQ(lines.number(), std::ssize(out));
    EXPECT_EQ(lines.where(), fmt::format("{}:{}", path.string(), out.size()));
  }
  return out;
}

}  // namespace

TEST(ByteSource, UnpacksWhateverTheNameSays) {
  const TemporaryDirectory directory;
  const std::string text = some_text();
  EXPECT_TRUE(read_all(write_file(directory / "plain.gz", text)) == text);
  for (const Packing& packing : kPackings) {
    const Path path = write_file(directory / "packed.txt", packing.pack(text));
    ASSERT_LT(std::filesystem::file_size(path), text.size()) << packing.name;
    EXPECT_TRUE(read_all(path) == text) << packing.name;
    EXPECT_TRUE(read_all(path, 1) == text || text.empty()) << packing.name;
  }
}

TEST(ByteSource, PartsThatFollowOneAnotherAreOneText) {
  const TemporaryDirectory directory;
  const std::string a = some_text(2, 100000), b = some_text(3, 5), c = some_text(4, 2 << 20);
  for (const Packing& packing : kPackings) {
    const std::string bytes = packing.pack(a) + packing.pack("") + packing.pack(b) + packing.pack(c);
    EXPECT_TRUE(read_all(write_file(directory / "parts", bytes)) == a + b + c) << packing.name;
  }
}

TEST(ByteSource, NothingPackedIsNothing) {
  const TemporaryDirectory directory;
  EXPECT_EQ(read_all(write_file(directory / "empty", "")), "");
  for (const Packing& packing : kPackings)
    EXPECT_EQ(read_all(write_file(directory / "none", packing.pack(""))), "") << packing.name;
}

TEST(ByteSource, DamageIsNamedWithItsPlace) {
  const TemporaryDirectory directory;
  const std::string text = some_text(5, 300000);
  for (const Packing& packing : kPackings) {
    const std::string whole = packing.pack(text);
    const Path path = directory / "damaged";
    for (const size_t size : {size_t{7}, whole.size() / 2, whole.size() - 1}) {
      write_file(path, whole.substr(0, size));
      expect_damaged(path, AllOf(HasSubstr(packing.name), HasSubstr("the end of the file inside it"),
                                 HasSubstr(fmt::format("at byte {} of {}", size, size))));
    }
    std::string flipped = whole;
    flipped[whole.size() / 2] = static_cast<char>(flipped[whole.size() / 2] ^ 0x10);
    write_file(path, flipped);
    // zstd frames written by the one-call function carry no checksum: a flipped literal is a literal.
    if (std::string(packing.name) != "zstd") expect_damaged(path, HasSubstr(packing.name));
    write_file(path, whole + "surplus");
    expect_damaged(path, HasSubstr(packing.name));
  }
  EXPECT_THROW(open_bytes(directory / "missing"), IoError);
}

// The head of a frame whose window is 102 MB.
TEST(ByteSource, ASmallFileCannotAskForALargeWindow) {
  const TemporaryDirectory directory;
  const std::string frame = std::string("\x28\xb5\x2f\xfd\x04\x85", 6) + std::string(21, '\0');
  const Path path = write_file(directory / "window", frame);
  expect_damaged(path, HasSubstr("too much memory"));
}

TEST(ByteSource, AFileThatShrinksEnds) {
  const TemporaryDirectory directory;
  const std::string text = some_text(6);
  std::string window(100000, '\0');
  const Path plain = write_file(directory / "plain", text);
  const auto source = open_bytes(plain);
  EXPECT_EQ(source->read(window), window.size());
  std::filesystem::resize_file(plain, 123456);
  EXPECT_EQ(source->read(window), 23456u);
  EXPECT_EQ(source->read(window), 0u);
  for (const Packing& packing : kPackings) {
    const Path path = write_file(directory / "packed", packing.pack(text));
    const auto packed = open_bytes(path);
    EXPECT_GT(packed->read(window), 0u);
    std::filesystem::resize_file(path, 100);
    EXPECT_THROW(while (packed->read(window) > 0) continue, DataError) << packing.name;
  }
}

TEST(ByteSource, PackedBytesAreReadAsTheyAre) {
  const TemporaryDirectory directory;
  const std::string bytes = gzipped(some_text(7, 1000));
  std::string window(5000, '\0');
  window.resize(open_packed_bytes(write_file(directory / "a.gz", bytes))->read(window));
  EXPECT_TRUE(window == bytes);
}

TEST(LineReader, LinesEndWithEitherBreakOrTheFile) {
  const TemporaryDirectory directory;
  const Path path = write_file(directory / "a", "one\r\ntwo\n\nfour\rstill four\nlast\r");
  EXPECT_THAT(lines_of(path), ElementsAre("one", "two", "", "four\rstill four", "last\r"));
  EXPECT_THAT(lines_of(write_file(directory / "b", "x\n")), ElementsAre("x"));
  EXPECT_THAT(lines_of(write_file(directory / "c", "\n\n")), ElementsAre("", ""));
  EXPECT_TRUE(lines_of(write_file(directory / "d", "")).empty());
}

TEST(LineReader, LinesMayBeLongerThanAWindow) {
  const TemporaryDirectory directory;
  std::vector<std::string> lines;
  std::string text;
  for (const size_t length : std::vector<size_t>{3, 1 << 20, 5, 2500000, 0, 1048575, 7}) {
    lines.push_back(some_text(length, length));
    for (char& c : lines.back())
      if (c == '\n') c = '-';
    text += lines.back() + "\n";
  }
  EXPECT_TRUE(lines_of(write_file(directory / "long", gzipped(text))) == lines);
}

}  // namespace retort::data
