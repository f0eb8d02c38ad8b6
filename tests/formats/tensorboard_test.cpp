#include "formats/tensorboard.h"

#include <vector>

#include "tests/formats/byte_image.h"

namespace retort::formats {
namespace {

using testing::ByteImage;

TEST(Tensorboard, Crc32cVectors) {
  EXPECT_EQ(crc32c(as_bytes("")), 0u);
  EXPECT_EQ(crc32c(as_bytes("123456789")), 0xE3069283u);
  EXPECT_EQ(crc32c(as_bytes(std::string(32, '\0'))), 0x8A9136AAu);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(as_bytes(std::string(32, '\xff'))), 0x62A8AB43u);
}

TEST(Tensorboard, FirstEventByteForByte) {
  const std::string event = version_event(0.0);
  EXPECT_EQ(event, ByteImage()
                       .raw("\x09")
                       .number(0.0)
                       .raw("\x1a\x0d"
                            "brain.Event:2")
                       .bytes());
  ASSERT_EQ(event.size(), 24u);
  const std::string record =
      ByteImage().number<uint64_t>(24).number(0x224B7FA3u).raw(event).number(0xA328DFEEu).bytes();
  EXPECT_EQ(tensorboard_record(event), record);
}

TEST(Tensorboard, ScalarsByteForByte) {
  const std::string expected = ByteImage()
                                   .raw("\x09")
                                   .number(2.5)          // wall_time
                                   .raw("\x10\xac\x02")  // step 300
                                   .raw("\x2a\x18")      // summary, 24 bytes
                                   .raw(
                                       "\x0a\x08\x0a\x01"
                                       "a\x15")
                                   .number(1.0f)
                                   .raw(
                                       "\x0a\x0c\x0a\x05"
                                       "b/two\x15")
                                   .number(-0.5f)
                                   .bytes();
  EXPECT_EQ(scalars_event(300, 2.5, {{"b/two", -0.5}, {"a", 1.0}}), expected);
  // A negative step takes ten bytes; a tag beyond 127 bytes a longer length.
  EXPECT_EQ(scalars_event(-1, 0, {}).substr(9, 11), "\x10" + std::string(9, '\xff') + "\x01");
  EXPECT_NE(scalars_event(0, 0, {{std::string(200, 't'), 1}}).find("\x0a\xc8\x01t"), std::string::npos);
}

// The records of a file, each checked for its length.
std::vector<std::string> records(const Path& path) {
  const std::string bytes = read_text(path);
  std::vector<std::string> events;
  for (size_t at = 0; at < bytes.size();) {
    uint64_t length;
    std::memcpy(&length, bytes.data() + at, sizeof length);
    events.push_back(bytes.substr(at + 12, length));
    EXPECT_EQ(bytes.substr(at, length + 16), tensorboard_record(events.back()));
    at += length + 16;
  }
  return events;
}

TEST(Tensorboard, AFileIsReadableAfterEveryBatch) {
  const testing::TemporaryDirectory directory;
  TensorboardWriter writer(directory / "logs");
  EXPECT_TRUE(writer.path().filename().string().starts_with("events.out.tfevents."));
  ASSERT_EQ(records(writer.path()).size(), 1u);
  EXPECT_TRUE(records(writer.path())[0].ends_with("brain.Event:2"));
  for (int step = 1; step <= 3; ++step) {
    writer.scalars(step, 10.0 + step, {{"loss", 1.0 / step}});
    const std::vector<std::string> events = records(writer.path());
    ASSERT_EQ(events.size(), static_cast<size_t>(step) + 1);
    EXPECT_EQ(events.back(), scalars_event(step, 10.0 + step, {{"loss", 1.0 / step}}));
  }
}

TEST(Tensorboard, EachWriterHasItsOwnFile) {
  const testing::TemporaryDirectory directory;
  const TensorboardWriter first(directory.path()), second(directory.path());
  EXPECT_NE(first.path(), second.path());
}

}  // namespace
}  // namespace retort::formats
