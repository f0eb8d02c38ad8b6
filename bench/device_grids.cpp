// Rows of bench_device: values on grids, and of codes. What they are checked by is the composite in f32, each operation of
// which rounds as the kernel's does, or the CPU's grid, so that no error is allowed.
#include <fmt/format.h>

#include "bench/device_table.h"
#include "quantize/device_fit.h"
#include "quantize/grid.h"

namespace retort::bench {
namespace {

using kernels::cuda::Ops;

// In bf16; and a learned grid's gradient.
std::vector<Row> grids(const Ops& ops, const Place& place) {
  using kernels::Fit, kernels::RoundRule;
  const int64_t N = place.size(14336, 3), D = place.size(4096, 256);
  const at::Tensor x = place.normal({N, D}, at::kFloat) * 0.02, g = place.normal({N, D}, at::kFloat);
  const at::Tensor theta = x.abs().mean(-1, true).mul(0.42).log(), given = ops.learned_scales(theta);
  const kernels::Rounding four{RoundRule::kNearestEven, -8, 7}, eight{RoundRule::kNearestEven, -128, 127},
      three{RoundRule::kNearestEven, -1, 1};
  const auto under = [=](const at::Tensor& s, int64_t group, const kernels::Rounding& r) -> Tensors {
    const at::Tensor v = x.view({N, -1, group}) / s.unsqueeze(-1);
    return {(v.round().clamp(r.lowest, r.highest) * s.unsqueeze(-1)).to(at::kBFloat16).view({N, D})};
  };
  const auto integers = [=](int64_t group, double half_range, const kernels::Rounding& r) {
    return [=]() -> Tensors {  // divided by a tensor: LibTorch multiplies by a number's inverse
      const at::Tensor peak = x.view({N, -1, group}).abs().amax(-1), half = at::full_like(peak, half_range);
      return under((peak / half).to(at::kHalf).to(at::kFloat).clamp_min(0x1p-24), group, r);
    };
  };
  const auto values = [=, &ops](const kernels::ScaleFit& fit, const kernels::Rounding& r) {
    return [=, &ops]() -> Tensors {
      const at::Tensor y = at::empty_like(x, at::kBFloat16);
      ops.fake_quantize(fit, r, x, y);
      return {y};
    };
  };
  const Work rows_given = [=, &ops]() -> Tensors {
    const at::Tensor y = at::empty_like(x, at::kBFloat16);
    ops.fake_quantize_rows(four, x, given, y);
    return {y};
  };
  const Work backward = [=]() -> Tensors {
    const at::Tensor y = (x / given).round().clamp(-8, 7) * given;
    const at::Tensor inside = (x >= -8 * given).logical_and(x <= 7 * given).to(at::kFloat);
    return {g * inside, (g * (y - inside * x)).to(at::kDouble).sum(-1, true)};
  };
  const std::string shape = fmt::format("{} x {}", N, D);
  const double count = count_of(N, D);
  return {
      {"int4 grid, groups of 32", shape, 6 * count, values({Fit::kInteger, 32, 7.5}, four),
       integers(32, 7.5, four), 0, integers(32, 7.5, four)},
      {"int8 grid, rows", shape, 6 * count, values({Fit::kInteger, 0, 127.5}, eight),
       integers(D, 127.5, eight), 0, integers(D, 127.5, eight)},
      {"rows' means", shape, 4 * count, [=, &ops]() -> Tensors { return {ops.row_scales(Fit::kMean, x)}; },
       [=]() -> Tensors { return {x.to(at::kDouble).abs().mean(-1, true)}; }, 0x1p-10},
      {"ternary grid of a tensor", shape, 10 * count, values({Fit::kMeanOfAll}, three),
       [=, &ops] { return under(ops.row_scales(Fit::kMeanOfAll, x), D, three); }, 0},
      {"learned 4-bit grid", shape, 6 * count, rows_given, [=] { return under(given, D, four); }, 0,
       [=] { return under(given, D, four); }},
      {"learned 4-bit grid, backward", shape, 12 * count,
       [=, &ops]() -> Tensors {
         const at::Tensor out = at::empty_like(g);
         return {out, ops.round_backward(x, given, g, {four, -8, 7, true}, out)};
       },
       backward, 1e-4, backward}};
}

// Of the other formulas that a device has for scales, checked by the CPU's own grids.
std::vector<Row> fitted_grids(const Ops& ops, const Place& place) {
  const int64_t N = place.size(4096, 3), D = place.size(4096, 256);
  const at::Tensor x = place.normal({N, D}, at::kFloat) * 0.02;
  std::vector<Row> out;
  for (const char* name : {"q8_0", "q4_0", "q4_1", "fp8"}) {
    const quantize::Grid& grid = quantize::grids().at(name);
    const kernels::ScaleFit fit = quantize::device_fit(grid).value();
    const auto ours = [=, &ops, &grid]() -> Tensors {
      const at::Tensor y = at::empty_like(x, at::kBFloat16);
      ops.fake_quantize(fit, grid.rounding, x, y);
      return {y};
    };
    const auto exact = [=, &grid]() -> Tensors {
      const at::Tensor host = x.cpu(), values = at::empty_like(host);
      grid.fake_quantize(host, values);
      return {values.to(at::kBFloat16).to(place.device)};
    };
    out.push_back(
        {fmt::format("{} grid", name), fmt::format("{} x {}", N, D), 6 * count_of(N, D), ours, exact, 0});
  }
  return out;
}

// Values of a frozen base's codes in bf16, exact ones by LibTorch in f32.
std::vector<Row> codes(const Ops& ops, const Place& place) {
  using kernels::PackedForm;
  const int64_t n = place.size(int64_t{14336} * 4096, 4096), N = n / 256;
  const auto bytes = place.options(at::kByte);
  const at::Tensor eight = at::randint(256, {n}, bytes), four = at::randint(256, {n / 2}, bytes),
                   scales = (at::rand({n / 32}, place.options(at::kFloat)) * 0.01).to(at::kHalf),
                   places = at::randint(256, {n / 64}, bytes),
                   groups = at::rand({(n / 64 + 255) / 256}, place.options(at::kFloat)),
                   sizes = at::linspace(-1, 1, 256, place.options(at::kFloat)),
                   map = at::linspace(-1, 1, 16, place.options(at::kFloat));
  const auto in_blocks = [=](const at::Tensor& values) -> Tensors {  // [n / 32, 32], of scales
    return {(values.to(at::kFloat) * scales.to(at::kFloat).unsqueeze(1)).to(at::kBFloat16).view({N, 256})};
  };
  const Work q8_0 = [=] { return in_blocks(eight.view(at::kChar).view({-1, 32})); };
  const at::Tensor low = at::bitwise_and(four, 15), high = at::bitwise_right_shift(four, 4);
  const Work q4_0 = [=] {
    return in_blocks(at::cat({low.view({-1, 16}), high.view({-1, 16})}, 1).to(at::kChar) - 8);
  };
  const Work nf4 = [=]() -> Tensors {
    const at::Tensor group = groups.repeat_interleave(256).slice(0, 0, n / 64);
    const at::Tensor size = sizes.index({places.to(at::kLong)}) * group + 0.5;
    const at::Tensor values = map.index({at::stack({high, low}, 1).to(at::kLong)}).view({-1, 64});
    return {(values * size.unsqueeze(1)).to(at::kBFloat16).view({N, 256})};
  };
  const auto row = [&](const char* name, double of_value, kernels::PackedCodes packed, Work exact) {
    return Row{name,
               fmt::format("{} x 256", N),
               of_value * static_cast<double>(n),
               [=, &ops]() -> Tensors {
                 const at::Tensor y = at::empty({N, 256}, place.options());
                 ops.unpack(packed, y);
                 return {y};
               },
               exact,
               0,
               exact};
  };
  return {row("values of q8_0 codes", 3.0625, {PackedForm::kQ8_0, eight, scales}, q8_0),
          row("values of q4_0 codes", 2.5625, {PackedForm::kQ4_0, four, scales}, q4_0),
          row("values of nf4 codes", 2.516, {PackedForm::kNf4, four, places, groups, sizes, map, 0.5f}, nf4)};
}

}  // namespace

std::vector<Rows> grid_rows() { return {grids, fitted_grids, codes}; }

}  // namespace retort::bench
