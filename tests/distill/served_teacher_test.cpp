#include "distill/served_teacher.h"

#include <gmock/gmock.h>

#include "core/digest.h"
#include "core/error.h"
#include "data/batch_stream.h"
#include "distill/capture.h"
#include "tests/data/corpus.h"
#include "tests/distill/served_model.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

using ::testing::AllOf;
using testing::FakeAnswer;
using testing::FakeRequest;
using testing::FakeServer;
using ::testing::HasSubstr;

class ServedTeacherTest : public ::testing::TestWithParam<const char*> {
 protected:
  ServedTeacherTest()
      : corpus_(testing::write_corpus(directory_ / "text", testing::random_documents(1, 6, 60, 250))) {}

  CacheFacts facts(bool isolate = false) const {
    return {.kind = "top_k",
            .size = 12,
            .vocabulary = corpus_->vocabulary(),
            .tokenizer = corpus_->tokenizer_fingerprint(),
            .corpus = hex(corpus_->digest()),
            .tokens = corpus_->size(),
            .block_tokens = 48,
            .window = 24,
            .isolate_documents = isolate,
            .seed = 7};
  }
  ServerOptions options(const FakeServer& server, int64_t parallel = 3) const {
    ServerOptions out{.url = server.url() + "/v1/", .model = "tiny", .api = GetParam()};
    out.parallel = parallel;
    out.timeout = 3;
    out.back_off = 0.01;
    return out;
  }
  CaptureReport run(const ServerOptions& options, const std::string& name, CacheFacts facts,
                    comm::Comm& comm) {
    ServedTeacher teacher(options, comm.rank(), comm.size(), 7, log_, stop_);
    facts.teacher = teacher.fingerprint();
    return capture(teacher, *corpus_, *corpus_->tokenizer(), facts, directory_ / name, comm, local_files(),
                   log_);
  }
  CaptureReport run(const ServerOptions& options, const std::string& name) {
    const auto comm = comm::make_self_comm();
    return run(options, name, facts(), *comm);
  }
  template <class E>
  std::string error_of(const ServerOptions& options, const std::string& name = "refused") {
    try {
      run(options, name);
    } catch (const E& error) {
      return error.what();
    }
    return "no error";
  }
  // Dense rows of the whole corpus, and the rest as one more column.
  at::Tensor dense(const std::string& name) const {
    const kernels::SparseLabels rows = TeacherCache(directory_ / name).read(at::arange(corpus_->size()));
    const at::Tensor p = at::zeros({corpus_->size(), 256}).scatter_add_(1, rows.ids_NK, rows.weights_NK);
    return at::cat({p, rows.rest_N.unsqueeze(1)}, 1);
  }
  std::string bytes(const std::string& name) const {
    std::string out;
    for (int64_t block = 0; block < facts().blocks(); ++block)
      out += read_text(block_path(directory_ / name, block));
    return out;
  }
  FakeServer::Handler sound() {
    return [this](const FakeRequest& request) { return model_.answer(request); };
  }

  testing::TemporaryDirectory directory_;
  std::shared_ptr<const data::TokenShards> corpus_;
  testing::ServedModel model_{1};
  Log log_{stderr, "", true};
  std::atomic<bool> stop_{false};
};

}  // namespace

// Probabilities are halves: 2^-11 of them, on both sides.
TEST_P(ServedTeacherTest, TheCacheIsThatOfTheSameModelHere) {
  FakeServer server(sound());
  const auto comm = comm::make_self_comm();
  const auto here = testing::byte_model(1);
  for (const bool isolate : {false, true}) {
    const std::string name = isolate ? "isolated" : "joined";
    capture(*here, *corpus_, facts(isolate), 3, directory_ / (name + " here"), *comm, local_files(), log_,
            stop_);
    EXPECT_EQ(run(options(server), name, facts(isolate), *comm).made, facts().blocks());
    TeacherCache(directory_ / name).verify();
    EXPECT_LT((dense(name) - dense(name + " here")).abs().max().item<double>(), 1e-3) << name;
  }
  EXPECT_GT((dense("isolated") - dense("joined")).abs().max().item<double>(), 1e-2);
}

TEST_P(ServedTeacherTest, FaultsLanesAndRanksLeaveTheSameBytes) {
  FakeServer server(sound());
  run(options(server, 1), "plain");
  FakeServer faulty([&](const FakeRequest& request) -> FakeAnswer {
    FakeAnswer answer = model_.answer(request);
    switch (request.number) {
      case 0:
      case 4:
        return {.body = "out of memory", .status = 500};
      case 6:
        answer.sent = answer.body.size() / 2;  // and the connection with it
        return answer;
      case 8:
        answer.body.resize(answer.body.size() / 2);  // and nobody says so
        return answer;
      case 9:
        return {.body = "wait", .status = 429, .headers = "Retry-After: 0\r\n"};
      case 11:
        answer.pause = 30;
        return answer;
      default:
        return answer;
    }
  });
  run(options(faulty), "faulty");
  EXPECT_TRUE(bytes("plain") == bytes("faulty"));
  EXPECT_GE(faulty.requests(), server.requests() + 6);

  FakeServer another(sound());
  comm::run_thread_ranks(2, [&](comm::Comm& comm) { run(options(another, 4), "ranks", facts(), comm); });
  EXPECT_TRUE(bytes("plain") == bytes("ranks"));
  EXPECT_LE(another.most_at_once(), 4);
}

TEST_P(ServedTeacherTest, AnInterruptedCaptureKeepsWholeBlocks) {
  FakeServer server(sound());
  const int64_t blocks = run(options(server), "plain").made;
  const int64_t all = server.requests();
  FakeServer stopped([&](const FakeRequest& request) {
    if (request.number == all / 2) stop_ = true;
    return model_.answer(request);
  });
  const CaptureReport first = run(options(stopped), "kept");
  EXPECT_TRUE(first.stopped);
  EXPECT_GT(first.made, 0);
  EXPECT_LT(first.made, blocks);
  stop_ = false;
  const CaptureReport second = run(options(server), "kept");
  EXPECT_EQ(second.found, first.made);
  EXPECT_EQ(second.made, blocks - first.made);
  EXPECT_TRUE(bytes("plain") == bytes("kept"));
}

TEST_P(ServedTeacherTest, AnotherModelsBlocksAreNotMixedIn) {
  FakeServer server(sound());
  run(options(server), "cache");
  model_.name = "tidy";
  EXPECT_THAT(error_of<ConfigError>(options(server), "cache"),
              HasSubstr("has no model \"tiny\"; it has other, tidy"));
  ServerOptions tidy = options(server);
  tidy.model = "tidy";
  EXPECT_THAT(error_of<ConfigError>(tidy, "cache"),
              HasSubstr("belongs to another capture: teacher must be served:"));
}

TEST_P(ServedTeacherTest, TheServerMustReadAWindowAndHaveSlots) {
  FakeServer server(sound());
  const auto comm = comm::make_self_comm();
  CacheFacts wide = facts();
  wide.window = 32;
  wide.block_tokens = 64;
  EXPECT_EQ(run(options(server), "32", wide, *comm).made, wide.blocks());
  wide.window = 33;
  wide.block_tokens = 66;
  EXPECT_THROW(run(options(server), "33", wide, *comm), ConfigError);
  if (GetParam() == std::string("llama.cpp")) {
    EXPECT_THAT(error_of<ConfigError>(options(server, 5)), HasSubstr("at most the server's slots, 4, got 5"));
  }
}

TEST_P(ServedTeacherTest, DrawsAndSoftenedDistributionsAreNotToBeHad) {
  FakeServer server(sound());
  const auto comm = comm::make_self_comm();
  CacheFacts sampled = facts(), soft = facts();
  sampled.kind = "sampled";
  soft.temperature = 2;
  EXPECT_THROW(run(options(server), "sampled", sampled, *comm), ConfigError);
  EXPECT_THROW(run(options(server), "soft", soft, *comm), ConfigError);
}

TEST_P(ServedTeacherTest, AnAnswerThatDoesNotFitEndsTheCapture) {
  FakeServer server([&](const FakeRequest& request) {
    FakeAnswer answer = model_.answer(request);
    const size_t at = answer.body.find("logprob\":-");
    if (at != std::string::npos) answer.body.replace(at + 9, 1, "");
    return answer;
  });
  EXPECT_THAT(
      error_of<DataError>(options(server)),
      AllOf(HasSubstr("window at token "), HasSubstr("position 0"), HasSubstr("must be numbers up to 0")));
}

TEST_P(ServedTeacherTest, TheKeyComesFromTheEnvironment) {
  std::mutex mutex;
  std::set<bool> with_key;
  FakeServer server([&](const FakeRequest& request) {
    const std::scoped_lock lock(mutex);
    with_key.insert(request.head.find("Bearer key-of-a-test") != std::string::npos);
    return model_.answer(request);
  });
  ServerOptions keyed = options(server);
  keyed.api_key_variable = "RETORT_TEST_SERVER_KEY";
  ::unsetenv("RETORT_TEST_SERVER_KEY");
  EXPECT_THAT(error_of<ConfigError>(keyed), HasSubstr("the environment has no RETORT_TEST_SERVER_KEY"));
  ::setenv("RETORT_TEST_SERVER_KEY", "two\nlines", 1);
  EXPECT_THAT(error_of<ConfigError>(keyed), HasSubstr("printable characters"));
  ::setenv("RETORT_TEST_SERVER_KEY", "key-of-a-test", 1);
  run(keyed, "keyed");
  ::unsetenv("RETORT_TEST_SERVER_KEY");
  EXPECT_THAT(with_key, ::testing::ElementsAre(true));
  EXPECT_EQ(bytes("keyed").find("key-of-a-test"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Apis, ServedTeacherTest, ::testing::Values("vllm", "llama.cpp"),
                         [](const auto& api) { return api.index == 0 ? "Vllm" : "Llamacpp"; });

// What a slot has read already is not read again.
TEST(ServedTeacherOfLlamacpp, PromptsOfASlotGrowByAToken) {
  const testing::TemporaryDirectory directory;
  const auto corpus = testing::write_corpus(directory / "text", testing::random_documents(1, 6, 60, 250));
  testing::ServedModel model(1);
  std::mutex mutex;
  std::map<int64_t, std::vector<int64_t>> last;  // of a slot
  int64_t begun = 0, grown = 0;
  FakeServer server([&](const FakeRequest& request) {
    if (request.path == "/completion") {
      const formats::Json asked = formats::Json::parse(request.body);
      const auto ids = asked.at("prompt").get<std::vector<int64_t>>();
      const std::scoped_lock lock(mutex);
      std::vector<int64_t>& before = last[asked.at("id_slot").get<int64_t>()];
      const bool grows =
          ids.size() == before.size() + 1 && std::equal(before.begin(), before.end(), ids.begin());
      before.empty() || !grows ? ++begun : ++grown;
      EXPECT_TRUE(grows || ids.size() == 1);
      before = ids;
    }
    return model.answer(request);
  });
  Log log(stderr, "", true);
  std::atomic<bool> stop{false};
  ServerOptions options{.url = server.url(), .model = "tiny", .api = "llama.cpp"};
  ServedTeacher teacher(options, 0, 1, 0, log, stop);
  const CacheFacts facts{.kind = "top_k",
                         .size = 3,
                         .vocabulary = 256,
                         .tokens = corpus->size(),
                         .block_tokens = corpus->size(),
                         .window = 16};
  BlockLabels labels;
  EXPECT_TRUE(teacher.add_block(
      *corpus, *corpus->tokenizer(), facts, 0, [](int64_t) {}, labels));
  EXPECT_EQ(begun, (corpus->size() + 15) / 16);
  EXPECT_EQ(begun + grown, corpus->size());
  EXPECT_LE(last.size(), 4u);
}

}  // namespace retort::distill
