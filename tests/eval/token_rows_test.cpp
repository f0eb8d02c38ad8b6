#include "eval/token_rows.h"

#include <gmock/gmock.h>

#include <fstream>

#include "core/error.h"
#include "tests/eval/models.h"
#include "tests/testing.h"

namespace retort::eval {

TEST(TokenRows, AreEvenAndWithinTheModel) {
  testing::TemporaryDirectory directory;
  const auto decoder = testing::make_decoder(16, 4);
  const auto read = [&](const char* text) {
    std::ofstream(directory / "ids.json") << text;
    return read_token_rows((directory / "ids.json").string(), *decoder);
  };
  EXPECT_TRUE(read("[[1, 2, 3], [15, 0, 4]]").equal(at::tensor({1, 2, 3, 15, 0, 4}, at::kLong).view({2, 3})));
  for (const char* text :
       {"[]", "[[]]", "{}", "[1]", "[[1, 2], [3]]", "[[16]]", "[[-1]]", "[[1.5]]", "[[1, 2, 3, 4, 5]]"})
    EXPECT_THROW(read(text), DataError) << text;
}

}  // namespace retort::eval
