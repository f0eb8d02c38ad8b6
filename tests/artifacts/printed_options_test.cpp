#include "artifacts/printed_options.h"

#include <gmock/gmock.h>

#include "core/error.h"

namespace retort::artifacts {

using formats::Json;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(PrintedOptions, AreRead) {
  const Json read = parse_printed(
      "steps: 10\nlr: 1e-05\nshare: -0.5\non: true\nname: q4_0\npath: stage:a/b.c\nempty: \"\"\n"
      "said: \"a \\\"b\\\" \\\\ \\n\\x01é\"\nlist: [a, \"b, c\", 2]\nnone: []\n"
      "inner:\n  kind: a\n  deeper:\n    kind: \"10\"\n"
      "many:\n  - match: \"*\"\n    inner:\n      kind: b\n  - match: x\nlast: false\n",
      "m");
  EXPECT_EQ(read, Json::parse(R"({"steps": 10, "lr": 1e-05, "share": -0.5, "on": true, "name": "q4_0",
    "path": "stage:a/b.c", "empty": "", "said": "a \"b\" \\ \n\u0001é", "list": ["a", "b, c", 2], "none": [],
    "inner": {"kind": "a", "deeper": {"kind": "10"}},
    "many": [{"match": "*", "inner": {"kind": "b"}}, {"match": "x"}], "last": false})"));
  EXPECT_EQ(parse_printed("", "m"), Json::object());
}

TEST(PrintedOptions, AreNothingElseOfYaml) {
  for (const auto& [text, why] : {std::pair{"a: 1\na: 2\n", "m:2: names a key twice"},
                                  {"a: 1\n  b: 2\n", "m:2: is indented as no key before it"},
                                  {" a: 1\n", "m:1: is indented as no key before it"},
                                  {"a:\n   b: 1\n", "m:2: is indented as no key before it"},
                                  {"- a: 1\n", "m:1: is indented as no key before it"},
                                  {"a: 1\n\nb: 2\n", "m:2: must be a key and its value"},
                                  {"a\n", "m:1: must be a key and its value"},
                                  {"a b: 1\n", "m:1: must begin with a key"},
                                  {"a:1\n", "m:1: must have one space before its value"},
                                  {"a:  1\n", "m:1: must have a plain or a quoted value"},
                                  {"a: &x 1\n", "m:1: must have a plain or a quoted value"},
                                  {"a: {b: 1}\n", "m:1: must have a plain or a quoted value"},
                                  {"a: 'b'\n", "m:1: must have a plain or a quoted value"},
                                  {"a: \"b\n", "m:1: has text without its end"},
                                  {"a: \"b\" c\n", "m:1: has more than a value"},
                                  {"a: \"\\q\"\n", "m:1: has an unknown escape"},
                                  {"a: \"\\x1\"\n", "m:1: has an unknown escape"},
                                  {"a: [b\n", "m:1: has a list without its end"},
                                  {"a: [b] c\n", "m:1: has more than a list"}})
    EXPECT_THAT([text = text] { parse_printed(text, "m"); }, ThrowsMessage<DataError>(HasSubstr(why)))
        << text;
  std::string deep;
  for (int level = 0; level < 100; ++level) deep += std::string(2 * level, ' ') + "a:\n";
  EXPECT_THAT([&] { parse_printed(deep, "m"); }, ThrowsMessage<DataError>(HasSubstr("nested too deeply")));
}

}  // namespace retort::artifacts
