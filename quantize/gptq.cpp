// Weights are kept transposed, [I, O], so that a column is contiguous.
#include "quantize/gptq.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/host_tensor.h"
#include "core/shape.h"

namespace retort::quantize {
namespace {

constexpr int64_t kBlock = 128;

// A span begins where a block begins, or lies within one.
int64_t block_of(int64_t span) {
  if (span < kBlock) return kBlock / span * span;
  return span % kBlock == 0 ? kBlock : span;
}

void check_finite(const std::string& name, const char* what, const at::Tensor& t) {
  check<NonFiniteError>(at::isfinite(t).all().item<bool>(), "[gptq] {}: its {} must be finite", name, what);
}

// U of H^-1 = U^T U, f32, after damping. `order`: H's rows and columns, or undefined.
at::Tensor inverse_factor(const at::Tensor& second_moment_II, const at::Tensor& dead_I, double damping,
                          const at::Tensor& order) {
  at::Tensor h = second_moment_II.to(at::kDouble).clone();
  h.diagonal().masked_fill_(dead_I, 1.0);
  h.diagonal().add_(damping * h.diagonal().mean());
  if (order.defined()) h = h.index_select(0, order).index_select(1, order);
  h = at::linalg_cholesky(h);  // one name, so that two of them live at a time, not four
  h = at::cholesky_inverse(h);
  h = at::linalg_cholesky(h, /*upper=*/true);
  return h.to(at::kFloat);
}

// The scales of all spans, each fitted when it is asked for, and rounding under them.
class Spans {
 public:
  Spans(const Grid& grid, int64_t columns)
      : grid_(grid),
        width_(grid.span == 0 ? columns : grid.span),
        scales_(static_cast<size_t>(columns / width_)) {
    RETORT_ASSERT(columns % width_ == 0);
  }
  int64_t width() const { return width_; }
  bool begins(int64_t column) const { return column % width_ == 0; }
  // From weights in the format's order.
  void fit(const at::Tensor& w_IO, int64_t column) {
    scales_[static_cast<size_t>(column / width_)] =
        grid_.fit(w_IO.narrow(0, column, width_).t().contiguous(), {});
  }
  // The column's codes [O, 1] and the scales that they are under.
  Quantized round(const at::Tensor& w_O, int64_t column) const {
    const Scales& span = scales_[static_cast<size_t>(column / width_)];
    const int64_t group = column % width_ / (width_ / span.groups());
    const Scales own = span.groups() == 1 ? span : span.group(group);
    return {grid_.round(w_O.unsqueeze(1), own), own};
  }
  Scales all() const { return kernels::concatenate(scales_); }

 private:
  const Grid& grid_;
  int64_t width_;
  std::vector<Scales> scales_;
};

}  // namespace

Quantized gptq(const std::string& name, const at::Tensor& weight_OI, const at::Tensor& second_moment_II,
               const Grid& grid, const GptqOptions& options) {
  const at::NoGradGuard no_grad;
  const int64_t I = weight_OI.size(1);
  check_shape("gptq", "second_moment_II", second_moment_II, {I, I});
  check_finite(name, "weights", weight_OI);
  check_finite(name, "calibration inputs", second_moment_II);
  const at::Tensor dead_I = second_moment_II.diagonal().eq(0);
  at::Tensor w_IO = weight_OI.t().contiguous();
  w_IO.masked_fill_(dead_I.unsqueeze(1), 0.0);

  Spans spans(grid, I);
  std::vector<int64_t> order(static_cast<size_t>(I));
  std::iota(order.begin(), order.end(), 0);
  at::Tensor order_I;
  if (options.act_order) {
    for (int64_t column = 0; column < I; column += spans.width()) spans.fit(w_IO, column);
    order_I = at::argsort(second_moment_II.diagonal(), /*stable=*/true, 0, /*descending=*/true);
    std::ranges::copy(host_values<const int64_t>(order_I.cpu()), order.begin());
    w_IO = w_IO.index_select(0, order_I);
  }
  const at::Tensor u_II = inverse_factor(second_moment_II, dead_I, options.damping, order_I);
  const int64_t block = block_of(spans.width());
  at::Tensor codes_IO;
  for (int64_t begin = 0; begin < I; begin += block) {
    const int64_t end = std::min(begin + block, I);
    at::Tensor e_BO = at::empty({end - begin, w_IO.size(1)});
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = order[static_cast<size_t>(i)];
      if (!options.act_order && spans.begins(column)) spans.fit(w_IO, column);
      const Quantized rounded = spans.round(w_IO[i], column);
      if (!codes_IO.defined()) codes_IO = at::empty(w_IO.sizes(), rounded.codes.options());
      codes_IO[column].copy_(rounded.codes.squeeze(1));
      at::Tensor e_O = e_BO[i - begin];
      at::sub_out(e_O, w_IO[i], dequantize_blocks(rounded).squeeze(1)).div_(u_II[i][i]);
      if (i + 1 < end) w_IO.slice(0, i + 1, end).addr_(u_II[i].slice(0, i + 1, end), e_O, 1, -1);
    }
    if (end < I)
      w_IO.slice(0, end).addmm_(u_II.slice(0, begin, end).slice(1, end).t(), e_BO, /*beta=*/1, /*alpha=*/-1);
  }
  return {codes_IO.t().contiguous(), spans.all()};
}

double output_error(const at::Tensor& weight_OI, const at::Tensor& values_OI,
                    const at::Tensor& second_moment_II) {
  const at::Tensor e_OI = (weight_OI - values_OI).to(at::kDouble);
  return (at::matmul(e_OI, second_moment_II.to(at::kDouble)) * e_OI).sum().item<double>();
}

}  // namespace retort::quantize
