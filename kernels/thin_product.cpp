#include "kernels/thin_product.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "kernels/cpu/elements.h"

namespace retort::kernels {
namespace {

// Products of a thread that are worth starting it: a few microseconds of reading.
constexpr int64_t kWorth = 1 << 16;

}  // namespace

bool is_thin(const at::Tensor& x, const at::Tensor& w) {
  return !at::GradMode::is_enabled() && x.is_cpu() && cpu::has_loops(w) && w.dim() == 2 &&
         w.is_contiguous() && x.dim() > 0 && x.size(-1) == w.size(1) && x.numel() > 0 &&
         x.numel() <= cpu::kThinRows * w.size(1);
}

at::Tensor thin_product(const at::Tensor& x, const at::Tensor& w) {
  check(is_thin(x, w), "[thin_product] must have 1 to {} rows x [..., I], a dense w [O, I] and no gradients",
        cpu::kThinRows);
  const int64_t columns = w.size(0), depth = w.size(1), rows = x.numel() / depth;
  const at::Tensor input = x.to(at::kFloat).contiguous();
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = columns;
  const at::Tensor y = at::empty(shape, input.options());
  const cpu::Table& loops = cpu::cpu_table();
  cpu::with_elements(w, [&](auto element) {
    using T = decltype(element);
    at::parallel_for(0, columns, std::max<int64_t>(1, kWorth / depth), [&](int64_t begin, int64_t end) {
      loops.of<T>().thin_product(cpu::read<float>(input), cpu::read<T>(w) + begin * depth,
                                 cpu::write<float>(y) + begin, rows, depth, end - begin, columns);
    });
  });
  return y;
}

}  // namespace retort::kernels
