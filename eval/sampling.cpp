#include "eval/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "core/error.h"
#include "core/host_tensor.h"

namespace retort::eval {
namespace {

void penalise(std::vector<float>& logits, std::span<const int32_t> seen, double penalty) {
  if (penalty == 1.0) return;
  const auto factor = static_cast<float>(penalty);
  for (const int32_t id : std::set<int32_t>(seen.begin(), seen.end())) {
    RETORT_ASSERT(id >= 0 && static_cast<size_t>(id) < logits.size());
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / factor : logit * factor;
  }
}

// The ids that may be drawn. `weights` are relative to the likeliest's, which is 1. The ids are in falling
// order when top-k or top-p needs one.
std::vector<int32_t> candidates(const std::vector<double>& weights, const SamplingOptions& options) {
  std::vector<int32_t> ids(weights.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto weight = [&](int32_t id) { return weights[static_cast<size_t>(id)]; };
  const auto likelier = [&](int32_t a, int32_t b) {
    return weight(a) != weight(b) ? weight(a) > weight(b) : a < b;
  };
  if (options.top_k > 0 && options.top_k < std::ssize(ids)) {
    std::nth_element(ids.begin(), ids.begin() + options.top_k - 1, ids.end(), likelier);
    ids.resize(static_cast<size_t>(options.top_k));
    std::sort(ids.begin(), ids.end(), likelier);
  }
  if (options.top_p < 1.0) {
    std::sort(ids.begin(), ids.end(), likelier);
    double enough = 0.0, held = 0.0;
    for (const int32_t id : ids) enough += options.top_p * weight(id);
    size_t kept = 0;
    while (kept < ids.size() && (kept == 0 || held < enough)) held += weight(ids[kept++]);
    ids.resize(kept);
  }
  std::erase_if(ids, [&](int32_t id) { return weight(id) < options.min_p; });
  return ids;
}

}  // namespace

void SamplingOptions::describe(Section& s) {
  s.field("tokens", tokens, "number of tokens to generate at most", at_least(int64_t{1}));
  s.field("temperature", temperature, "divisor of the logits; 0 takes the likeliest token", at_least(0.0));
  s.field("top_k", top_k, "number of likeliest tokens to draw from; 0: all", at_least(int64_t{0}));
  s.field("top_p", top_p, "share of probability to draw from: the fewest tokens that hold it",
          between(0.0, 1.0));
  s.field("min_p", min_p, "least probability of a token to draw, as a share of the likeliest token's",
          between(0.0, 1.0));
  s.field("repetition_penalty", repetition_penalty,
          "divisor of the logits of tokens already seen, factor where they are negative; 1: none",
          above(0.0));
  s.field("stop", stop, "texts that end the generation and are not part of it");
}

void SamplingOptions::validate() const {
  const auto rule = [](bool holds, const char* name, const char* text, auto value) {
    check<ConfigError>(holds, "[generate] {} must be {}, got {}", name, text, value);
  };
  rule(tokens >= 0, "tokens", ">= 0", tokens);
  rule(temperature >= 0.0 && std::isfinite(temperature), "temperature", ">= 0", temperature);
  rule(top_k >= 0, "top_k", ">= 0", top_k);
  rule(top_p >= 0.0 && top_p <= 1.0, "top_p", "in [0, 1]", top_p);
  rule(min_p >= 0.0 && min_p <= 1.0, "min_p", "in [0, 1]", min_p);
  rule(repetition_penalty > 0.0 && std::isfinite(repetition_penalty), "repetition_penalty", "> 0",
       repetition_penalty);
  const std::string misfit = stop_misfit(stop);
  check<ConfigError>(misfit.empty(), "[generate] {}", misfit);
}

std::string stop_misfit(const std::vector<std::string>& stop) {
  const bool empty = std::any_of(stop.begin(), stop.end(), [](const auto& text) { return text.empty(); });
  return empty ? "a stop text must not be empty" : "";
}

int32_t sample_token(const at::Tensor& logits_V, const SamplingOptions& options,
                     std::span<const int32_t> seen, const Random& random, uint64_t index) {
  const at::Tensor dense = logits_V.detach().cpu().to(at::kFloat).contiguous();
  check(dense.dim() == 1 && dense.numel() > 0, "[sample_token] logits_V must have 1 dimension, got {}",
        dense.dim());
  check<NonFiniteError>(at::isfinite(dense).all().item<bool>(),
                        "[generate] the logits of new token {} are not finite", index);
  const std::span<const float> values = host_values<const float>(dense);
  std::vector<float> logits(values.begin(), values.end());
  penalise(logits, seen, options.repetition_penalty);
  const auto best = static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  if (options.temperature == 0.0) return static_cast<int32_t>(best);

  std::vector<double> weights(logits.size());
  for (size_t i = 0; i < logits.size(); ++i)
    weights[i] = std::exp((double{logits[i]} - double{logits[best]}) / options.temperature);
  const std::vector<int32_t> ids = candidates(weights, options);
  double total = 0.0, passed = 0.0;
  for (const int32_t id : ids) total += weights[static_cast<size_t>(id)];
  const double target = random.uniform(index) * total;
  for (const int32_t id : ids)
    if ((passed += weights[static_cast<size_t>(id)]) > target) return id;
  return static_cast<int32_t>(best);  // the target was rounded up to the total
}

}  // namespace retort::eval
