#include "distill/capture.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/host_tensor.h"
#include "core/random.h"
#include "core/shape.h"
#include "data/on_device.h"
#include "models/on_device.h"
#include "train/precision.h"

namespace retort::distill {
namespace {

constexpr int64_t kChunkValues = int64_t{1} << 22;  // logits at a time

// Sums over runs of a row, in f64, so that a draw looks at few values: first at the runs, then into one of
// them. Eight partial sums can be added side by side, and always in the same order.
constexpr int64_t kRun = 256;

std::vector<double> run_sums(std::span<const float> p) {
  const auto vocabulary = static_cast<int64_t>(p.size());
  std::vector<double> sums;
  for (int64_t begin = 0; begin < vocabulary; begin += kRun) {
    const int64_t end = std::min(begin + kRun, vocabulary);
    double lanes[8] = {};
    int64_t v = begin;
    for (; v + 8 <= end; v += 8)
      for (int64_t lane = 0; lane < 8; ++lane) lanes[lane] += static_cast<double>(p[v + lane]);
    double sum = 0;
    for (; v < end; ++v) sum += static_cast<double>(p[v]);
    for (const double lane : lanes) sum += lane;
    sums.push_back(sum);
  }
  return sums;
}

// The ids of `draws` independent draws from p, in rising order, and how often each was drawn. The points on
// the running sum are sorted, so that one walk finds them all and skips runs without a point. An id of
// probability 0 is never drawn.
void draw_row(std::span<const float> row, const Random& random, int64_t draws, std::vector<uint32_t>& ids,
              std::vector<uint16_t>& counts) {
  const auto vocabulary = static_cast<int64_t>(row.size());
  const float* const p = row.data();
  const std::vector<double> sums = run_sums(row);
  const double total = std::accumulate(sums.begin(), sums.end(), 0.0);
  std::vector<double> points(static_cast<size_t>(draws));
  for (size_t i = 0; i < points.size(); ++i) points[i] = random.uniform(i) * total;
  std::sort(points.begin(), points.end());
  size_t last = sums.size() - 1, run = 0;
  while (sums[last] <= 0) --last;
  double before_run = 0, before = 0;  // sums before the run and before v, never above the point
  int64_t v = 0;
  for (const double point : points) {
    for (; run < last && before_run + sums[run] <= point; v = static_cast<int64_t>(++run) * kRun)
      before = before_run += sums[run];
    const int64_t end = std::min(static_cast<int64_t>(run + 1) * kRun, vocabulary);
    while (v + 1 < end && before + static_cast<double>(p[v]) <= point) before += static_cast<double>(p[v++]);
    int64_t id = v;
    while (p[id] <= 0) --id;  // at a run's end, where the rounded sum fell short of the point
    if (ids.empty() || ids.back() != static_cast<uint32_t>(id)) {
      ids.push_back(static_cast<uint32_t>(id));
      counts.push_back(0);
    }
    ++counts.back();
  }
}

void add_sampled(const CacheFacts& facts, const at::Tensor& p_CV, int64_t place, BlockLabels& out) {
  const int64_t rows = p_CV.size(0);
  const auto vocabulary = static_cast<size_t>(p_CV.size(1));
  const std::span<const float> p = host_values<const float>(p_CV);
  std::vector<std::vector<uint32_t>> ids(static_cast<size_t>(rows));
  std::vector<std::vector<uint16_t>> counts(static_cast<size_t>(rows));
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const Random random(static_cast<uint64_t>(facts.seed), "capture", 0,
                          static_cast<uint64_t>(place + row));
      const auto r = static_cast<size_t>(row);
      draw_row(p.subspan(r * vocabulary, vocabulary), random, facts.size, ids[r], counts[r]);
    }
  });
  for (size_t row = 0; row < ids.size(); ++row) {
    out.labels.push_back(static_cast<uint16_t>(ids[row].size()));
    out.ids.insert(out.ids.end(), ids[row].begin(), ids[row].end());
    out.values.insert(out.values.end(), counts[row].begin(), counts[row].end());
  }
}

void add_top_k(const CacheFacts& facts, const at::Tensor& p_CV, BlockLabels& out) {
  const int64_t k = std::min(facts.size, p_CV.size(1));
  const auto [p_CK, ids_CK] = at::topk(p_CV, k);
  const at::Tensor rest_C = (1.0 - p_CK.to(at::kDouble).sum(1)).clamp_min(0.0);
  const auto half = [](double value) { return at::Half(static_cast<float>(value)).x; };
  for (const int64_t id : host_values<const int64_t>(ids_CK)) out.ids.push_back(static_cast<uint32_t>(id));
  for (const float p : host_values<const float>(p_CK)) out.values.push_back(half(static_cast<double>(p)));
  for (const double rest : host_values<const double>(rest_C)) {
    out.labels.push_back(static_cast<uint16_t>(k));
    out.rest.push_back(half(rest));
  }
}

// One rank's work.
class Capture {
 public:
  Capture(models::Model& teacher, const data::TokenShards& corpus, const CacheFacts& facts, int64_t rows,
          const std::atomic<bool>& stop)
      : teacher_(teacher), corpus_(corpus), facts_(facts), rows_(rows), stop_(stop) {}

  // False when stopped.
  bool make(int64_t block, const std::function<void(int64_t)>& done, BlockLabels& out) const {
    const at::NoGradGuard no_grad;
    const int64_t begin = block * facts_.block_tokens, end = begin + facts_.tokens_of(block);
    for (int64_t at = begin; at < end;) {
      if (stop_.load()) return false;
      const int64_t window = std::min(facts_.window, end - at);
      const int64_t rows = std::clamp<int64_t>((end - at) / window, 1, rows_);
      std::vector<int64_t> starts;
      for (int64_t row = 0; row < rows; ++row) starts.push_back(at + row * window);
      add(data::windows(corpus_, starts, window, facts_.isolate_documents), at, out);
      at += rows * window;
      done(at - begin);
    }
    return true;
  }

 private:
  void add(const data::Batch& of_host, int64_t place, BlockLabels& out) const {
    const data::Batch batch = data::on_device(of_host, models::device_of(teacher_.parameters()));
    const at::Tensor h_ND =
        teacher_.hidden({batch.tokens_BT, batch.positions_BT, batch.document_BT}).flatten(0, 1);
    const models::Head head = teacher_.head();
    const int64_t chunk = std::max<int64_t>(1, kChunkValues / facts_.vocabulary);
    for (int64_t row = 0; row < h_ND.size(0); row += chunk) {
      const int64_t count = std::min(chunk, h_ND.size(0) - row);
      add_labels(facts_, head.logits(h_ND.narrow(0, row, count)), place + row, out);
    }
  }

  models::Model& teacher_;
  const data::TokenShards& corpus_;
  const CacheFacts& facts_;
  int64_t rows_;
  const std::atomic<bool>& stop_;
};

}  // namespace

void CaptureOptions::describe(Section& s) {
  s.field(
      "kind", kind,
      "labels to keep: sampled (draws with replacement, unbiased) or top_k (the likeliest ids and the mass "
      "of the rest)",
      one_of({"sampled", "top_k"}));
  s.field("draws", draws, "draws for each token, of sampled; more for many epochs",
          between<int64_t>(1, 65535));
  s.field("k", k, "ids for each token, of top_k; fewer than about 50 are worse than no teacher",
          between<int64_t>(1, 65535));
  s.field("temperature", temperature, "softens the distribution; the losses must have the same", above(0.0));
  s.field("precision", precision, "precision of the teacher's products", one_of(train::precision_names()));
  s.field("block_tokens", block_tokens, "tokens in a file, which is the most that an interruption loses",
          between<int64_t>(1, int64_t{1} << 24));
  s.optional("server", server,
             "a server whose model is captured, in place of model.from; kind top_k, temperature 1");
}

void add_labels(const CacheFacts& facts, const at::Tensor& logits_CV, int64_t place, BlockLabels& out) {
  check(
      logits_CV.dim() == 2 && logits_CV.size(1) >= facts.vocabulary && logits_CV.scalar_type() == at::kFloat,
      "[capture] logits_CV must be f32 [*, {}], got {} {}", facts.vocabulary,
      toString(logits_CV.scalar_type()), format_shape(logits_CV.sizes()));
  const at::Tensor p_CV =
      at::softmax(logits_CV.narrow(1, 0, facts.vocabulary) / facts.temperature, 1).cpu().contiguous();
  const at::Tensor finite_C = at::isfinite(p_CV).all(1);
  if (!finite_C.all().item<bool>())
    fail<NonFiniteError>(
        "[capture] the teacher's logits at token {} are not finite: its weights or precision are wrong",
        place + at::argmin(finite_C.to(at::kInt)).item<int64_t>());
  facts.kind == "sampled" ? add_sampled(facts, p_CV, place, out) : add_top_k(facts, p_CV, out);
}

CaptureReport capture_blocks(const MakeBlock& make, const CacheFacts& facts, const Path& cache,
                             comm::Comm& comm, FileSystem& files, Log& log) {
  files.make_directories(cache);
  remove_half_blocks(files, cache, comm.rank(), comm.size());
  std::vector<int64_t> missing;
  CaptureReport report;
  int64_t tokens = 0;
  for (int64_t block = comm.rank(); block < facts.blocks(); block += comm.size()) {
    std::string why;
    if (block_is_done(cache, facts, block, why)) {
      ++report.found;
      continue;
    }
    if (!why.empty()) log.warn("{}; it will be made again", why);
    missing.push_back(block);
    tokens += facts.tokens_of(block);
  }
  if (missing.empty()) return report;
  Progress progress(log, "capture", tokens, "tok");
  int64_t before = 0;
  for (const int64_t block : missing) {
    BlockLabels labels;
    if (!make(
            block, [&](int64_t done) { progress.update(before + done); }, labels)) {
      report.stopped = true;
      break;
    }
    write_block(files, cache, facts, block, labels);
    ++report.made;
    before += facts.tokens_of(block);
  }
  progress.finish();
  return report;
}

CaptureReport capture(models::Model& teacher, const data::TokenShards& corpus, const CacheFacts& facts,
                      int64_t rows, const Path& cache, comm::Comm& comm, FileSystem& files, Log& log,
                      const std::atomic<bool>& stop) {
  check<ConfigError>(facts.window <= teacher.context(),
                     "[capture] the teacher reads at most {} tokens, got windows of {}", teacher.context(),
                     facts.window);
  const Capture work(teacher, corpus, facts, rows, stop);
  const MakeBlock make = [&](int64_t block, const auto& done, BlockLabels& out) {
    return work.make(block, done, out);
  };
  return capture_blocks(make, facts, cache, comm, files, log);
}

CaptureReport capture(ServedTeacher& teacher, const data::TokenShards& corpus,
                      const data::Tokenizer& tokenizer, const CacheFacts& facts, const Path& cache,
                      comm::Comm& comm, FileSystem& files, Log& log) {
  const MakeBlock make = [&](int64_t block, const auto& done, BlockLabels& out) {
    return teacher.add_block(corpus, tokenizer, facts, block, done, out);
  };
  return capture_blocks(make, facts, cache, comm, files, log);
}

double cache_bytes_per_token(const CaptureOptions& options, int64_t vocabulary, double distinct) {
  const double count = options.size() <= 255 ? 1 : 2, id = vocabulary <= 65536 ? 2 : 4;
  const double label = id + (options.kind == "sampled" ? count : 2);
  return count + 8.0 / 1024 + label * distinct + (options.kind == "sampled" ? 0 : 2);
}

}  // namespace retort::distill
