#include "formats/json.h"

#include "tests/formats/byte_image.h"

namespace retort::formats {
namespace {

using testing::expect_refused;
using testing::put_file;

TEST(Json, KeepsTheOrderAndTheTypes) {
  const Json json =
      parse_json(R"({"z": 1, "a": [true, null, "x", -2, 1.5], "m": {"k": 18446744073709551615}})", "t");
  EXPECT_EQ(json.dump(), R"({"z":1,"a":[true,null,"x",-2,1.5],"m":{"k":18446744073709551615}})");
  EXPECT_EQ(json_integer(json, "z", "t"), 1);
  EXPECT_EQ(json["m"]["k"].get<uint64_t>(), UINT64_MAX);
}

TEST(Json, SaysWhereAndWhy) {
  struct Case {
    std::string text, place, why;
  };
  const std::vector<Case> cases = {
      {"", "f.json:1:1: ", "unexpected end of input"},
      {"{\"a\": 1,\n \"b\": x}", "f.json:2:7: ", "invalid literal"},
      {"{\n\n \"b\": 1,}", "f.json:3:9: ", "expected string literal"},
      {"[1, 2", "f.json:1:5: ", "unexpected end of input"},
      {"[1] 2", "f.json:1:5: ", "expected end of input"},
      {"{\"a\": 1, \"b\": 2,\n  \"a\": 3}", "f.json:2:5: ", "duplicate key \"a\""},
      {"{\"o\": {\"k\": 1, \"k\": 1}}", "f.json:1:18: ", "duplicate key \"k\""},
      {"[1e999]", "f.json:1:", "number overflow"},
      {"[\"\xff\"]", "f.json:1:", "ill-formed UTF-8"},
      {"[\"a\nb\"]", "f.json:1:", "control character"},
      {"[01]", "f.json:1:4: ", "expected"},
      {"{'a': 1}", "f.json:1:2: ", "invalid literal"},
      {"[NaN]", "f.json:1:2: ", "invalid literal"},
  };
  for (const Case& c : cases)
    expect_refused<DataError>(c.text, [&] { parse_json(c.text, "f.json"); }, {c.place, c.why});
}

TEST(Json, RefusesDepth) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(parse_json(nested(64), "t"));
  expect_refused<DataError>("65", [&] { parse_json(nested(65), "t"); },
                            {"t:1:65: ", "nested deeper than 64"});
  EXPECT_THROW(parse_json(std::string(1'000'000, '['), "t"), DataError);
  std::string objects;
  for (int i = 0; i < 65; ++i) objects += "{\"a\":";
  EXPECT_THROW(parse_json(objects, "t"), DataError);
}

TEST(Json, AMessageIsShortWhateverTheFile) {
  try {
    parse_json("[\"" + std::string(1'000'000, 'x'), "t");
    FAIL();
  } catch (const DataError& e) {
    EXPECT_LT(std::string_view(e.what()).size(), 500u);
  }
}

TEST(Json, LargeObjectsAreNotQuadratic) {
  std::string text = "{";
  for (int i = 0; i < 200'000; ++i) text += fmt::format("\"token{}\":{},", i, i);
  text.back() = '}';
  const Json json = parse_json(text, "t");  // minutes when every key is compared with all before it
  ASSERT_EQ(json.size(), 200'000u);
  EXPECT_EQ(json.back(), 199'999);
}

TEST(Json, TypedAccessNamesTheKey) {
  const Json json =
      parse_json(R"({"hidden_size": 64, "eps": 1e-5, "name": "x", "big": 9223372036854775808})", "c");
  EXPECT_EQ(json_integer(json, "hidden_size", "c"), 64);
  EXPECT_EQ(json_real(json, "eps", "c"), 1e-5);
  EXPECT_EQ(json_real(json, "hidden_size", "c"), 64.0);
  EXPECT_EQ(json_text(json, "name", "c"), "x");
  expect_refused<DataError>("missing", [&] { json_integer(json, "hiden_size", "c"); },
                            {"c: key \"hiden_size\" is missing", "did you mean \"hidden_size\""});
  expect_refused<DataError>("real", [&] { json_integer(json, "eps", "c"); }, {"\"eps\" must be an integer"});
  expect_refused<DataError>("wide", [&] { json_integer(json, "big", "c"); },
                            {"must be an integer of 64 bits"});
  expect_refused<DataError>("number", [&] { json_text(json, "eps", "c"); }, {"must be a string, got number"});
  expect_refused<DataError>("text", [&] { json_real(json, "name", "c"); }, {"must be a number, got string"});
  expect_refused<DataError>("array", [&] { json_text(Json::array(), "k", "c"); }, {"must be an object"});
}

TEST(Json, ReadsFilesUpToALimit) {
  const testing::TemporaryDirectory directory;
  put_file(directory / "a.json", "[1, 2]");
  EXPECT_EQ(read_json(directory / "a.json").size(), 2u);
  expect_refused<DataError>("limit", [&] { read_json(directory / "a.json", 5); }, {"a.json", "6 bytes"});
  EXPECT_THROW(read_json(directory / "none.json"), IoError);
  put_file(directory / "empty.json", "");
  expect_refused<DataError>("empty", [&] { read_json(directory / "empty.json"); }, {"empty.json:1:1"});
}

}  // namespace
}  // namespace retort::formats
