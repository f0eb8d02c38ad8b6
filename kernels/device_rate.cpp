#include "kernels/device_rate.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>

namespace retort::kernels {
namespace {

constexpr double kEnough = 2e-3;    // seconds of a product
constexpr int64_t kLargest = 8192;  // of a side
constexpr int kTimes = 5;

double seconds_of(const at::Device& device, const std::function<void()>& work) {
  double best = 1e9;
  for (int i = 0; i < kTimes; ++i) {
    wait_for(device);
    const auto start = std::chrono::steady_clock::now();
    work();
    wait_for(device);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

// Values whose bits are as mixed as those of data, of no generator: products of equal numbers take a GPU less power, and so
// less time, than any that a step has.
at::Tensor mixed(int64_t n, const at::Device& device, at::ScalarType dtype) {
  return at::arange(n * n, at::TensorOptions(device).dtype(at::kFloat)).sin_().to(dtype).view({n, n});
}

}  // namespace

void wait_for(const at::Device& device) {
  if (device.is_cpu()) return;
  const c10::impl::VirtualGuardImpl guard(device.type());
  guard.synchronizeStream(guard.getStream(device));
}

double measured_rate(const at::Device& device, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  for (int64_t n = 256;; n *= 2) {
    const at::Tensor a = mixed(n, device, dtype);
    at::Tensor c = at::empty_like(a);
    const double seconds = seconds_of(device, [&] { at::mm_out(c, a, a.t()); });
    const auto side = static_cast<double>(n);
    if (seconds >= kEnough || n == kLargest) return 2 * side * side * side / seconds;
  }
}

}  // namespace retort::kernels
