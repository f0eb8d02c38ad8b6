#include "distill/inspect_cache.h"

#include <gmock/gmock.h>

#include <fstream>

#include "core/digest.h"
#include "core/error.h"
#include "distill/teacher_cache.h"
#include "tests/data/corpus.h"
#include "tests/testing.h"

namespace retort::distill {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(InspectCache, SaysWhatItHoldsAndWhatItFits) {
  const testing::TemporaryDirectory directory;
  testing::write_corpus(directory / "text", testing::random_documents(1, 4, 50, 256));
  testing::write_corpus(directory / "other", testing::random_documents(2, 4, 50, 256));
  const data::TokenShards text(directory / "text");
  const CacheFacts facts = {.kind = "sampled",
                            .size = 2,
                            .vocabulary = 256,
                            .tokenizer = text.tokenizer_fingerprint(),
                            .corpus = hex(text.digest()),
                            .tokens = text.size(),
                            .teacher = "w",
                            .teacher_name = "a teacher",
                            .window = 16};
  const auto count = static_cast<size_t>(text.size());
  local_files().make_directories(directory / "cache");
  write_block(local_files(), directory / "cache", facts, 0,
              {std::vector<uint16_t>(count, 1),
               std::vector<uint32_t>(count, 65),
               std::vector<uint16_t>(count, 2),
               {}});

  std::string said;
  const auto inspect = [&](const Path& shards, const std::string& tokenizer) {
    said.clear();
    inspect_cache(directory / "cache", shards.string(), tokenizer,
                  [&](std::string_view line) { (said += line) += "\n"; });
  };
  inspect("", "");
  EXPECT_THAT(said, HasSubstr("teacher cache: sampled of a teacher, 1 blocks of"));
  EXPECT_THAT(said, HasSubstr("2 draws a token at temperature 1: 1.00 labels"));
  EXPECT_THAT(said, ::testing::EndsWith("checksums hold\n"));
  inspect(directory / "text", "bytes");
  EXPECT_THAT(said, HasSubstr("fits the shards "));
  EXPECT_THAT(said, ::testing::EndsWith("fits the tokenizer bytes\n"));
  EXPECT_THROW(inspect(directory / "other", ""), DataError);
  EXPECT_THAT([&] { inspect("", "bytes+stop"); },
              ThrowsMessage<DataError>(HasSubstr("its tokenizer must be bytes+stop")));
}

}  // namespace retort::distill
