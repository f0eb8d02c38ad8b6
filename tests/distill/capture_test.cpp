#include "distill/capture.h"

#include <gmock/gmock.h>

#include "core/digest.h"
#include "core/error.h"
#include "core/random.h"
#include "distill/teacher.h"
#include "models/decoder.h"
#include "models/weight_map.h"
#include "tests/data/corpus.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

using ::testing::HasSubstr;
using testing::same_bits;

std::unique_ptr<models::Decoder> tiny_model(uint64_t seed) {
  models::DecoderSpec spec{.vocabulary = 256,
                           .context = 32,
                           .layers = 1,
                           .width = 16,
                           .heads = 2,
                           .kv_heads = 2,
                           .head_dim = 8,
                           .ffn_width = 32};
  auto model = std::make_unique<models::Decoder>(spec);
  models::initialise(model->parameters(), "normal", 0.5, seed);
  models::IdentityMap identity;
  models::bind_working(model->parameters(), identity, at::kFloat);
  return model;
}

CacheFacts facts_of(const std::string& kind, int64_t size, int64_t vocabulary, double temperature = 1.0) {
  return {.kind = kind,
          .size = size,
          .temperature = temperature,
          .vocabulary = vocabulary,
          .tokens = 1,
          .window = 1};
}

// counts / draws as a dense row.
at::Tensor dense(const BlockLabels& labels, int64_t vocabulary, bool halves) {
  at::Tensor out = at::zeros({vocabulary}, at::kDouble);
  for (size_t i = 0; i < labels.ids.size(); ++i)
    out[labels.ids[i]] +=
        halves ? double(at::Half(labels.values[i], at::Half::from_bits())) : labels.values[i];
  return out;
}

class CaptureTest : public ::testing::Test {
 protected:
  CaptureTest()
      : corpus_(testing::write_corpus(directory_ / "text", testing::random_documents(1, 12, 90, 250))),
        teacher_(tiny_model(1)) {}

  CacheFacts facts(const std::string& kind = "sampled") const {
    return {.kind = kind,
            .size = 10,
            .vocabulary = corpus_->vocabulary(),
            .tokenizer = corpus_->tokenizer_fingerprint(),
            .corpus = hex(corpus_->digest()),
            .tokens = corpus_->size(),
            .block_tokens = 100,
            .teacher = fingerprint(teacher_->parameters()),
            .teacher_name = "tiny",
            .window = 24,
            .seed = 7};
  }
  CaptureReport run(const std::string& name, const CacheFacts& facts, FileSystem& files = local_files()) {
    const auto comm = comm::make_self_comm();
    return capture(*teacher_, *corpus_, facts, 3, directory_ / name, *comm, files, log_, stop_);
  }
  std::string bytes(const std::string& name) const {
    std::string out;
    for (int64_t block = 0; block < facts().blocks(); ++block)
      out += read_text(block_path(directory_ / name, block));
    return out;
  }

  testing::TemporaryDirectory directory_;
  std::shared_ptr<const data::TokenShards> corpus_;
  std::unique_ptr<models::Decoder> teacher_;
  Log log_{stderr, "", true};
  std::atomic<bool> stop_{false};
};

}  // namespace

// Pearson's chi-square over 200,000 draws of 7 ids, 6 degrees of freedom: 22.5 is its 0.999 quantile, and a
// distribution that is off by 1 % of its mass would give about 40.
TEST(SampledLabels, AreUnbiased) {
  const at::Tensor logits = at::tensor({0.3, -1.0, 2.0, 0.0, 1.1, -2.5, 0.7}, at::kFloat);
  for (const double temperature : {1.0, 2.0}) {
    constexpr int64_t kRows = 4000, kDraws = 50;
    BlockLabels labels;
    add_labels(facts_of("sampled", kDraws, 7, temperature), logits.expand({kRows, 7}).contiguous(), 1000,
               labels);
    const at::Tensor p = at::softmax(logits.to(at::kDouble) / temperature, 0);
    const at::Tensor expected = p * (kRows * kDraws), counts = dense(labels, 7, false);
    EXPECT_EQ(counts.sum().item<double>(), kRows * kDraws);
    EXPECT_LT(((counts - expected).square() / expected).sum().item<double>(), 22.5) << temperature;
    // Independent from token to token: the first id's count varies as a binomial does.
    std::vector<double> first;
    for (size_t row = 0, at = 0; row < labels.labels.size(); at += labels.labels[row++])
      first.push_back(labels.ids[at] == 0 ? labels.values[at] : 0);
    const at::Tensor counts_of_first = at::tensor(first, at::kDouble);
    const double p0 = p[0].item<double>(), variance = kDraws * p0 * (1 - p0);
    EXPECT_NEAR(counts_of_first.var().item<double>() / variance, 1.0, 0.12);  // 5 standard errors
  }
}

TEST(SampledLabels, NeverAnIdWithoutProbability) {
  at::Tensor logits = at::zeros({500, 300});
  logits.narrow(1, 0, 290).fill_(-INFINITY);
  BlockLabels labels;
  add_labels(facts_of("sampled", 50, 300), logits, 0, labels);
  EXPECT_EQ(dense(labels, 300, false).narrow(0, 0, 290).sum().item<double>(), 0);
  // A certain teacher gives one label; columns beyond the vocabulary take no part.
  logits = at::zeros({1, 300});
  logits[0][299] = 1e9;
  logits[0][5] = 1e6;
  labels = {};
  add_labels(facts_of("sampled", 50, 299), logits, 0, labels);
  EXPECT_THAT(labels.ids, ::testing::ElementsAre(5u));
  EXPECT_THAT(labels.values, ::testing::ElementsAre(50));
}

TEST(SampledLabels, AreKeyedByPlace) {
  at::Tensor logits = at::empty({40, 256});
  Random(1, "test/logits").fill_normal(logits, 1.0);
  const CacheFacts facts = facts_of("sampled", 20, 256);
  BlockLabels whole, parts;
  add_labels(facts, logits, 300, whole);
  for (const auto& [first, count] : {std::pair{0, 1}, {1, 30}, {31, 9}})
    add_labels(facts, logits.narrow(0, first, count).contiguous(), 300 + first, parts);
  EXPECT_EQ(whole.ids, parts.ids);
  EXPECT_EQ(whole.values, parts.values);
  BlockLabels elsewhere;
  add_labels(facts, logits, 301, elsewhere);
  EXPECT_NE(whole.ids, elsewhere.ids);
}

TEST(TopKLabels, AreTheLikeliestAndTheRestsMass) {
  at::Tensor logits = at::empty({30, 100});
  Random(1, "test/logits").fill_normal(logits, 2.0);
  BlockLabels labels;
  add_labels(facts_of("top_k", 12, 100, 1.5), logits, 0, labels);
  const at::Tensor p = at::softmax(logits.to(at::kDouble) / 1.5, 1);
  const auto [best, ids] = at::topk(p, 12);
  for (int64_t row = 0; row < 30; ++row) {
    EXPECT_EQ(labels.labels[static_cast<size_t>(row)], 12);
    const double rest = double(at::Half(labels.rest[static_cast<size_t>(row)], at::Half::from_bits()));
    EXPECT_NEAR(rest, 1 - best[row].sum().item<double>(), 1e-3);
    for (int64_t k = 0; k < 12; ++k) {
      const auto i = static_cast<size_t>(row * 12 + k);
      EXPECT_EQ(labels.ids[i], ids[row][k].item<int64_t>());
      EXPECT_NEAR(double(at::Half(labels.values[i], at::Half::from_bits())), best[row][k].item<double>(),
                  best[row][k].item<double>() / 1024);
    }
  }
  labels = {};
  add_labels(facts_of("top_k", 12, 5), logits.narrow(1, 0, 5).contiguous(), 0, labels);
  EXPECT_EQ(labels.labels[0], 5);  // no more than there are
}

TEST(Labels, ATeacherThatIsNotFiniteIsNamedByItsToken) {
  at::Tensor logits = at::zeros({5, 8});
  logits[3][2] = NAN;
  BlockLabels labels;
  try {
    add_labels(facts_of("sampled", 5, 8), logits, 100, labels);
    FAIL();
  } catch (const NonFiniteError& error) {
    EXPECT_THAT(error.what(), HasSubstr("at token 103 are not finite"));
  }
}

TEST_F(CaptureTest, HoldsTheTeachersDistributionOfEveryToken) {
  CacheFacts many = facts();
  many.size = 2000;
  run("cache", many);
  const TeacherCache cache(directory_ / "cache");
  cache.verify();
  cache.check_corpus(*corpus_);
  cache.check_teacher(fingerprint(teacher_->parameters()), "tiny");
  EXPECT_THROW(cache.check_teacher(fingerprint(tiny_model(2)->parameters()), "other"), DataError);
  // The windows of block 1 start at its own beginning.
  const data::Batch batch = data::windows(*corpus_, {100, 124}, 24, false);
  const kernels::SparseLabels rows = cache.read(batch.corpus_BT.flatten());
  const at::Tensor p = at::softmax(
      teacher_->hidden({batch.tokens_BT}).flatten(0, 1).matmul(teacher_->head().weight_VD.t()).detach(), 1);
  const at::Tensor sampled = at::zeros_like(p).scatter_add_(1, rows.ids_NK, rows.weights_NK);
  // An id's share of n draws errs by sqrt(p (1 - p) / n); 256 * 48 of them stay below 5 of these and a bit.
  const at::Tensor error = (sampled - p).abs() / ((p * (1 - p) / 2000).sqrt() + 1e-3);
  EXPECT_LT(error.max().item<double>(), 5.0);
}

TEST_F(CaptureTest, RanksInterruptionsAndDamageLeaveTheSameBytes) {
  for (const char* kind : {"sampled", "top_k"}) {
    const std::string base = kind;
    run(base, facts(kind));
    EXPECT_EQ(run(base, facts(kind)).found, facts().blocks());  // nothing is done twice

    comm::run_thread_ranks(3, [&](comm::Comm& comm) {
      const auto own = tiny_model(1);
      capture(*own, *corpus_, facts(kind), 3, directory_ / (base + "3"), comm, local_files(), log_, stop_);
    });
    EXPECT_TRUE(bytes(base) == bytes(base + "3"));

    // What a kill leaves: some blocks, half a temporary file, and here a damaged block too.
    std::filesystem::copy(directory_ / base, directory_ / (base + "k"));
    std::filesystem::remove(block_path(directory_ / (base + "k"), 2));
    std::filesystem::resize_file(block_path(directory_ / (base + "k"), 1), 1000);
    const CaptureReport report = run(base + "k", facts(kind));
    EXPECT_EQ(report.made, 2);
    EXPECT_TRUE(bytes(base) == bytes(base + "k"));
  }
}

TEST_F(CaptureTest, HalvesThatAKilledCaptureLeftAreGone) {
  const Path cache = directory_ / "halves";
  std::filesystem::create_directories(cache);
  for (const char* half : {"block-00000.h5.tmp.13189", "block-00002.h5.tmp.7", "block-123456.h5.tmp.1"})
    write_durably(local_files(), cache / half, "half");
  write_durably(local_files(), cache / "block-mine.h5.tmp.1", "not ours");
  run("halves", facts());
  int64_t others = 0;
  for (const auto& entry : std::filesystem::directory_iterator(cache))
    others += entry.path().filename().string().find(".tmp.") != std::string::npos ? 1 : 0;
  EXPECT_EQ(others, 1);
  EXPECT_TRUE(std::filesystem::exists(cache / "block-mine.h5.tmp.1"));
}

TEST_F(CaptureTest, AnotherTeachersBlocksAreNotOverwritten) {
  run("cache", facts());
  const std::string before = bytes("cache");
  CacheFacts other = facts();
  other.teacher = "0000000000000000";
  EXPECT_THROW(run("cache", other), ConfigError);
  EXPECT_TRUE(bytes("cache") == before);
}

TEST_F(CaptureTest, AStopKeepsTheBlocksThatAreThere) {
  stop_ = true;
  EXPECT_TRUE(run("cache", facts()).stopped);
  stop_ = false;
  EXPECT_EQ(run("cache", facts()).made, facts().blocks());
}

TEST_F(CaptureTest, WindowsBeyondTheTeachersContextAreRefused) {
  CacheFacts wide = facts();
  wide.window = 33;
  EXPECT_THROW(run("cache", wide), ConfigError);
}

// d distinct ids of 50 draws cost 1 + 3 d bytes and a little: 40 hold 12.9 of them, and language models draw
// about 12 (3B parameters; 7.4 on bytes). The layout's figure is what the files have.
TEST(CacheBytes, FiftyDrawsFitInFortyBytesOfASmallVocabulary) {
  EXPECT_LE(cache_bytes_per_token({}, 65536, 12.1), 40.0);
  EXPECT_NEAR(cache_bytes_per_token({}, 65536, 12.1), 37.3, 0.05);
  EXPECT_NEAR(cache_bytes_per_token({}, 128256, 12.1), 61.5, 0.05);

  // A teacher whose entropy is a language model's: Zipf with exponent 1.8 over 50,257 ids, 12 distinct.
  const testing::TemporaryDirectory directory;
  constexpr int64_t kTokens = 4096, kVocabulary = 50257;
  const at::Tensor logits = at::arange(1, kVocabulary + 1).to(at::kFloat).log() * -1.8;
  CacheFacts facts = facts_of("sampled", 50, kVocabulary);
  facts.tokens = facts.block_tokens = kTokens;
  BlockLabels labels;
  for (int64_t row = 0; row < kTokens; row += 64)
    add_labels(facts, logits.expand({64, kVocabulary}).contiguous(), row, labels);
  write_block(local_files(), directory.path(), facts, 0, labels);
  const TeacherCache cache(directory.path());
  const double distinct = static_cast<double>(cache.labels()) / kTokens;
  EXPECT_NEAR(distinct, 12.0, 1.0);
  const double bytes = static_cast<double>(cache.bytes()) / kTokens;
  EXPECT_LE(bytes, 40.0);
  // HDF5's own tables and the attributes: some KiB of a file.
  EXPECT_NEAR(bytes, cache_bytes_per_token({}, kVocabulary, distinct), 8192.0 / kTokens);
}

}  // namespace retort::distill
