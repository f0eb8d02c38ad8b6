// Against the model run by hand and all tokens enumerated.
#include "distill/byte_teacher.h"

#include <gmock/gmock.h>

#include <cmath>

#include "distill/objective.h"
#include "models/decoder.h"
#include "models/weight_map.h"
#include "tests/data/corpus.h"
#include "tests/distill/word_tokenizer.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

using testing::WordTokenizer;

const std::vector<std::string> kWords = {"<end>", "a", "b", "c", "ab", "abc", " ", " a", " ab", "ca"};

std::unique_ptr<models::Decoder> model_of(int64_t vocabulary, int64_t context) {
  auto model = std::make_unique<models::Decoder>(models::DecoderSpec{.vocabulary = vocabulary,
                                                                     .context = context,
                                                                     .layers = 2,
                                                                     .width = 16,
                                                                     .heads = 2,
                                                                     .kv_heads = 2,
                                                                     .head_dim = 8,
                                                                     .ffn_width = 32});
  models::initialise(model->parameters(), "normal", 0.5, 3);
  models::IdentityMap identity;
  models::bind_working(model->parameters(), identity, at::kFloat);
  return model;
}

std::vector<int32_t> bytes(std::string_view text) { return {text.begin(), text.end()}; }

class ByteTeacherTest : public ::testing::Test {
 protected:
  std::shared_ptr<const data::TokenShards> write(const std::vector<std::string>& documents) {
    testing::Documents ids;
    for (const std::string& document : documents) ids.push_back(bytes(document));
    return testing::write_corpus(directory_ / fmt::format("corpus{}", corpora_++), ids);
  }

  // P(byte at `at` of the document), the teacher having read all its tokens before.
  static at::Tensor expected(models::Model& model, const WordTokenizer& tokenizer,
                             const std::string& document, size_t at, bool separated) {
    const at::NoGradGuard no_grad;
    const std::vector<int32_t> ids = tokenizer.encode(document);
    size_t token = 0, start = 0;
    while (start + tokenizer.token_bytes(ids[token]).size() <= at)
      start += tokenizer.token_bytes(ids[token++]).size();
    std::vector<int64_t> read;
    if (separated) read.push_back(*tokenizer.separator());
    read.insert(read.end(), ids.begin(), ids.begin() + static_cast<int64_t>(token));
    const at::Tensor h_D = model.hidden({at::tensor(read, at::kLong).unsqueeze(0)})[0][-1];
    const at::Tensor p_V = at::softmax(at::matmul(model.head().weight_VD, h_D).to(at::kDouble), 0);
    const std::string_view u = std::string_view(document).substr(start, at - start);
    at::Tensor out = at::zeros({256}, at::kDouble);
    for (int32_t id = 0; id < tokenizer.vocabulary(); ++id) {
      const std::string_view t = tokenizer.token_bytes(id);
      if (!tokenizer.is_special(id) && t.size() > u.size() && t.starts_with(u))
        out[static_cast<unsigned char>(t[u.size()])] += p_V[id];
    }
    return out / out.sum();
  }

  testing::TemporaryDirectory directory_;
  int corpora_ = 0;
};

TEST_F(ByteTeacherTest, GivesTheMarginalsOfEveryByte) {
  const WordTokenizer tokenizer(kWords, {0});
  const std::string first = "abca ab cab", second = "cabc a b";
  const auto corpus = write({first, second});
  const auto model = model_of(10, 64);
  const auto teacher =
      make_byte_teacher(model_of(10, 64), std::make_unique<WordTokenizer>(tokenizer), {corpus}, 32);
  const int64_t T = corpus->size();
  const at::Tensor log_p = teacher->signal(data::windows(*corpus, {0}, T, false), {}).rows.heads[0].hidden_ND;
  ASSERT_EQ(log_p.sizes(), at::IntArrayRef({T, 256}));
  const auto check_row = [&](int64_t row, const at::Tensor& p) {
    EXPECT_LT((log_p[row].exp().to(at::kDouble) - p).abs().max().item<double>(), 1e-6) << row;
  };
  for (size_t at = 1; at < first.size(); ++at)
    check_row(static_cast<int64_t>(at) - 1, expected(*model, tokenizer, first, at, true));
  for (size_t at = 0; at < second.size(); ++at)
    check_row(static_cast<int64_t>(first.size() + at) - 1, expected(*model, tokenizer, second, at, true));
  EXPECT_EQ(log_p[T - 1].std().item<float>(), 0.0f) << "beyond the corpus nothing is known";
}

TEST_F(ByteTeacherTest, RowsThatBeginInADocumentReadTheTokensBefore) {
  const WordTokenizer tokenizer(kWords, {0});
  const std::string text = "abca ab cabcabca b abc ab cab";
  const auto corpus = write({text});
  const auto model = model_of(10, 64);
  const auto teacher =
      make_byte_teacher(model_of(10, 64), std::make_unique<WordTokenizer>(tokenizer), {corpus}, 32);
  const TeacherSignal signal = teacher->signal(data::windows(*corpus, {8, 16}, 8, false), {});
  for (int64_t row = 0; row < 16; ++row) {
    const at::Tensor p = expected(*model, tokenizer, text, static_cast<size_t>(8 + row + 1), true);
    EXPECT_LT((signal.rows.heads[0].hidden_ND[row].exp().to(at::kDouble) - p).abs().max().item<double>(),
              1e-6)
        << row;
  }
}

// A teacher of bytes is its own bridge.
TEST_F(ByteTeacherTest, OfABytesTokenizerIsTheLiveTeacher) {
  const auto corpus = write({"abca ab cabc"});
  const auto live = make_live_teacher(model_of(256, 64));
  const auto bridge = make_byte_teacher(model_of(256, 64), data::make_byte_tokenizer(), {corpus}, 32);
  const data::Batch batch = data::windows(*corpus, {0}, 11, false);
  const kernels::TeacherHead a = live->signal(batch, {}).rows.heads[0],
                             b = bridge->signal(batch, {}).rows.heads[0];
  const at::Tensor log_p = at::log_softmax(at::linear(a.hidden_ND, a.head.weight_VD), -1);
  EXPECT_LT((at::linear(b.hidden_ND, b.head.weight_VD) - log_p).abs().max().item<float>(), 1e-5);
}

TEST_F(ByteTeacherTest, LongRowsAreReadInSeveralWindows) {
  std::string text;
  for (int i = 0; i < 20; ++i) text += "cab ";
  const auto corpus = write({text});
  const auto teacher = make_byte_teacher(
      model_of(10, 9), std::make_unique<WordTokenizer>(kWords, std::vector<int32_t>{0}), {corpus}, 4);
  const at::Tensor p =
      teacher->signal(data::windows(*corpus, {0}, 79, false), {}).rows.heads[0].hidden_ND.exp();
  EXPECT_LT((p.sum(-1) - 1).abs().max().item<float>(), 1e-5);
  EXPECT_GT(std::get<0>(p.max(-1)).min().item<float>(), 0.05f) << "no row was left uniform";
}

TEST_F(ByteTeacherTest, ASpaceThatTheTokenizerAddsIsKnown) {
  const WordTokenizer tokenizer(kWords, {0}, /*adds_space=*/true);
  const auto corpus = write({"ab a", "ab c"});
  const auto teacher =
      make_byte_teacher(model_of(10, 64), std::make_unique<WordTokenizer>(tokenizer), {corpus}, 8);
  const at::Tensor p =
      teacher->signal(data::windows(*corpus, {0}, 8, false), {}).rows.heads[0].hidden_ND.exp();
  EXPECT_NEAR(p[3]['a'].item<float>(), 1.0f, 1e-6) << "after the space that opens \" ab\" comes \"a\" only";
}

TEST_F(ByteTeacherTest, RowsKnowTheirSource) {
  const WordTokenizer tokenizer(kWords, {0});
  const auto one = write({"abca ab cab"}), other = write({"cabc a b ab"});
  const auto mixed =
      make_byte_teacher(model_of(10, 64), std::make_unique<WordTokenizer>(tokenizer), {one, other}, 8);
  const auto alone =
      make_byte_teacher(model_of(10, 64), std::make_unique<WordTokenizer>(tokenizer), {other}, 8);
  data::Batch batch = data::windows(*other, {0}, 8, false);
  batch.source_B = at::Tensor();
  const at::Tensor expected = alone->signal(batch, {}).rows.heads[0].hidden_ND;
  batch.source_B = at::ones({1}, at::kLong);
  EXPECT_TRUE(testing::same_bits(mixed->signal(batch, {}).rows.heads[0].hidden_ND, expected));
}

TEST_F(ByteTeacherTest, TeachesAStudent) {
  const auto corpus = write({"abca ab cabcabca b abc ab cab"});
  const auto student = model_of(256, 32);
  const auto objective = make_distillation(
      make_byte_teacher(model_of(10, 64), std::make_unique<WordTokenizer>(kWords, std::vector<int32_t>{0}),
                        {corpus}),
      {{.fn = "forward_kl"}, {.fn = "cross_entropy"}}, *student, 1);
  const train::LossSum loss = (*objective)(*student, data::windows(*corpus, {0, 8}, 8, false));
  loss.sum.backward();
  EXPECT_TRUE(std::isfinite(loss.sum.item<double>()));
  EXPECT_GT(loss.parts[0].item<double>(), 0.0);
  EXPECT_TRUE(at::isfinite(student->parameters().at("embed.weight").working.grad()).all().item<bool>());
}

// Of documents of one letter a row takes many passes, of a long one a single pass, and ranks have them in turn.
TEST_F(ByteTeacherTest, OfADividedModelRanksAskTogether) {
  std::vector<std::string> documents(9, "a");
  documents.emplace_back("abca ab cabcabca b abc ab cab");
  const auto corpus = write(documents);
  const auto words = [] { return std::make_unique<WordTokenizer>(kWords, std::vector<int32_t>{0}); };
  comm::run_thread_ranks(3, [&](comm::Comm& comm) {
    const testing::Threads one_thread(1);
    const auto whole = model_of(10, 64);
    auto model = std::make_shared<train::DividedModel>(
        std::make_unique<models::Decoder>(whole->spec(), at::kMeta), at::kFloat, comm, 1);
    model->take([&](const models::Parameter& p) { return whole->parameters().at(p.name).master; });
    const auto divided = make_byte_teacher(model, words(), {corpus}, 8);
    const auto live = make_byte_teacher(model_of(10, 64), words(), {corpus}, 8);
    EXPECT_TRUE(divided->asked_together());
    EXPECT_FALSE(live->asked_together());
    for (int64_t turn = 0; turn < 3; ++turn) {
      const int64_t place = std::vector<int64_t>{0, 12, 20}[static_cast<size_t>((turn + comm.rank()) % 3)];
      const data::Batch batch = data::windows(*corpus, {place}, 8, false);
      EXPECT_TRUE(testing::same_bits(divided->signal(batch, {}).rows.heads[0].hidden_ND,
                                     live->signal(batch, {}).rows.heads[0].hidden_ND))
          << turn << " " << comm.rank();
    }
    EXPECT_EQ(model->weights().bytes(), 0) << "nothing is whole between batches";
  });
}

TEST_F(ByteTeacherTest, RefusesWhatItCannotFollow) {
  const auto words = [](std::vector<std::string> tokens) {
    return std::make_unique<WordTokenizer>(std::move(tokens));
  };
  try {
    make_byte_teacher(model_of(10, 64), words({"a", "b"}), {write({"abxab"})});
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("does not spell the text's byte 2"));
  }
  EXPECT_THROW(make_byte_teacher(model_of(10, 16), words(kWords), {write({"ab"})}, 15), ConfigError);
  EXPECT_THROW(make_byte_teacher(model_of(4, 64), words(kWords), {write({"ab"})}), ConfigError);
  const auto tokens = testing::write_corpus(directory_ / "tokens", {{0, 1, 2}}, 1 << 20, *words(kWords));
  EXPECT_THROW(make_byte_teacher(model_of(10, 64), words(kWords), {tokens}), ConfigError);
}

}  // namespace
}  // namespace retort::distill
