#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "data/documents.h"
#include "data/records.h"
#include "tests/data/packing.h"
#include "tests/data/parquet_file.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using retort::testing::parquet_file;
using retort::testing::parquet_labels;
using retort::testing::TemporaryDirectory;
using retort::testing::write_file;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Parquet : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!parquet_is_built())
      GTEST_SKIP() << "this build has no Arrow: run scripts/setup.sh and configure again";
  }
  std::vector<std::string> rows(const std::string& bytes, const std::vector<std::string>& fields) {
    const Path path = write_file(directory_ / "a.parquet", bytes);
    const auto reader = open_parquet(path, fields);
    std::vector<std::string> out;
    for (Record record; reader->next(record);) {
      EXPECT_EQ(record.where, fmt::format("{} row {}", path.string(), out.size() + 1));
      out.push_back(record.fields.dump());
    }
    EXPECT_EQ(reader->consumed(), bytes.size());
    return out;
  }
  void refuses(const std::string& bytes, const std::vector<std::string>& fields,
               const ::testing::Matcher<std::string>& message) {
    try {
      rows(bytes, fields);
      ADD_FAILURE() << "it was read";
    } catch (const DataError& error) {
      EXPECT_THAT(std::string(error.what()), AllOf(HasSubstr("a.parquet"), message));
    }
  }
  TemporaryDirectory directory_;
};

}  // namespace

TEST_F(Parquet, ColumnsOfTextAcrossRowGroups) {
  EXPECT_THAT(rows(parquet_file(), {"text"}),
              ElementsAre(R"({"text":"one"})", R"({"text":null})", "{\"text\":\"drei \u00fc\"}",
                          R"({"text":"one"})", R"({"text":""})"));
}

TEST_F(Parquet, ColumnsOfBooleans) {
  EXPECT_THAT(rows(parquet_labels(), {"label"}),
              ElementsAre(R"({"label":true})", R"({"label":null})", R"({"label":false})"));
}

TEST_F(Parquet, ListsOfStructsOfText) {
  EXPECT_THAT(
      rows(parquet_file(), {"chat"}),
      ElementsAre(R"({"chat":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Yes"}]})",
                  R"({"chat":[]})", R"({"chat":null})", R"({"chat":[{"role":"user","content":null}]})",
                  R"({"chat":[{"role":"assistant","content":"b"}]})"));
}

TEST_F(Parquet, ADocumentsFieldIsAColumn) {
  const auto reader = open_documents(write_file(directory_ / "a.parquet", parquet_file()), {});
  std::vector<std::string> texts;
  for (Document document; reader->next(document);) texts.push_back(document.spans.at(0).text);
  EXPECT_THAT(texts, ElementsAre("one", "drei \u00fc", "one"));
}

TEST_F(Parquet, WhatIsNoTextOrNotThereIsNamed) {
  refuses(parquet_file(), {"id"},
          AllOf(HasSubstr("row 1 column \"id\""), HasSubstr("must hold text"), HasSubstr("int32")));
  refuses(parquet_file(), {"txt"}, AllOf(HasSubstr("column \"txt\" is missing"), HasSubstr("\"text\"")));
  EXPECT_THROW(open_parquet(directory_ / "missing.parquet", {"text"}), IoError);
}

// Any byte may lie: what is not refused must still be read to its end.
TEST_F(Parquet, DamageIsRefusedOrHarmless) {
  const std::string whole = parquet_file();
  refuses("", {"text"}, HasSubstr("Arrow could not read it"));
  refuses(whole.substr(0, whole.size() - 1), {"text"}, HasSubstr("Arrow could not read it"));
  int refused = 0;
  for (size_t at = 0; at < whole.size(); at += 3) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x41);
    try {
      rows(bytes, {"text", "chat"});
    } catch (const DataError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 100);
}

TEST(NoParquet, ABuildWithoutItSaysHowToGetIt) {
  if (parquet_is_built()) GTEST_SKIP() << "this build has Arrow";
  try {
    open_parquet("a.parquet", {"text"});
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("scripts/setup.sh"));
  }
}

}  // namespace retort::data
