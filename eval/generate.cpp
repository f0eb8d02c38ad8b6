// B batch, T tokens, D width, V vocabulary.
#include "eval/generate.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "models/kv_cache.h"

namespace retort::eval {
namespace {

at::Tensor head_logits(const models::Head& head, const at::Tensor& h_D) {
  const at::Tensor logits = at::linear(h_D.to(head.weight_VD.scalar_type()), head.weight_VD).to(at::kFloat);
  return head.softcap > 0.0 ? at::tanh(logits / head.softcap) * head.softcap : logits;
}

// The fewest ids, likeliest first, that hold at least `top_p` of the weight; never none.
std::vector<int32_t> nucleus(const std::vector<double>& weights, double top_p) {
  std::vector<int32_t> ids(weights.size());
  std::iota(ids.begin(), ids.end(), 0);
  if (top_p >= 1.0) return ids;  // all of them: no order is needed
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
    return weights[static_cast<size_t>(a)] > weights[static_cast<size_t>(b)];
  });
  const double enough = top_p * std::accumulate(weights.begin(), weights.end(), 0.0);
  size_t kept = 0;
  for (double held = 0.0; kept < ids.size() && (kept == 0 || held < enough); ++kept)
    held += weights[static_cast<size_t>(ids[kept])];
  ids.resize(kept);
  return ids;
}

}  // namespace

void SamplingOptions::describe(Section& s) {
  s.field("tokens", tokens, "how many tokens to generate at most", at_least(int64_t{1}));
  s.field("temperature", temperature, "divides the logits; 0 takes the likeliest token", at_least(0.0));
  s.field("top_p", top_p, "draw among the fewest tokens that hold this share of probability",
          between(0.0, 1.0));
}

int32_t sample_token(const at::Tensor& logits_V, const SamplingOptions& options, const Random& random,
                     uint64_t index) {
  const at::Tensor dense = logits_V.detach().to(at::kCPU, at::kFloat).contiguous();
  check(dense.dim() == 1 && dense.numel() > 0, "[sample_token] logits_V must have 1 dimension, got {}",
        dense.dim());
  check<NonFiniteError>(at::isfinite(dense).all().item<bool>(),
                        "[generate] logits of token {} are not finite", index);
  const std::span<const float> logits(dense.const_data_ptr<float>(), static_cast<size_t>(dense.numel()));
  const auto best = static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  if (options.temperature == 0.0) return static_cast<int32_t>(best);

  std::vector<double> weights(logits.size());
  for (size_t i = 0; i < logits.size(); ++i)
    weights[i] = std::exp((double{logits[i]} - double{logits[best]}) / options.temperature);
  const std::vector<int32_t> ids = nucleus(weights, options.top_p);
  double total = 0.0, passed = 0.0;
  for (const int32_t id : ids) total += weights[static_cast<size_t>(id)];
  const double target = random.uniform(index) * total;
  for (const int32_t id : ids)
    if ((passed += weights[static_cast<size_t>(id)]) > target) return id;
  return static_cast<int32_t>(best);  // the product was rounded up to the total
}

std::vector<int32_t> generate(models::Model& model, const std::vector<int32_t>& prompt,
                              const SamplingOptions& options, const std::function<bool(int32_t)>& on_token) {
  check<ConfigError>(options.tokens >= 0, "[generate] tokens must be >= 0, got {}", options.tokens);
  check<ConfigError>(options.temperature >= 0.0 && std::isfinite(options.temperature),
                     "[generate] temperature must be >= 0, got {}", options.temperature);
  check<ConfigError>(options.top_p >= 0.0 && options.top_p <= 1.0,
                     "[generate] top_p must be in [0, 1], got {}", options.top_p);
  check<DataError>(!prompt.empty(), "[generate] a prompt must hold at least one token");
  const auto prompted = static_cast<int64_t>(prompt.size());
  check<DataError>(prompted <= model.context(),
                   "[generate] a prompt must fit the context of {} tokens, got {}", model.context(),
                   prompted);
  const int64_t room = std::min(options.tokens, model.context() - prompted);

  const at::NoGradGuard no_grad;
  const models::Head head = model.head();
  const auto cache = model.make_cache(1, prompted + room);
  const Random random(options.seed, "sampling");
  at::Tensor tokens_BT = at::tensor(prompt, at::kLong).unsqueeze(0).to(head.weight_VD.device());
  std::vector<int32_t> out;
  for (int64_t i = 0; i < room; ++i) {
    const at::Tensor h_BTD = model.hidden({.tokens_BT = tokens_BT}, cache.get());
    out.push_back(sample_token(head_logits(head, h_BTD[0][-1]), options, random, static_cast<uint64_t>(i)));
    if (on_token && !on_token(out.back())) break;
    tokens_BT = at::full({1, 1}, out.back(), tokens_BT.options());
  }
  return out;
}

at::Tensor logits(models::Model& model, const at::Tensor& tokens_BT) {
  const at::NoGradGuard no_grad;
  const models::Head head = model.head();
  return head_logits(head, model.hidden({.tokens_BT = tokens_BT.to(head.weight_VD.device())})).to(at::kCPU);
}

}  // namespace retort::eval
