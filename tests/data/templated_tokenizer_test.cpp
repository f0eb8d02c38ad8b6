#include "data/tokenizers/templated_tokenizer.h"

#include <gmock/gmock.h>

#include "core/file.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using ::testing::HasSubstr;

// Bytes from files of their own, which have a place for a template.
std::unique_ptr<Tokenizer> from_files(const testing::TemporaryDirectory& directory) {
  for (const auto& [name, text] : make_byte_tokenizer()->hf_files())
    write_durably(local_files(), directory / name, text);
  return open_tokenizer(Path(directory / "tokenizer.json").parent_path());
}

}  // namespace

TEST(TemplatedTokenizer, KeepsIdsAndGivesTheTemplateOn) {
  const testing::TemporaryDirectory directory;
  const auto plain = from_files(directory);
  const auto other = with_chat_template(from_files(directory), "{{ messages }}");
  EXPECT_EQ(other->chat_template(), "{{ messages }}");
  EXPECT_EQ(other->encode("a b"), plain->encode("a b"));
  EXPECT_EQ(other->fingerprint(), plain->fingerprint());
  EXPECT_THAT(other->hf_files().at("tokenizer_config.json"), HasSubstr("{{ messages }}"));
}

TEST(TemplatedTokenizer, LeavesOneWithoutFilesAsItIs) {
  EXPECT_EQ(with_chat_template(make_byte_tokenizer(), "{{ messages }}")->chat_template(), "");
}

}  // namespace retort::data
