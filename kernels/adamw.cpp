#include "kernels/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/shape.h"
#include "kernels/cuda_ops.h"

namespace retort::kernels {
namespace {

using Rates = cuda::AdamRates;

Rates rates_of(const AdamwStep& s) {
  const auto t = static_cast<double>(s.t);
  return {.beta1 = static_cast<float>(s.beta1),
          .one_minus_beta1 = static_cast<float>(1.0 - s.beta1),
          .beta2 = static_cast<float>(s.beta2),
          .one_minus_beta2 = static_cast<float>(1.0 - s.beta2),
          .step = static_cast<float>(s.lr / (1.0 - std::pow(s.beta1, t))),
          .root = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(s.beta2, t))),
          .eps = static_cast<float>(s.eps)};
}

// A run of elements of one tensor: the unit of work of a thread.
struct Piece {
  float *p, *m, *v;
  const float* g;
  int64_t count;
  float keep;  // 1 - lr * decay
};
constexpr int64_t kPieceElements = 1 << 14;  // 4 x 64 KiB: a second-level cache holds it

// Eight elements. Every multiply-add is written out, so that no compiler or neighbour changes a rounding.
__attribute__((target("avx2,fma"))) inline void update_eight(float* p, float* m, float* v, const float* g,
                                                             const Rates& r, float factor, float keep) {
  const __m256 g8 = _mm256_mul_ps(_mm256_loadu_ps(g), _mm256_set1_ps(factor));
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

__attribute__((target("avx2,fma"))) void update(const Piece& x, const Rates& r, float factor) {
  int64_t i = 0;
  for (; i + 8 <= x.count; i += 8) update_eight(x.p + i, x.m + i, x.v + i, x.g + i, r, factor, x.keep);
  const size_t rest = static_cast<size_t>(x.count - i) * sizeof(float);
  if (rest == 0) return;
  float p[8] = {}, m[8] = {}, v[8] = {}, g[8] = {};
  std::memcpy(p, x.p + i, rest);
  std::memcpy(m, x.m + i, rest);
  std::memcpy(v, x.v + i, rest);
  std::memcpy(g, x.g + i, rest);
  update_eight(p, m, v, g, r, factor, x.keep);
  std::memcpy(x.p + i, p, rest);
  std::memcpy(x.m + i, m, rest);
  std::memcpy(x.v + i, v, rest);
}

void check_tensor(const char* name, const at::Tensor& tensor, const at::Tensor& p) {
  check(tensor.defined() && (p.is_cpu() || cuda::takes(p)) && tensor.device() == p.device() &&
            tensor.scalar_type() == at::kFloat && tensor.is_contiguous() && tensor.sizes() == p.sizes(),
        "[adamw] {} must be contiguous f32 {} on the device of p, got {} {}", name, format_shape(p.sizes()),
        tensor.toString(), tensor.defined() ? format_shape(tensor.sizes()) : "");
}

void check_tensors(const AdamwTensor& x) {
  check_tensor("p", x.p, x.p);
  check_tensor("m", x.m, x.p);
  check_tensor("v", x.v, x.p);
  check_tensor("the gradient", x.gradient, x.p);
  check(!x.copy.values.defined() ||
            (writes_copy(x.p, x.copy) && x.blocks.begin == 0 && x.blocks.end == x.p.size(0)),
        "[adamw] a working copy must be whole, on a device that has kernels, and bf16 or on a grid of "
        "groups; got {} of {}",
        x.copy.values.toString(), x.p.toString());
}

void add_pieces(std::vector<Piece>& pieces, const AdamwTensor& x, float keep) {
  float* p = x.p.mutable_data_ptr<float>();
  float* m = x.m.mutable_data_ptr<float>();
  float* v = x.v.mutable_data_ptr<float>();
  const float* g = x.gradient.const_data_ptr<float>();
  for (int64_t b = 0; b < x.blocks.count(); ++b) {
    const Run run = elements_of(x.p, x.blocks[b]);
    for (int64_t i = run.first, end = run.first + run.count; i < end; i += kPieceElements)
      pieces.push_back({p + i, m + i, v + i, g + i, std::min(kPieceElements, end - i), keep});
  }
}

float keep_of(const AdamwTensor& x, const AdamwStep& step) {
  return static_cast<float>(1.0 - step.lr * x.decay);
}

void adamw_on(const cuda::Ops& device, const std::vector<AdamwTensor>& tensors, const AdamwStep& step,
              const at::Tensor& verdict) {
  std::vector<cuda::Ops::AdamParameter> parameters;
  for (const AdamwTensor& x : tensors) {
    const auto owned = [&](const at::Tensor& all) {
      return all.narrow(0, x.blocks.begin, x.blocks.end - x.blocks.begin);
    };
    parameters.push_back({owned(x.p), owned(x.m), owned(x.v), owned(x.gradient), x.copy.values,
                          keep_of(x, step), x.copy.grid});
  }
  device.adamw(parameters, rates_of(step),
               verdict.defined() ? verdict : at::ones({3}, tensors.front().p.options().dtype(at::kDouble)));
}

// For profiles: what an update reads, and once more what it writes.
std::vector<c10::IValue> operands(const std::vector<AdamwTensor>& tensors) {
  std::vector<c10::IValue> out;
  for (const AdamwTensor& x : tensors) {
    const int64_t rows = x.blocks.end - x.blocks.begin;
    for (const at::Tensor& one : {x.gradient, x.p, x.m, x.v, x.p, x.m, x.v})
      out.emplace_back(one.narrow(0, x.blocks.begin, rows));
    out.emplace_back(x.copy.values);
  }
  return out;
}

bool on_16(const at::Tensor& x) { return reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0; }

}  // namespace

bool writes_copy(const at::Tensor& p, const WorkingCopy& copy) {
  const at::Tensor& values = copy.values;
  const cuda::Ops* const ops = cuda::ops_for(p);
  if (ops == nullptr || !values.defined() || cuda::ops_for(values) != ops || values.sizes() != p.sizes() ||
      !p.is_contiguous() || !values.is_contiguous() || !on_16(p) || !on_16(values))
    return false;
  if (!copy.grid) return values.scalar_type() == at::kBFloat16;
  const int64_t group = copy.grid->fit.group;
  return group > 0 && p.size(-1) % group == 0;
}

void adamw(const std::vector<AdamwTensor>& tensors, const AdamwStep& step, const at::Tensor& verdict) {
  for (const AdamwTensor& tensor : tensors) check_tensors(tensor);
  RECORD_USER_SCOPE_WITH_INPUTS("retort::adamw", operands(tensors));
  if (tensors.empty()) return;
  check(!verdict.defined() || (verdict.scalar_type() == at::kDouble && verdict.numel() == 3 &&
                               verdict.is_contiguous() && verdict.device() == tensors.front().p.device()),
        "[adamw] the verdict must be f64 [3] on the device of p, got {}", verdict.toString());
  if (const cuda::Ops* device = cuda::ops_for(tensors.front().p))
    return adamw_on(*device, tensors, step, verdict);
  const double* const judged = verdict.defined() ? verdict.const_data_ptr<double>() : nullptr;
  if (judged != nullptr && judged[2] == 0.0) return;
  const float factor = judged == nullptr ? 1.0f : static_cast<float>(judged[1]);
  const Rates rates = rates_of(step);
  std::vector<Piece> pieces;
  for (const AdamwTensor& tensor : tensors) add_pieces(pieces, tensor, keep_of(tensor, step));
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) update(pieces[static_cast<size_t>(i)], rates, factor);
  });
}

}  // namespace retort::kernels
