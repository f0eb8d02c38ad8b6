#include "eval/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "eval/python_random.h"
#include "eval/python_text.h"

namespace retort::eval {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kChunk = 1000;  // resamples of one generator

// The first of the largest.
template <class Value>
size_t best_choice(const Answered& document, const Value& value) {
  size_t best = 0;
  for (size_t k = 1; k < document.answers.size(); ++k)
    if (value(k) > value(best)) best = k;
  return best;
}
size_t likeliest(const Answered& document) {
  return best_choice(document, [&](size_t k) { return document.answers[k].nats; });
}

Score accuracy(const Answered& document) {
  if (document.choices.empty()) return {document.answers.front().greedy ? 1.0 : 0.0};
  return {likeliest(document) == document.gold ? 1.0 : 0.0};
}
Score accuracy_by_length(const Answered& document, int64_t (*length)(std::string_view)) {
  const size_t best = best_choice(document, [&](size_t k) {
    return document.answers[k].nats / static_cast<double>(length(document.choices[k]));
  });
  return {best == document.gold ? 1.0 : 0.0};
}
Score accuracy_by_characters(const Answered& document) {
  return accuracy_by_length(document, count_characters);
}
Score accuracy_by_bytes(const Answered& document) {
  return accuracy_by_length(document, [](std::string_view text) { return std::ssize(text); });
}

Score exact_match(const Answered& document) {
  const bool right = document.choices.empty() ? document.matches : document.answers[document.gold].greedy;
  return {right ? 1.0 : 0.0};
}

// Sum over choices of (softmax of the log-likelihoods - 1 for the right one)^2.
Score brier_score(const Answered& document) {
  double most = -std::numeric_limits<double>::infinity(), total = 0, sum = 0;
  for (const LogLikelihood& answer : document.answers) most = std::max(most, answer.nats);
  for (const LogLikelihood& answer : document.answers) total += std::exp(answer.nats - most);
  for (size_t k = 0; k < document.answers.size(); ++k) {
    const double off = std::exp(document.answers[k].nats - most) / total - (k == document.gold ? 1.0 : 0.0);
    sum += off * off;
  }
  return {sum};
}

Score log_likelihood(const Answered& document) { return {document.answers.front().nats}; }
Score by_word(const Answered& document) {
  return {document.answers.front().nats, static_cast<double>(document.words)};
}
Score by_byte(const Answered& document) {
  return {document.answers.front().nats, static_cast<double>(document.bytes)};
}
Score prediction(const Answered& document) {
  return {static_cast<double>(document.gold), static_cast<double>(likeliest(document))};
}

struct Sums {
  double value = 0, other = 0;
};
Sums sums(std::span<const Score> scores) {
  Sums out;
  for (const Score& score : scores) out.value += score.value, out.other += score.other;
  return out;
}
double mean(std::span<const Score> scores) { return sums(scores).value / static_cast<double>(scores.size()); }
double perplexity(std::span<const Score> scores) { return std::exp(-mean(scores)); }
double weighted_perplexity(std::span<const Score> scores) {
  const Sums all = sums(scores);
  return std::exp(-all.value / all.other);
}
double bits_per_byte(std::span<const Score> scores) {
  const Sums all = sums(scores);
  return -all.value / all.other / std::numbers::ln2;
}

// Of K classes (Gorodkin 2004): (c n - p.t) / sqrt((n^2 - p.p)(n^2 - t.t)), with c right ones of n, and p_k, t_k
// how often k was said and true; 0 where that is undefined.
double matthews(std::span<const Score> scores) {
  std::vector<std::pair<double, double>> counts;
  const auto count_of = [&](double value) -> auto& {
    const auto k = static_cast<size_t>(value);
    if (counts.size() <= k) counts.resize(k + 1);
    return counts[k];
  };
  double right = 0, both = 0, said = 0, truly = 0;
  for (const auto& [gold, predicted] : scores) {
    ++count_of(gold).first;
    ++count_of(predicted).second;
    right += gold == predicted;
  }
  for (const auto& [gold, predicted] : counts) {
    both += gold * predicted;
    truly += gold * gold;
    said += predicted * predicted;
  }
  const auto n = static_cast<double>(scores.size());
  const double norm = std::sqrt((n * n - said) * (n * n - truly));
  return norm > 0 ? (right * n - both) / norm : 0.0;
}

// With n - 1.
double deviation(const std::vector<double>& values) {
  double total = 0, squares = 0;
  for (const double value : values) total += value;
  const double middle = total / static_cast<double>(values.size());
  for (const double value : values) squares += (value - middle) * (value - middle);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

double bootstrap(const Aggregation& aggregation, std::span<const Score> scores, int64_t resamples) {
  const int64_t chunk = std::min(kChunk, resamples);
  std::vector<double> statistics;
  std::vector<Score> drawn(scores.size());
  for (int64_t first = 0; first + chunk <= resamples; first += chunk) {
    PythonRandom random(static_cast<uint64_t>(first / chunk));
    for (int64_t i = 0; i < chunk; ++i) {
      for (Score& score : drawn) score = scores[random.choice(scores.size())];
      statistics.push_back(aggregation.of(drawn));
    }
  }
  return statistics.size() < 2 ? kNone : deviation(statistics);
}

}  // namespace

bool Metric::serves(const std::string& output_type) const {
  return std::find(output_types.begin(), output_types.end(), output_type) != output_types.end();
}

const Registry<Metric>& metrics() {
  static const Registry<Metric> table(
      "metric", {{"acc", "mean", {"multiple_choice", "loglikelihood"}, accuracy},
                 {"acc_norm", "mean", {"multiple_choice"}, accuracy_by_characters},
                 {"acc_bytes", "mean", {"multiple_choice"}, accuracy_by_bytes},
                 {"exact_match", "mean", {"multiple_choice", "generate_until"}, exact_match},
                 {"brier_score", "brier_score", {"multiple_choice"}, brier_score},
                 {"mcc", "matthews_corrcoef", {"multiple_choice"}, prediction},
                 {"perplexity", "perplexity", {"loglikelihood"}, log_likelihood},
                 {"word_perplexity", "weighted_perplexity", {"loglikelihood_rolling"}, by_word},
                 {"byte_perplexity", "weighted_perplexity", {"loglikelihood_rolling"}, by_byte},
                 {"bits_per_byte", "bits_per_byte", {"loglikelihood_rolling"}, by_byte}});
  return table;
}

const Registry<Aggregation>& aggregations() {
  static const Registry<Aggregation> table("aggregation",
                                           {{"mean", mean, ErrorKind::kMean},
                                            {"perplexity", perplexity, ErrorKind::kBootstrap},
                                            {"weighted_perplexity", weighted_perplexity, ErrorKind::kNone},
                                            {"bits_per_byte", bits_per_byte, ErrorKind::kNone},
                                            {"brier_score", mean, ErrorKind::kNone},
                                            {"matthews_corrcoef", matthews, ErrorKind::kBootstrap}});
  return table;
}

double standard_error(const Aggregation& aggregation, std::span<const Score> scores, int64_t resamples) {
  if (scores.size() < 2 || resamples == 0) return kNone;
  if (aggregation.error == ErrorKind::kNone) return kNone;
  if (aggregation.error == ErrorKind::kBootstrap) return bootstrap(aggregation, scores, resamples);
  std::vector<double> values;
  for (const Score& score : scores) values.push_back(score.value);
  return deviation(values) / std::sqrt(static_cast<double>(values.size()));
}

}  // namespace retort::eval
