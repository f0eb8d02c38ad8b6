#include "distill/teacher_cache.h"

#include <gmock/gmock.h>

#include <fstream>

#include "core/digest.h"
#include "core/error.h"
#include "core/random.h"
#include "distill/capture.h"
#include "tests/data/corpus.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

using ::testing::HasSubstr;

CacheFacts facts_of(const std::string& kind, int64_t size, int64_t vocabulary, int64_t tokens = 2500,
                    int64_t block_tokens = 1100) {
  return {.kind = kind,
          .size = size,
          .vocabulary = vocabulary,
          .tokenizer = "t",
          .corpus = "c",
          .tokens = tokens,
          .block_tokens = block_tokens,
          .teacher = "w",
          .teacher_name = "a teacher",
          .window = 16,
          .seed = 3};
}

// Random labels for every token: ids anywhere in the vocabulary, counts that add up, or falling halves.
BlockLabels random_labels(const CacheFacts& facts, int64_t block) {
  const Random random(1, "test/labels", 0, static_cast<uint64_t>(block));
  uint64_t drawn = 0;
  BlockLabels out;
  for (int64_t token = 0; token < facts.tokens_of(block); ++token) {
    int64_t left = facts.size, labels = 0;
    while (left > 0) {
      const auto count = static_cast<int64_t>(1 + random.below(drawn++, static_cast<uint64_t>(left)));
      out.ids.push_back(
          static_cast<uint32_t>(random.below(drawn++, static_cast<uint64_t>(facts.vocabulary))));
      const float p = static_cast<float>(count) / static_cast<float>(2 * facts.size);
      out.values.push_back(facts.kind == "sampled" ? static_cast<uint16_t>(count) : at::Half(p).x);
      left -= count;
      ++labels;
    }
    out.labels.push_back(static_cast<uint16_t>(labels));
    if (facts.kind == "top_k") out.rest.push_back(at::Half(0.5f).x);
  }
  return out;
}

void write_cache(const Path& directory, const CacheFacts& facts) {
  local_files().make_directories(directory);
  for (int64_t block = 0; block < facts.blocks(); ++block)
    write_block(local_files(), directory, facts, block, random_labels(facts, block));
}

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const DataError& error) {
    return error.what();
  }
  return "no DataError";
}

void flip_byte(const Path& path, int64_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const auto byte = static_cast<char>(file.get() ^ 0x10);
  file.seekp(at);
  file.put(byte);
}

// The places of every `apart`-th pair of zeros.
std::vector<int64_t> zero_pairs(const Path& path, int64_t apart) {
  const std::string bytes = read_text(path);
  std::vector<int64_t> out;
  for (size_t at = 0; (at = bytes.find(std::string(2, '\0'), at)) != bytes.npos;
       at += static_cast<size_t>(apart))
    out.push_back(static_cast<int64_t>(at));
  return out;
}

void write_pair(const Path& path, int64_t at, char byte) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(at);
  file.put(byte).put(byte);
}

struct Layout {
  std::string kind;
  int64_t size, vocabulary;
};

}  // namespace

// Counts and labels in one byte or two, ids in two or four, up to the last id of 2^32.
TEST(TeacherCache, GivesBackWhatWasWrittenInAnyOrder) {
  for (const Layout& layout : {Layout{"sampled", 50, 65536},
                               {"sampled", 50, 65537},
                               {"sampled", 300, 256},
                               {"sampled", 7, int64_t{1} << 32},
                               {"top_k", 8, 1000},
                               {"top_k", 300, 70000}}) {
    const testing::TemporaryDirectory directory;
    const CacheFacts facts = facts_of(layout.kind, layout.size, layout.vocabulary, 2100, 1030);
    write_cache(directory.path(), facts);
    const TeacherCache cache(directory.path());
    cache.verify();
    EXPECT_EQ(difference(facts, cache.facts()), "");

    // Every token, last block first, and single ones between.
    std::vector<int64_t> places;
    for (int64_t i = 2060; i < 2100; ++i) places.push_back(i);
    for (int64_t i = 0; i < 2060; ++i) places.push_back(i);
    places.push_back(1029);
    places.push_back(7);
    const kernels::SparseLabels rows = cache.read(at::tensor(places, at::kLong));
    std::vector<BlockLabels> blocks;
    std::vector<std::vector<size_t>> firsts;
    for (int64_t b = 0; b < facts.blocks(); ++b) {
      blocks.push_back(random_labels(facts, b));
      size_t sum = 0;
      firsts.emplace_back();
      for (const uint16_t n : blocks.back().labels) firsts.back().push_back(std::exchange(sum, sum + n));
    }
    for (size_t i = 0; i < places.size(); ++i) {
      const auto b = static_cast<size_t>(places[i] / facts.block_tokens);
      const auto token = static_cast<size_t>(places[i] % facts.block_tokens);
      const size_t first = firsts[b][token], count = blocks[b].labels[token];
      const at::Tensor ids = rows.ids_NK[static_cast<int64_t>(i)],
                       weights = rows.weights_NK[static_cast<int64_t>(i)];
      ASSERT_GE(ids.numel(), static_cast<int64_t>(count));
      for (size_t k = 0; k < count; ++k) {
        ASSERT_EQ(static_cast<uint32_t>(ids.const_data_ptr<int64_t>()[k]), blocks[b].ids[first + k]);
        const uint16_t value = blocks[b].values[first + k];
        if (layout.kind == "sampled")
          ASSERT_FLOAT_EQ(weights.const_data_ptr<float>()[k],
                          static_cast<float>(value) / static_cast<float>(layout.size));
        else
          ASSERT_NEAR(weights.const_data_ptr<float>()[k], float(at::Half(value, at::Half::from_bits())),
                      1e-3);
      }
    }
    at::Tensor mass = rows.weights_NK.sum(1);
    if (rows.rest_N.defined()) mass = mass + rows.rest_N;
    EXPECT_LT((mass - 1).abs().max().item<double>(), 1e-5);
    EXPECT_EQ(rows.rest_N.defined(), layout.kind == "top_k");
  }
}

TEST(TeacherCache, Fault13ADamagedBlockIsNamed) {
  const testing::TemporaryDirectory directory;
  const CacheFacts facts = facts_of("sampled", 10, 256);
  write_cache(directory.path(), facts);
  const Path second = block_path(directory.path(), 1);
  const auto size = static_cast<int64_t>(std::filesystem::file_size(second));
  int64_t noticed = 0;
  for (int64_t at = 0; at < size; at += 97) {
    flip_byte(second, at);
    const std::string said = refusal([&] { TeacherCache(directory.path()).verify(); });
    if (said != "no DataError") {
      EXPECT_THAT(said, HasSubstr("block-00001.h5")) << at;
      ++noticed;
    } else {  // a byte that nothing reads: what is read is what was written
      EXPECT_EQ(difference(facts, TeacherCache(directory.path()).facts()), "");
    }
    flip_byte(second, at);
  }
  EXPECT_GT(noticed, size / 97 / 2);
  int64_t found = 0;
  for (const int64_t at : zero_pairs(second, 97)) {  // 0000 becomes FFFF
    write_pair(second, at, '\xff');
    found +=
        refusal([&] { TeacherCache(directory.path()).verify(); }).find("block-00001.h5") != std::string::npos;
    write_pair(second, at, '\0');
  }
  EXPECT_GT(found, 0);
  EXPECT_NO_THROW(TeacherCache(directory.path()).verify());
  // A rank that has other blocks to verify does not see it.
  flip_byte(second, size / 2);
  EXPECT_NO_THROW(TeacherCache(directory.path()).verify(0, 2));
  EXPECT_THROW(TeacherCache(directory.path()).verify(1, 2), DataError);
}

TEST(TeacherCache, ATruncatedCacheIsRefused) {
  const testing::TemporaryDirectory directory;
  const CacheFacts facts = facts_of("top_k", 5, 256);
  write_cache(directory.path(), facts);
  const Path last = block_path(directory.path(), 2);
  std::filesystem::resize_file(last, std::filesystem::file_size(last) - 40);
  EXPECT_THAT(refusal([&] { TeacherCache cache(directory.path()); }), HasSubstr("block-00002.h5"));
  std::filesystem::remove(last);
  EXPECT_THAT(refusal([&] { TeacherCache cache(directory.path()); }),
              HasSubstr("block-00002.h5 is missing: the capture was not finished"));
  std::string why;
  EXPECT_FALSE(block_is_done(directory.path(), facts, 2, why));
  EXPECT_EQ(why, "");
}

TEST(TeacherCache, BlocksOfTwoCapturesDoNotMix) {
  const testing::TemporaryDirectory directory;
  const CacheFacts facts = facts_of("sampled", 10, 256);
  write_cache(directory.path(), facts);
  CacheFacts other = facts;
  other.temperature = 2.0;
  write_block(local_files(), directory.path(), other, 1, random_labels(other, 1));
  EXPECT_THAT(refusal([&] { TeacherCache cache(directory.path()); }),
              HasSubstr("block-00001.h5: temperature must be 1, got 2 as in"));
  std::string why;
  EXPECT_THROW(block_is_done(directory.path(), facts, 1, why), ConfigError);
  EXPECT_TRUE(block_is_done(directory.path(), facts, 2, why));
}

TEST(TeacherCache, OtherTextAndOtherTeachersAreNamed) {
  const testing::TemporaryDirectory directory;
  const auto corpus = testing::write_corpus(directory / "a", testing::random_documents(1, 9, 90, 200));
  const auto other = testing::write_corpus(directory / "b", testing::random_documents(2, 9, 90, 200));
  CacheFacts facts = facts_of("sampled", 10, 256, corpus->size());
  facts.corpus = hex(corpus->digest());
  facts.tokenizer = corpus->tokenizer_fingerprint();
  write_cache(directory / "cache", facts);
  const TeacherCache cache(directory / "cache");
  EXPECT_NO_THROW(cache.check_corpus(*corpus));
  EXPECT_THAT(refusal([&] { cache.check_corpus(*other); }), HasSubstr("was captured on other text"));
  EXPECT_NO_THROW(cache.check_teacher("w", "mine"));
  EXPECT_THAT(refusal([&] { cache.check_teacher("v", "mine"); }),
              HasSubstr("is of another teacher: its weights must be those of mine (v), got a teacher (w)"));
}

TEST(TeacherCache, PlacesBeyondTheCorpusAreRefused) {
  const testing::TemporaryDirectory directory;
  write_cache(directory.path(), facts_of("sampled", 10, 256));
  const TeacherCache cache(directory.path());
  for (const int64_t place : {int64_t{-1}, int64_t{2500}})
    EXPECT_THAT(refusal([&] { cache.read(at::full({1}, place, at::kLong)); }), HasSubstr("[0, 2500)"));
}

}  // namespace retort::distill
