#include "quantize/recover.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"
#include "core/host_tensor.h"

namespace retort::quantize {
namespace {

using kernels::RoundRule;

// The whole numbers that codes may be.
struct Levels {
  float lowest, highest;
  bool odd = false;
  float formula = 0;  // the code of the value of largest magnitude by ggml's formula; 0: the grid has none
  bool mirrored = false;  // it is that code for either sign, under a negative scale

  float nearest(float x) const {
    const float code = odd ? 2 * std::nearbyint((x - 1) / 2) + 1 : std::nearbyint(x);
    return std::clamp(code, lowest, highest);
  }
};

bool scanned(RoundRule rule) {
  using enum RoundRule;
  return rule == kNearestEven || rule == kNearestAway || rule == kTruncate || rule == kOdd || rule == kSign;
}

Levels levels_of(const kernels::Rounding& rounding) {
  using enum RoundRule;
  Levels out{static_cast<float>(rounding.lowest), static_cast<float>(rounding.highest)};
  out.odd = rounding.rule == kOdd || rounding.rule == kSign;
  if (rounding.rule == kTruncate) out.formula = out.lowest, out.mirrored = true;
  if (rounding.rule == kNearestAway) out.formula = out.highest;
  return out;
}

// What a checkpoint of the type holds of a value.
struct AsFloat {
  static float cast(float x) { return x; }
};
struct AsHalf {
  static float cast(float x) { return static_cast<float>(c10::Half(x)); }
};
struct AsBfloat {
  static float cast(float x) { return static_cast<float>(c10::BFloat16(x)); }
};

float half_of(int bits) {
  return static_cast<float>(c10::Half(static_cast<uint16_t>(bits), c10::Half::from_bits()));
}

constexpr int kLargestHalf = 0x7bff;

// The values of one group.
template <class Precision>
class Group {
 public:
  Group(const float* w, int64_t size, const Levels& levels) : w_(w), size_(size), levels_(levels) {
    for (int64_t j = 0; j < size; ++j) {
      if (std::fabs(w[j]) > std::fabs(peak_)) peak_ = w[j];
      if (w[j] != 0) least_ = std::min(least_, std::fabs(w[j]));
    }
  }

  // The scale; 0 where there is none.
  float scale() const {
    if (peak_ == 0) return 0;
    // The least value is a whole scale at least, so that the peak's code is no less than this, but for rounding.
    const float fewest = std::fabs(peak_) / least_ * (1 - 0x1p-7f);
    if (levels_.formula != 0 && std::fabs(levels_.formula) >= fewest) {
      const float code = levels_.mirrored ? levels_.formula : std::copysign(levels_.formula, peak_);
      if (const float found = scale_with(code); found != 0) return found;
    }
    const float most = peak_ > 0 ? levels_.highest : -levels_.lowest;
    for (float size = 1; size <= most; size += levels_.odd ? 2 : 1) {
      if (size < fewest) continue;
      if (const float found = scale_with(std::copysign(size, peak_)); found != 0) return found;
    }
    return 0;
  }

 private:
  // With this code for the peak.
  float scale_with(float code) const {
    const float near = std::fabs(peak_ / code);
    if (!(near <= half_of(kLargestHalf))) return 0;
    const auto sign = static_cast<float>(std::signbit(peak_) == std::signbit(code) ? 1 : -1);
    const auto gives_peak = [&](int bits) {
      return bits > 0 && bits <= kLargestHalf && Precision::cast(sign * half_of(bits) * code) == peak_;
    };
    const int middle = c10::Half(near).x;
    int first = middle, last = middle;
    while (gives_peak(first - 1)) --first;
    while (gives_peak(last + 1)) ++last;
    std::vector<float> fitting;
    for (int bits = first; bits <= last; ++bits) {
      if (bits == middle && !gives_peak(bits)) continue;
      const float scale = sign * half_of(bits);
      if (!gives_all(scale)) continue;
      if (is_exact(scale)) return scale;
      fitting.push_back(scale);
    }
    return fitting.empty() ? 0 : fitting[fitting.size() / 2];
  }

  bool gives_all(float scale) const {
    for (int64_t j = 0; j < size_; ++j)
      if (Precision::cast(scale * levels_.nearest(w_[j] / scale)) != w_[j]) return false;
    return true;
  }
  bool is_exact(float scale) const {
    for (int64_t j = 0; j < size_; ++j)
      if (scale * levels_.nearest(w_[j] / scale) != w_[j]) return false;
    return true;
  }

  const float* w_;
  int64_t size_;
  const Levels& levels_;
  float peak_ = 0, least_ = std::numeric_limits<float>::infinity();  // of the values that are not 0
};

// f16 numbers around `near` of its sign that a condition holds for, as bits without the sign: [first, last], empty where
// first > last. The condition holds for a run of numbers, if at all.
struct Run {
  int first, last;
};
template <class Condition>
Run run_around(float near, const Condition& holds) {
  const int middle = c10::Half(near).x & 0x7fff;
  Run out{middle, middle};
  while (out.first > 0 && holds(out.first - 1)) --out.first;
  while (out.last < kLargestHalf && holds(out.last + 1)) ++out.last;
  if (middle > kLargestHalf || !holds(middle)) {  // a neighbour may still do
    if (out.last > middle) return {middle + 1, out.last};
    return {out.first, middle - 1};
  }
  return out;
}

struct ScaleAndOffset {
  float scale = 0, offset = 0;  // scale 0: none
};

// The values of one group of a grid with offsets: the least has the lowest code, which is 0, and so is the offset; the
// largest has the highest code, else the first below it that fits.
template <class Precision>
class OffsetGroup {
 public:
  OffsetGroup(const float* w, int64_t size, float highest) : w_(w), size_(size), highest_(highest) {
    const auto [least, most] = std::minmax_element(w, w + size);
    least_ = *least, most_ = *most;
  }

  ScaleAndOffset find() const {
    if (least_ == most_) return {};
    const float sign = std::signbit(least_) ? -1.0f : 1.0f;
    const Run offsets =
        run_around(least_, [&](int bits) { return Precision::cast(sign * half_of(bits)) == least_; });
    for (float code = highest_; code >= 1; --code) {
      std::vector<ScaleAndOffset> fitting;
      for (int bits = offsets.first; bits <= offsets.last; ++bits) {
        const float offset = sign * half_of(bits);
        const Run scales = run_around((most_ - offset) / code, [&](int b) {
          return b > 0 && Precision::cast(half_of(b) * code + offset) == most_;
        });
        for (int b = scales.first; b <= scales.last; ++b) {
          const ScaleAndOffset one{half_of(b), offset};
          if (!gives_all<Precision>(one)) continue;
          if (gives_all<AsFloat>(one)) return one;
          fitting.push_back(one);
        }
      }
      if (!fitting.empty()) return fitting[fitting.size() / 2];
    }
    return {};
  }

 private:
  template <class Cast>
  bool gives_all(const ScaleAndOffset& by) const {
    for (int64_t j = 0; j < size_; ++j) {
      const float code = std::clamp(std::nearbyint((w_[j] - by.offset) / by.scale), 0.0f, highest_);
      if (Cast::cast(by.scale * code + by.offset) != w_[j]) return false;
    }
    return true;
  }

  const float* w_;
  int64_t size_;
  float highest_, least_ = 0, most_ = 0;
};

template <class Precision>
void find_offsets(const float* w, int64_t size, float highest, float* scale, float* offset, int64_t begin,
                  int64_t end) {
  for (int64_t g = begin; g < end; ++g) {
    const ScaleAndOffset found = OffsetGroup<Precision>(w + g * size, size, highest).find();
    scale[g] = found.scale, offset[g] = found.offset;
  }
}

// The same of a grid with offsets, whose own fit is in `scales`.
Scales find_offsets(const at::Tensor& w, const Scales& fitted, float highest, at::ScalarType precision) {
  Scales out{at::empty_like(fitted.scale), at::empty_like(fitted.offset), {}, {}};
  const float* values = host_values<const float>(w).data();
  float *scale = host_values<float>(out.scale).data(), *offset = host_values<float>(out.offset).data();
  const int64_t size = w.numel() / fitted.scale.numel();
  const auto find = precision == at::kBFloat16 ? find_offsets<AsBfloat>
                    : precision == at::kHalf   ? find_offsets<AsHalf>
                                               : find_offsets<AsFloat>;
  at::parallel_for(0, out.scale.numel(), 1, [&](int64_t begin, int64_t end) {
    find(values, size, highest, scale, offset, begin, end);
  });
  return out;
}

template <class Precision>
void find_scales(const float* w, int64_t size, const Levels& levels, float* scale, int64_t begin,
                 int64_t end) {
  for (int64_t g = begin; g < end; ++g) scale[g] = Group<Precision>(w + g * size, size, levels).scale();
}

// One a group of `size` consecutive values; 0 where there is none.
at::Tensor find_scales(const at::Tensor& w, int64_t size, const Levels& levels, at::ScalarType precision) {
  at::Tensor out = at::empty({w.numel() / size}, at::kFloat);
  const float* values = host_values<const float>(w).data();
  float* scale = host_values<float>(out).data();
  const auto find = precision == at::kBFloat16 ? find_scales<AsBfloat>
                    : precision == at::kHalf   ? find_scales<AsHalf>
                                               : find_scales<AsFloat>;
  at::parallel_for(0, out.numel(), 1,
                   [&](int64_t begin, int64_t end) { find(values, size, levels, scale, begin, end); });
  return out;
}

at::ScalarType narrowest(const at::Tensor& w) {
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf})
    if (w.to(type).to(at::kFloat).equal(w)) return type;
  return at::kFloat;
}

}  // namespace

std::string recovery_misfit(const Grid& grid) {
  // The formula of kFloat4 finds its own values again.
  const auto tells = [](const Grid& one) {
    return !one.searches && (scanned(one.rounding.rule) || one.rounding.rule == RoundRule::kFloat4);
  };
  if (tells(grid)) return "";
  std::vector<std::string> known;
  for (const Grid& other : grids())
    if (tells(other)) known.push_back(other.name);
  return fmt::format("codes can be recovered on {}; the scales of {} have parts that values do not tell",
                     fmt::join(known, ", "), grid.name);
}

Recovered recover(const at::Tensor& w, const Grid& grid) {
  const at::NoGradGuard no_grad;
  RETORT_ASSERT(recovery_misfit(grid).empty() && w.is_contiguous() && w.scalar_type() == at::kFloat);
  Recovered out{.quantized = grid.quantize(w), .precision = narrowest(w)};
  Scales& scales = out.quantized.scales;
  const at::Tensor given = dequantize_blocks(out.quantized).to(out.precision).to(at::kFloat);
  const int64_t width = w.size(-1) / scales.groups();
  out.found = given.eq(w).unflatten(-1, {scales.groups(), width}).all(-1);
  if (!grid.rows_alone) out.found = out.found.all().expand_as(out.found).contiguous();
  if (!scanned(grid.rounding.rule) || w.numel() == 0) return out;

  const Levels levels = levels_of(grid.rounding);
  Scales own{{}, {}, {}, {}};
  if (scales.offset.defined())
    own = find_offsets(w, scales, levels.highest, out.precision);
  else
    own.scale = grid.rows_alone ? find_scales(w, width, levels, out.precision).view(scales.scale.sizes())
                                : find_scales(w, w.numel(), levels, out.precision).expand_as(scales.scale);
  const at::Tensor there = own.scale != 0;
  out.found = out.found.logical_or(there);
  own.scale = at::where(there, own.scale, scales.scale).contiguous();
  if (own.offset.defined()) {
    own.offset = at::where(there, own.offset, scales.offset).contiguous();
    own.header = own.offset.to(at::kHalf).view(at::kByte);  // as the grid's own fit has it
  }
  const at::Tensor codes = kernels::round_codes(
      w, own,
      {levels.odd ? RoundRule::kOdd : RoundRule::kNearestEven, grid.rounding.lowest, grid.rounding.highest});
  const at::Tensor over_columns = there.repeat_interleave(width, -1);
  out.quantized = {at::where(over_columns, codes, out.quantized.codes), own};
  return out;
}

}  // namespace retort::quantize
