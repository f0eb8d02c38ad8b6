#include "kernels/cpu_tuning.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "core/cpu.h"
#include "kernels/product.h"

namespace retort::kernels {

namespace {

// f32 accuracy in the three forms of a product that training has. Small integers, so that f32 is exact
// whatever the order of the sum, and too many of them for bf16.
bool products_are_f32() {
  const at::Tensor a = (at::arange(96 * 512, at::kFloat) % 1021).view({96, 512}),
                   b = (at::arange(128 * 512, at::kFloat) % 7).view({128, 512});
  const auto exact = [](const at::Tensor& x, const at::Tensor& y) {
    return at::equal(at::mm(x, y).to(at::kDouble), at::mm(x.to(at::kDouble), y.to(at::kDouble)));
  };
  return exact(a, b.t()) && exact(a.t(), b.narrow(0, 0, 96)) && exact(a.narrow(1, 0, 128), b);
}

// True when f32 products now go to oneDNN.
bool send_f32_products_to_onednn(const CpuFeatures& cpu) {
  if (!__builtin_cpu_is("amd") || !cpu.avx512 || cpu.amx_bf16) return false;
  const auto set = [](at::Float32Precision precision) {
    at::globalContext().setFloat32Precision(at::Float32Backend::MKLDNN, at::Float32Op::MATMUL, precision);
  };
  set(at::Float32Precision::BF16);  // "may compute in bf16": without AMX it does not
  if (products_are_f32()) return true;
  set(at::Float32Precision::IEEE);
  return false;
}

// The best of a few products: what they reach when nothing disturbs them.
double gflops(at::ScalarType dtype) {
  const int64_t rows = 1024, depth = 256, columns = 1024;
  const at::Tensor a = at::ones({rows, depth}, dtype), b = at::ones({columns, depth}, dtype);
  at::Tensor c = at::empty({rows, columns}, dtype);
  using Clock = std::chrono::steady_clock;
  double best = std::numeric_limits<double>::infinity();
  product_out(c, a, b.t());
  const Clock::time_point end = Clock::now() + std::chrono::milliseconds(60);
  do {
    const Clock::time_point start = Clock::now();
    product_out(c, a, b.t());
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  } while (Clock::now() < end);
  return 2e-9 * static_cast<double>(rows * depth * columns) / best;
}

}  // namespace

std::string CpuTuning::summary() const {
  return fmt::format("fp32 {:.0f} GF/s ({}), bf16 {:.0f} GF/s, {} threads", fp32_gflops, fp32_library,
                     bf16_gflops, threads);
}

std::string choose_products() {
  const at::NoGradGuard no_grad;
  return send_f32_products_to_onednn(cpu_features()) ? "oneDNN" : "MKL";
}

CpuTuning tune_cpu() {
  const CpuFeatures cpu = cpu_features();
  const at::NoGradGuard no_grad;
  CpuTuning out;
  out.fp32_library = choose_products();
  out.threads = at::get_num_threads();
  out.bf16_units = cpu.avx512_bf16 || cpu.amx_bf16;
  out.prefers_bf16 = prefers_bf16(cpu);
  out.fp32_gflops = gflops(at::kFloat);
  out.bf16_gflops = gflops(at::kBFloat16);
  return out;
}

}  // namespace retort::kernels
