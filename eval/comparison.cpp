#include "eval/comparison.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace retort::eval {
namespace {

constexpr double kNormal95 = 1.959963984540054;
constexpr uint64_t kResamples = 10000;

bool zero_or_one(std::span<const Score> scores) {
  return std::all_of(scores.begin(), scores.end(),
                     [](const Score& score) { return score.value == 0.0 || score.value == 1.0; });
}

// The interval of the mean difference by its normal approximation; the p of the same unless McNemar gives one.
void compare_means(Difference& out, std::span<const Score> first, std::span<const Score> second) {
  const auto n = static_cast<double>(first.size());
  const double mean = out.second - out.first;
  double squares = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    const double off = second[i].value - first[i].value - mean;
    squares += off * off;
  }
  const double error = first.size() < 2 ? 0.0 : std::sqrt(squares / (n - 1) / n);
  out.low = mean - kNormal95 * error;
  out.high = mean + kNormal95 * error;
  if (zero_or_one(first) && zero_or_one(second)) {
    out.only_first = out.only_second = 0;
    for (size_t i = 0; i < first.size(); ++i) {
      out.only_first += first[i].value > second[i].value;
      out.only_second += first[i].value < second[i].value;
    }
    out.p = mcnemar(out.only_first, out.only_second).mid;
    out.test = "McNemar";
    return;
  }
  out.p = error > 0 ? std::erfc(std::abs(mean) / error / std::sqrt(2.0)) : mean == 0.0 ? 1.0 : 0.0;
  out.test = "paired z";
}

// The same documents drawn for both, and the figure made of the sums of each draw.
void compare_by_bootstrap(Difference& out, const Aggregation& aggregation, std::span<const Score> first,
                          std::span<const Score> second) {
  const size_t n = first.size();
  std::vector<double> differences;
  std::vector<Score> drawn_first(n), drawn_second(n);
  for (uint64_t r = 0; r < kResamples; ++r) {
    const Random random(0, "eval/paired-bootstrap", r);
    for (size_t i = 0; i < n; ++i) {
      const uint64_t document = random.below(i, n);
      drawn_first[i] = first[document];
      drawn_second[i] = second[document];
    }
    differences.push_back(aggregation.of(drawn_second) - aggregation.of(drawn_first));
  }
  std::sort(differences.begin(), differences.end());
  const auto at = [&](double share) {
    return differences[static_cast<size_t>(share * static_cast<double>(kResamples - 1) + 0.5)];
  };
  out.low = at(0.025);
  out.high = at(0.975);
  const auto not_above = std::upper_bound(differences.begin(), differences.end(), 0.0) - differences.begin();
  const auto not_below = differences.end() - std::lower_bound(differences.begin(), differences.end(), 0.0);
  out.p = std::min(1.0, (1.0 + 2.0 * static_cast<double>(std::min<std::ptrdiff_t>(not_above, not_below))) /
                            (1.0 + static_cast<double>(kResamples)));
  out.test = "bootstrap";
}

Difference compare_metric(const TaskResult& task, const MetricResult& first, const MetricResult& second) {
  Difference out;
  out.task = task.spec.task;
  out.metric = first.metric + (first.filter == "none" ? "" : "." + first.filter);
  out.documents = std::ssize(first.scores);
  out.first = first.value;
  out.second = second.value;
  const Aggregation& aggregation = aggregations().at(metrics().at(first.metric).aggregation);
  if (aggregation.name == "mean" || aggregation.name == "brier_score")
    compare_means(out, first.scores, second.scores);
  else
    compare_by_bootstrap(out, aggregation, first.scores, second.scores);
  return out;
}

}  // namespace

McNemar mcnemar(int64_t only_first, int64_t only_second) {
  const int64_t n = only_first + only_second, m = std::min(only_first, only_second);
  if (n == 0) return {};
  const auto chance = [&](int64_t k) {  // C(n, k) / 2^n
    return std::exp(std::lgamma(n + 1.0) - std::lgamma(k + 1.0) - std::lgamma(n - k + 1.0) -
                    n * std::log(2.0));
  };
  double below = 0;
  for (int64_t k = 0; k < m; ++k) below += chance(k);
  return {std::min(1.0, 2 * (below + chance(m))), std::min(1.0, 2 * below + chance(m))};
}

std::vector<double> holm(std::span<const double> p) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] < p[b]; });
  std::vector<double> out(p.size());
  double before = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    before = std::max(before, std::min(1.0, static_cast<double>(p.size() - i) * p[order[i]]));
    out[order[i]] = before;
  }
  return out;
}

std::vector<Difference> compare(const std::vector<TaskResult>& first, const std::vector<TaskResult>& second) {
  RETORT_ASSERT(first.size() == second.size());
  std::vector<Difference> out;
  for (size_t t = 0; t < first.size(); ++t) {
    const TaskResult &a = first[t], &b = second[t];
    RETORT_ASSERT(a.spec.task == b.spec.task && a.metrics.size() == b.metrics.size());
    check<DataError>(a.prompts.size() == b.prompts.size(),
                     "[task {}] both models must have answered the same documents, got {} and {}",
                     a.spec.task, a.prompts.size(), b.prompts.size());
    for (size_t m = 0; m < a.metrics.size(); ++m)
      out.push_back(compare_metric(a, a.metrics[m], b.metrics[m]));
  }
  std::vector<double> p;
  for (const Difference& one : out) p.push_back(one.p);
  const std::vector<double> corrected = holm(p);
  for (size_t i = 0; i < out.size(); ++i) out[i].corrected_p = corrected[i];
  return out;
}

}  // namespace retort::eval
