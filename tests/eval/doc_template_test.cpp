#include "eval/doc_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace retort::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const formats::Json kDocument = {{"q", "it's"}, {"n", 3}, {"x", 0.5}, {"yes", true}, {"list", {"a", 2}}};

std::string text(const std::string& source) { return DocTemplate("t.key", source).text(kDocument, "file:1"); }

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const DataError& error) {
    return error.what();
  }
  return "no DataError";
}

}  // namespace

TEST(DocTemplate, AFieldsBareNameStandsForTheField) {
  EXPECT_EQ(text("q"), "it's");
  EXPECT_EQ(text("n"), "3");
  EXPECT_EQ(text("yes"), "True");
  EXPECT_EQ(text("no field"), "no field");
  EXPECT_EQ(DocTemplate("t.key", "n").value(kDocument, ""), 3);
}

TEST(DocTemplate, WritesWhatJinjaWrites) {
  EXPECT_EQ(text("{{q}}: {{n + 1}}"), "it's: 4");
  EXPECT_EQ(text("{{q}}\n"), "it's\n") << "a line break at the end stays";
  EXPECT_EQ(text("{{q}}\n\n"), "it's\n\n");
  EXPECT_EQ(text("{{1 if q == 'no' else 0}}"), "0");
}

TEST(DocTemplate, GivesListsOfTexts) {
  const auto list = [](const std::string& source) {
    return DocTemplate("t.key", source).list(kDocument, "file:1");
  };
  EXPECT_THAT(list("list"), ElementsAre("a", "2"));
  EXPECT_THAT(list("{{[q, n, 'say \"no\"']}}"), ElementsAre("it's", "3", "say \"no\""));
  EXPECT_THAT(refusal([&] { list("q"); }), HasSubstr("file:1: t.key must give a list of texts, got it's"));
}

TEST(DocTemplate, SaysWhereAMistakeIs) {
  EXPECT_THAT(refusal([] { text("{{missing}}"); }),
              HasSubstr("file:1: a document must have the field missing"));
  EXPECT_THAT(refusal([] { DocTemplate("t.key", "{{q"); }), HasSubstr("t.key:1:"));
  EXPECT_THAT(refusal([] { text("{{n.strip()}}"); }), HasSubstr("file:1: t.key:1:"));
}

}  // namespace retort::eval
