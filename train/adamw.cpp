#include "train/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/shape.h"

namespace retort::train {
namespace {

// The constants of one step, rounded once from double.
struct Rates {
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float step;  // lr / (1 - b1^t)
  float root;  // 1 / sqrt(1 - b2^t)
  float eps;
};

// A run of elements of one parameter: the unit of work of a thread.
struct Piece {
  float *p, *m, *v;
  const float* g;
  int64_t count;
  float keep;  // 1 - lr * wd
};
constexpr int64_t kPieceElements = 1 << 14;  // 4 x 64 KiB: a second-level cache holds it

// Eight elements. Every multiply-add is spelt out, so that no compiler or neighbour changes a rounding.
__attribute__((target("avx2,fma"))) inline void update_eight(float* p, float* m, float* v, const float* g,
                                                             const Rates& r, float keep) {
  const __m256 g8 = _mm256_loadu_ps(g);
  const __m256 m8 = _mm256_fmadd_ps(_mm256_set1_ps(r.beta1), _mm256_loadu_ps(m),
                                    _mm256_mul_ps(_mm256_set1_ps(r.one_minus_beta1), g8));
  const __m256 g8_part = _mm256_mul_ps(_mm256_set1_ps(r.one_minus_beta2), g8);
  const __m256 v8 = _mm256_fmadd_ps(_mm256_set1_ps(r.beta2), _mm256_loadu_ps(v), _mm256_mul_ps(g8_part, g8));
  const __m256 divisor = _mm256_fmadd_ps(_mm256_sqrt_ps(v8), _mm256_set1_ps(r.root), _mm256_set1_ps(r.eps));
  const __m256 kept = _mm256_mul_ps(_mm256_loadu_ps(p), _mm256_set1_ps(keep));
  _mm256_storeu_ps(m, m8);
  _mm256_storeu_ps(v, v8);
  _mm256_storeu_ps(p, _mm256_fnmadd_ps(_mm256_set1_ps(r.step), _mm256_div_ps(m8, divisor), kept));
}

__attribute__((target("avx2,fma"))) void update(const Piece& x, const Rates& r) {
  int64_t i = 0;
  for (; i + 8 <= x.count; i += 8) update_eight(x.p + i, x.m + i, x.v + i, x.g + i, r, x.keep);
  const size_t rest = static_cast<size_t>(x.count - i) * sizeof(float);
  if (rest == 0) return;
  float p[8] = {}, m[8] = {}, v[8] = {}, g[8] = {};
  std::memcpy(p, x.p + i, rest);
  std::memcpy(m, x.m + i, rest);
  std::memcpy(v, x.v + i, rest);
  std::memcpy(g, x.g + i, rest);
  update_eight(p, m, v, g, r, x.keep);
  std::memcpy(x.p + i, p, rest);
  std::memcpy(x.m + i, m, rest);
  std::memcpy(x.v + i, v, rest);
}

class AdamW final : public Optimizer {
 public:
  AdamW(const OptimizerOptions& options, const models::Parameters& parameters)
      : options_(options), step_(at::zeros({}, at::kLong)) {
    for (const models::Parameter& p : parameters.unique())
      slots_.push_back({p.name, decays(p.role), at::zeros_like(p.master), at::zeros_like(p.master)});
  }

  void step(models::Parameters& parameters, const std::vector<at::Tensor>& gradients, double lr) override {
    RETORT_ASSERT(parameters.unique().size() == slots_.size() && gradients.size() == slots_.size());
    const at::NoGradGuard no_grad;
    step_.add_(1);
    const Rates rates = rates_of(lr);
    const auto keep = static_cast<float>(1.0 - lr * options_.weight_decay);
    std::vector<Piece> pieces;
    std::vector<at::Tensor> dense;  // gradients that had to be copied live as long as the pieces
    dense.reserve(slots_.size());
    for (size_t i = 0; i < slots_.size(); ++i) {
      models::Parameter& p = parameters.unique()[i];
      RETORT_ASSERT(p.name == slots_[i].name && p.master.is_contiguous());
      RETORT_ASSERT(gradients[i].sizes() == p.master.sizes() && gradients[i].scalar_type() == at::kFloat);
      dense.push_back(gradients[i].contiguous());
      add_pieces(pieces, slots_[i], p.master, dense.back(), slots_[i].decays ? keep : 1.0f);
    }
    at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) update(pieces[static_cast<size_t>(i)], rates);
    });
  }

  formats::NamedTensors state() const override {
    formats::NamedTensors out{{"adamw.step", step_}};
    for (const Slot& s : slots_) {
      out.emplace_back("adamw.m." + s.name, s.m);
      out.emplace_back("adamw.v." + s.name, s.v);
    }
    return out;
  }

  void set_state(const std::map<std::string, at::Tensor>& state) override {
    const formats::NamedTensors mine = this->state();
    for (const auto& [name, tensor] : mine) {
      const auto found = state.find(name);
      check<CheckpointError>(found != state.end(), "[adamw] the optimizer state lacks {}", name);
      const at::Tensor& theirs = found->second;
      check<CheckpointError>(theirs.sizes() == tensor.sizes() && theirs.scalar_type() == tensor.scalar_type(),
                             "[adamw] {} must be {} {}, got {} {}", name, toString(tensor.scalar_type()),
                             format_shape(tensor.sizes()), toString(theirs.scalar_type()),
                             format_shape(theirs.sizes()));
    }
    check<CheckpointError>(state.size() == mine.size(),
                           "[adamw] the optimizer state must hold {} tensors, got {}", mine.size(),
                           state.size());
    for (const auto& [name, tensor] : mine) tensor.copy_(state.at(name));
  }

 private:
  struct Slot {
    std::string name;
    bool decays;
    at::Tensor m, v;
  };

  bool decays(models::Role role) const {
    using models::Role;
    if (role == Role::kScale) return false;
    if (options_.decay_all || role == Role::kMatrix || role == Role::kHead) return true;
    return options_.decay_embeddings && (role == Role::kEmbedding || role == Role::kPositions);
  }

  Rates rates_of(double lr) const {
    const auto t = static_cast<double>(step_.item<int64_t>());
    const double b1 = options_.beta1, b2 = options_.beta2;
    return {.beta1 = static_cast<float>(b1),
            .one_minus_beta1 = static_cast<float>(1.0 - b1),
            .beta2 = static_cast<float>(b2),
            .one_minus_beta2 = static_cast<float>(1.0 - b2),
            .step = static_cast<float>(lr / (1.0 - std::pow(b1, t))),
            .root = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(b2, t))),
            .eps = static_cast<float>(options_.eps)};
  }

  static void add_pieces(std::vector<Piece>& pieces, Slot& slot, at::Tensor& master,
                         const at::Tensor& gradient, float keep) {
    float* p = master.mutable_data_ptr<float>();
    float* m = slot.m.mutable_data_ptr<float>();
    float* v = slot.v.mutable_data_ptr<float>();
    const float* g = gradient.const_data_ptr<float>();
    const int64_t total = master.numel();
    for (int64_t i = 0; i < total; i += kPieceElements)
      pieces.push_back({p + i, m + i, v + i, g + i, std::min(kPieceElements, total - i), keep});
  }

  OptimizerOptions options_;
  at::Tensor step_;  // updates done, i64
  std::vector<Slot> slots_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(const OptimizerOptions& options, const models::Parameters& parameters) {
  return std::make_unique<AdamW>(options, parameters);
}

}  // namespace retort::train
