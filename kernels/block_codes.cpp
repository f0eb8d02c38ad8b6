#include "kernels/block_codes.h"

#include <ATen/Parallel.h>

#include "core/each_target.h"
#include "core/error.h"
#include "core/shape.h"
#include "kernels/cuda_ops.h"
#include "kernels/rounding.h"

namespace retort::kernels {
namespace {

RETORT_EACH_TARGET
void multiply(const int8_t* __restrict codes, const float* scale, const float* offset, float* __restrict x,
              int64_t groups, int64_t group) {
  for (int64_t g = 0; g < groups; ++g, codes += group, x += group) {
    const float d = scale[g];
    if (offset != nullptr) {
      const float m = offset[g];
      for (int64_t j = 0; j < group; ++j) x[j] = d * static_cast<float>(codes[j]) + m;
    } else {
      for (int64_t j = 0; j < group; ++j) x[j] = d * static_cast<float>(codes[j]);
    }
  }
}

// body(begin, end) over groups, in parallel when there are enough of them.
template <class Body>
void for_groups(int64_t groups, int64_t group, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, at::internal::GRAIN_SIZE / std::max<int64_t>(1, group));
  at::parallel_for(0, groups, grain, body);
}

// The values a group, from the two shapes.
int64_t group_of(const char* where, const at::Tensor& x, const BlockScales& s) {
  const at::Tensor& scale = s.scale;
  check(scale.defined() && scale.scalar_type() == at::kFloat && x.dim() > 0 && x.dim() == scale.dim() &&
            x.sizes().slice(0, x.dim() - 1) == scale.sizes().slice(0, scale.dim() - 1) &&
            (scale.size(-1) == 0 ? x.size(-1) == 0 : x.size(-1) % scale.size(-1) == 0),
        "[{}] scales must be f32 [.., groups] for [.., row], groups dividing row; got {} for {}", where,
        scale.defined() ? format_shape(scale.sizes()) : "none", format_shape(x.sizes()));
  for (const at::Tensor* other : {&s.offset, &s.divisor})
    check(!other->defined() || (other->scalar_type() == at::kFloat && other->sizes() == scale.sizes()),
          "[{}] offset and divisor must be f32 {}, as the scale", where, format_shape(scale.sizes()));
  return scale.size(-1) == 0 ? 1 : x.size(-1) / scale.size(-1);
}

const float* pointer(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; }
at::Tensor dense(const at::Tensor& t) { return t.defined() ? t.contiguous() : t; }

void check_input(const char* where, const at::Tensor& x) {
  check(x.defined() && x.scalar_type() == at::kFloat && x.device().is_cpu(),
        "[{}] x must be f32 on the CPU, got {}", where, x.defined() ? x.toString() : "an undefined tensor");
}

// round_values() where a device has kernels: under one scale a row, values f32 or bf16.
void round_rows_there(const cuda::Ops& ops, const at::Tensor& x, const BlockScales& scales,
                      const Rounding& rounding, const at::Tensor& values) {
  check(x.scalar_type() == at::kFloat && cuda::ops_for(values) == &ops && values.is_contiguous() &&
            values.sizes() == x.sizes(),
        "[round_values] on a device x must be f32, values dense f32 or bf16 of its shape; got {} for {}",
        values.toString(), x.toString());
  group_of("round_values", x, scales);
  check(scales.groups() == 1 && !scales.offset.defined() && !scales.divisor.defined() &&
            scales.scale.device() == x.device(),
        "[round_values] on a device scales must be one a row, there, without offset or divisor");
  if (x.numel() > 0) ops.fake_quantize_rows(rounding, x.contiguous(), dense(scales.scale), values);
}

at::Tensor over_columns(const at::Tensor& t, int64_t group) { return t.repeat_interleave(group, -1); }

at::Tensor round_float8(const at::Tensor& x, const at::Tensor& divisor, int64_t group) {
  const at::Tensor d = over_columns(divisor, group);
  const at::Tensor v = at::where(d == 0, at::zeros_like(x), x / d);
  return v.clamp(-448.0, 448.0).to(at::kFloat8_e4m3fn);
}

}  // namespace

BlockScales BlockScales::group(int64_t g) const {
  const auto one = [&](const at::Tensor& t) { return t.defined() ? t.narrow(-1, g, 1) : t; };
  return {one(scale), one(offset), one(divisor), {}};
}

BlockScales concatenate(const std::vector<BlockScales>& parts) {
  const auto joined = [&](at::Tensor BlockScales::*member) {
    std::vector<at::Tensor> tensors;
    for (const BlockScales& part : parts)
      if ((part.*member).defined()) tensors.push_back(part.*member);
    check(tensors.empty() || tensors.size() == parts.size(), "[concatenate] scales of two kinds");
    return tensors.empty() ? at::Tensor() : at::cat(tensors, -1);
  };
  return {joined(&BlockScales::scale), joined(&BlockScales::offset), joined(&BlockScales::divisor),
          joined(&BlockScales::header)};
}

at::Tensor dequantize_blocks(const BlockCodes& blocks) {
  const int64_t group = group_of("dequantize_blocks", blocks.codes, blocks.scales);
  const at::Tensor scale = dense(blocks.scales.scale), offset = dense(blocks.scales.offset);
  if (blocks.codes.scalar_type() == at::kFloat8_e4m3fn)
    return blocks.codes.to(at::kFloat).mul_(over_columns(scale, group));
  check(blocks.codes.scalar_type() == at::kChar,
        "[dequantize_blocks] codes must be i8 or float8_e4m3fn, got {}", blocks.codes.toString());
  const at::Tensor codes = blocks.codes.contiguous();
  at::Tensor out = at::empty(codes.sizes(), at::kFloat);
  const int8_t* c = codes.const_data_ptr<int8_t>();
  const float *d = pointer(scale), *m = pointer(offset);
  float* x = out.mutable_data_ptr<float>();
  for_groups(scale.numel(), group, [&](int64_t begin, int64_t end) {
    multiply(c + begin * group, d + begin, m ? m + begin : nullptr, x + begin * group, end - begin, group);
  });
  return out;
}

at::Tensor round_codes(const at::Tensor& x, const BlockScales& scales, const Rounding& rounding) {
  check_input("round_codes", x);
  const int64_t group = group_of("round_codes", x, scales);
  const at::Tensor divisor = dense(scales.rounding_divisor()), offset = dense(scales.offset);
  if (rounding.rule == RoundRule::kFloat8) return round_float8(x, divisor, group);
  const at::Tensor values = x.contiguous();
  at::Tensor out = at::empty(x.sizes(), at::kChar);
  const float *v = pointer(values), *d = pointer(divisor), *m = pointer(offset);
  int8_t* codes = out.mutable_data_ptr<int8_t>();
  for_groups(divisor.numel(), group, [&](int64_t begin, int64_t end) {
    round_groups(v + begin * group, d + begin, m ? m + begin : nullptr, codes + begin * group, end - begin,
                 group, rounding);
  });
  return out;
}

void round_values(const at::Tensor& x, const BlockScales& scales, const Rounding& rounding,
                  const at::Tensor& values) {
  if (const cuda::Ops* const ops = cuda::ops_for(x))
    return round_rows_there(*ops, x, scales, rounding, values);
  check_input("round_values", x);
  check(values.scalar_type() == at::kFloat && values.is_contiguous() && values.sizes() == x.sizes(),
        "[round_values] values must be dense f32 {}, got {} {}", format_shape(x.sizes()), values.toString(),
        format_shape(values.sizes()));
  const int64_t group = group_of("round_values", x, scales);
  const at::Tensor input = x.contiguous(), scale = dense(scales.scale), offset = dense(scales.offset),
                   divisor = dense(scales.rounding_divisor());
  const float *v = pointer(input), *d = pointer(divisor), *s = pointer(scale), *m = pointer(offset);
  float* out = values.mutable_data_ptr<float>();
  for_groups(scale.numel(), group, [&](int64_t begin, int64_t end) {
    round_to_values(v + begin * group, d + begin, s + begin, m ? m + begin : nullptr, out + begin * group,
                    end - begin, group, rounding);
  });
}

}  // namespace retort::kernels
