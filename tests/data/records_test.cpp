#include "data/records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/data/packing.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using retort::testing::gzipped;
using retort::testing::TemporaryDirectory;
using retort::testing::write_file;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Records : public ::testing::Test {
 protected:
  // "where fields" of every record of a file with these bytes.
  std::vector<std::string> read(const char* format, const std::string& bytes,
                                const std::vector<std::string>& fields = {}) {
    const Path path = write_file(directory_ / "f", bytes);
    const auto reader = record_formats().at(format).open(path, fields);
    std::vector<std::string> out;
    for (Record record; reader->next(record);) {
      EXPECT_TRUE(record.where.starts_with(path.string()));
      out.push_back(record.where.substr(path.string().size()) + " " + record.fields.dump());
    }
    EXPECT_EQ(reader->consumed(), std::filesystem::file_size(path));
    return out;
  }
  void refuses(const char* format, const std::string& bytes, const ::testing::Matcher<std::string>& message,
               const std::vector<std::string>& fields = {}) {
    try {
      read(format, bytes, fields);
      ADD_FAILURE() << bytes << " was read";
    } catch (const DataError& error) {
      EXPECT_THAT(std::string(error.what()), AllOf(HasSubstr((directory_ / "f").string()), message));
    }
  }
  TemporaryDirectory directory_;
};

}  // namespace

TEST_F(Records, JsonLinesAreObjectsALine) {
  EXPECT_THAT(read("jsonl", "{\"text\": \"a\\nb\"}\r\n\n  \n{\"n\": 3, \"text\": null}"),
              ElementsAre(":1 {\"text\":\"a\\nb\"}", ":4 {\"n\":3,\"text\":null}"));
  EXPECT_THAT(read("jsonl", gzipped("{}\n{\"a\":[1]}\n")), ElementsAre(":1 {}", ":2 {\"a\":[1]}"));
  refuses("jsonl", "{}\n[1]\n", HasSubstr(":2: a line must be a JSON object, got array"));
  refuses("jsonl", "{}\n{\"text\": \"open\n", HasSubstr(":2:"));
  refuses("jsonl", "{}\n{\"a\": 1, \"a\": 2}\n", AllOf(HasSubstr(":2:"), HasSubstr("a")));
  refuses("jsonl", "{\"a\": \"\xff\"}\n", HasSubstr(":1:"));
}

TEST_F(Records, AJsonArrayIsReadWhole) {
  EXPECT_THAT(read("json", "[ {\"a\": 1},\n {\"b\": {}} ]"),
              ElementsAre(" row 1 {\"a\":1}", " row 2 {\"b\":{}}"));
  EXPECT_THAT(read("json", "[]"), ElementsAre());
  refuses("json", "{\"a\": 1}", HasSubstr("must be an array of objects, got object"));
  refuses("json", "[{}, 7]", HasSubstr(" row 2: must be an object, got number"));
  refuses("json", "[{},\n{]", HasSubstr(":2:"));
}

TEST_F(Records, CsvFollowsRfc4180) {
  EXPECT_THAT(
      read("csv", "id,text\r\n1,plain\r\n2,\"a \"\"b\"\", c\nd\"\r\n\r\n3,\n"),
      ElementsAre(":2 {\"id\":\"1\",\"text\":\"plain\"}", ":3 {\"id\":\"2\",\"text\":\"a \\\"b\\\", c\\nd\"}",
                  ":6 {\"id\":\"3\",\"text\":\"\"}"));
  EXPECT_THAT(read("csv", "\xef\xbb\xbftext\n\nend"),  // of one column an empty line is a row
              ElementsAre(":2 {\"text\":\"\"}", ":3 {\"text\":\"end\"}"));
  EXPECT_THAT(read("csv", "\"text\",\"a,b\"\n\"x\",\"\""), ElementsAre(":2 {\"text\":\"x\",\"a,b\":\"\"}"));
  EXPECT_THAT(read("csv", "text\n"), ElementsAre());
}

TEST_F(Records, TsvSeparatesByTabs) {
  EXPECT_THAT(
      read("tsv", "a\tb\n1, 2\tsays \"so\"\n\"x\ty\"\tz\n"),
      ElementsAre(":2 {\"a\":\"1, 2\",\"b\":\"says \\\"so\\\"\"}", ":3 {\"a\":\"x\\ty\",\"b\":\"z\"}"));
}

TEST_F(Records, MalformedTablesAreNamedByLine) {
  refuses("csv", "", HasSubstr("must begin with a header"));
  refuses("csv", "a,b\n1,2\n1\n", HasSubstr(":3: a row must have 2 fields, got 1"));
  refuses("csv", "a,b\n1,2\n1,2,3\n", HasSubstr(":3: a row must have at most 2 fields, got more"));
  refuses("csv", "a,a\n", HasSubstr(":1: column \"a\" is there twice"));
  refuses("csv", "a,b\n1,x\"y\n", HasSubstr(":2: a quote must open its field"));
  refuses("csv", "a,b\n1,\"x\"y\n", HasSubstr(":2: a closing quote must end its field"));
  refuses("csv", "a,b\n1,\"x\n\ny", HasSubstr(":2: a quoted field must be closed"));
  refuses("csv", "id,txt\n", AllOf(HasSubstr("column \"text\" is missing"), HasSubstr("txt")), {"text"});
}

TEST_F(Records, LinesOfOldMacsAreNamed) {
  refuses("csv", "text,score\rone,1\rtwo,2\r", HasSubstr("carriage return alone"), {"text"});
  refuses("tsv", "text\tscore\rone\t1\r", HasSubstr("carriage return alone"), {"text"});
  refuses("jsonl", "{\"a\": 1}\r{\"a\": 2}\r", HasSubstr("carriage return alone"));
  EXPECT_EQ(read("csv", "a,b\r\n1,2\r\n").size(), 1u);
  EXPECT_EQ(read("jsonl", "{\"a\": 1}\r\n{\"a\": 2}\r\n").size(), 2u);
}

// Fields beyond the header's are not gathered: the row ends where the first of them begins, whatever follows.
TEST_F(Records, ARowOfCommasIsRefusedAtItsFirstSurplus) {
  const std::string commas(100000, ',');
  refuses("csv", "a,b\n" + commas + "\"open", HasSubstr(":2: a row must have at most 2 fields, got more"));
  refuses("csv", commas + "\"open", HasSubstr(":1: a row must have at most 65536 fields, got more"));
}

TEST_F(Records, AFileOfManyWindowsIsOneTable) {
  std::string bytes = "n,text\n";
  std::vector<std::string> expected;
  for (int i = 0; i < 30000; ++i) {
    bytes += fmt::format("{},\"row, of {}\"\n", i, std::string(static_cast<size_t>(i % 50), 'x'));
    expected.push_back(fmt::format(":{} {{\"n\":\"{}\",\"text\":\"row, of {}\"}}", i + 2, i,
                                   std::string(static_cast<size_t>(i % 50), 'x')));
  }
  EXPECT_TRUE(read("csv", bytes) == expected);
}

}  // namespace retort::data
