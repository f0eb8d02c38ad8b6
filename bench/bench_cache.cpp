// What a teacher's cache costs a training step, and what making it costs beside the teacher's forward pass.
// A student of 4 layers and width 256 on a vocabulary of 32,000 learns windows of random text from labels
// whose entropy is a language model's (50 draws of a Zipf distribution: about 12 ids). Checks, then times.
//
//   bench_cache [PAIRS]     one thread unless OMP_NUM_THREADS says otherwise
#include <fmt/core.h>

#include <filesystem>

#include "models/decoder.h"
#include "bench/paired.h"
#include "core/digest.h"
#include "core/error.h"
#include "core/random.h"
#include "distill/capture.h"
#include "distill/objective.h"
#include "distill/teacher.h"
#include "train/step.h"

namespace {

using namespace retort;

constexpr int64_t kVocabulary = 32000, kTokens = int64_t{1} << 17, kRows = 8, kSequence = 256;

// Where in the corpus a batch's rows start, as in training: anywhere.
data::Batch batch_of(uint64_t number) {
  const Random random(1, "bench/batch", number);
  data::Batch batch;
  batch.corpus_BT = at::empty({kRows, kSequence}, at::kLong);
  batch.tokens_BT = at::empty({kRows, kSequence}, at::kLong);
  for (int64_t row = 0; row < kRows; ++row)
    batch.corpus_BT[row] =
        at::arange(kSequence) +
        static_cast<int64_t>(random.below(static_cast<uint64_t>(row), kTokens / kSequence)) * kSequence;
  for (int64_t i = 0; i < kRows * kSequence; ++i)
    batch.tokens_BT.mutable_data_ptr<int64_t>()[i] =
        static_cast<int64_t>(random.below(static_cast<uint64_t>(1000 + i), kVocabulary));
  batch.labels_BT = batch.tokens_BT.roll({-1}, {1});
  return batch;
}

at::Tensor zipf(int64_t vocabulary) { return at::arange(1, vocabulary + 1).to(at::kFloat).log() * -1.8; }

distill::CacheFacts facts_of(int64_t vocabulary, int64_t tokens) {
  return {.kind = "sampled",
          .size = 50,
          .vocabulary = vocabulary,
          .tokens = tokens,
          .block_tokens = tokens,
          .window = kSequence};
}

// Milliseconds a token of drawing 50 labels, softmax included, and labels a token.
void time_draws(int64_t vocabulary) {
  const at::Tensor logits_CV = zipf(vocabulary).expand({128, vocabulary}).contiguous();
  const auto draw = [&] {
    distill::BlockLabels labels;
    distill::add_labels(facts_of(vocabulary, 128), logits_CV, 0, labels);
    return labels.ids.size();
  };
  draw();
  std::vector<double> times;
  size_t ids = 0;
  for (int i = 0; i < 9; ++i) times.push_back(bench::time_once([&] { ids = draw(); }).cpu_ms);
  // The head's product alone, of a teacher 768 wide: what the draws come on top of, and far from all of it.
  const at::Tensor h = at::randn({128, 768}), weight = at::randn({vocabulary, 768});
  std::vector<double> products;
  at::mm(h, weight.t());
  for (int i = 0; i < 9; ++i) products.push_back(bench::time_once([&] { at::mm(h, weight.t()); }).cpu_ms);
  fmt::print("draws, V {}: {:.1f} us a token ({:.1f} ids); a head of width 768 {:.1f} us\n", vocabulary,
             bench::quartiles(times).median / 128 * 1e3, static_cast<double>(ids) / 128,
             bench::quartiles(products).median / 128 * 1e3);
}

std::shared_ptr<const distill::TeacherCache> make_cache(const Path& directory) {
  const distill::CacheFacts facts = facts_of(kVocabulary, kTokens);
  distill::BlockLabels labels;
  const at::Tensor logits_CV = zipf(kVocabulary).expand({256, kVocabulary}).contiguous();
  for (int64_t at = 0; at < kTokens; at += 256) distill::add_labels(facts, logits_CV, at, labels);
  distill::write_block(local_files(), directory, facts, 0, labels);
  auto cache = std::make_shared<const distill::TeacherCache>(directory);
  cache->verify();
  fmt::print("cache: {:.1f} labels and {:.1f} bytes a token\n",
             static_cast<double>(cache->labels()) / kTokens, static_cast<double>(cache->bytes()) / kTokens);
  return cache;
}

// A student with its optimizer.
struct Training {
  std::unique_ptr<models::Decoder> model;
  models::IdentityMap map;
  std::unique_ptr<train::Objective> objective;
  std::unique_ptr<train::Optimizer> optimizer;
  std::unique_ptr<comm::Comm> comm = comm::make_self_comm();
  std::unique_ptr<train::TrainStep> step;
  int64_t done = 0;

  template <class Make>  // of an objective, for the student
  explicit Training(Make make) {
    const models::DecoderSpec spec{.vocabulary = kVocabulary,
                                   .context = kSequence,
                                   .layers = 4,
                                   .width = 256,
                                   .heads = 4,
                                   .kv_heads = 4,
                                   .head_dim = 64,
                                   .ffn_width = 704,
                                   .tie_embeddings = true};
    model = std::make_unique<models::Decoder>(spec);
    models::initialise(model->parameters(), "gpt2", 0.02, 1);
    objective = make(*model);
    models::bind_working(model->parameters(), map, at::kFloat);
    optimizer = train::make_optimizer({}, model->parameters());
    step = std::make_unique<train::TrainStep>(train::StepParts{*model, map, *objective, *optimizer, *comm}, 1,
                                              1.0);
  }
  void run(const data::Batch& batch) { step->run(done++, {batch}, 1e-4); }
};

void check_labels(const distill::TeacherCache& cache) {
  const kernels::SparseLabels labels = cache.read(batch_of(0).corpus_BT.flatten());
  const at::Tensor sums = labels.weights_NK.sum(1);
  check<InternalError>(at::allclose(sums, at::ones_like(sums)), "[bench_cache] weights must add up to 1");
}

void print(const char* what, const bench::Paired& result) {
  fmt::print(
      "{}: {:.1f} ms against {:.1f} ms; ratio {:.3f} [{:.3f}-{:.3f}], of CPU time {:.3f} [{:.3f}-{:.3f}]\n",
      what, result.ours.wall_ms, result.peer.wall_ms, result.wall.median, result.wall.low, result.wall.high,
      result.cpu.median, result.cpu.low, result.cpu.high);
}

}  // namespace

int main(int count, char** arguments) {
  const int pairs = count > 1 ? std::atoi(arguments[1]) : 11;
  const Path directory = std::filesystem::temp_directory_path() / "retort_bench_cache";
  std::filesystem::create_directories(directory);
  for (const int64_t vocabulary : {256, 32000, 128256}) time_draws(vocabulary);
  const auto cache = make_cache(directory);
  check_labels(*cache);
  Training plain([](models::Model&) { return train::make_cross_entropy(); });
  Training taught([&](models::Model& student) {
    return distill::make_distillation(distill::make_cached_teacher({cache}), {{.fn = "sampled"}}, student, 1);
  });
  uint64_t number = 0;
  print("reading a batch's labels against a step of cross-entropy",
        bench::time_pairs([&] { cache->read(batch_of(number++).corpus_BT.flatten()); },
                          [&] { plain.run(batch_of(number)); }, pairs));
  print("a step from the cache against a step of cross-entropy",
        bench::time_pairs([&] { taught.run(batch_of(number++)); }, [&] { plain.run(batch_of(number)); },
                          pairs));
  std::filesystem::remove_all(directory);
}
