#include "formats/nf4.h"

#include <algorithm>
#include <cmath>

namespace retort::formats {
namespace {

constexpr int64_t kBlock = 64, kGroup = 256;

// [n, count], filled up with zeros.
at::Tensor in_blocks(const at::Tensor& x, int64_t count) {
  const at::Tensor flat = x.reshape({-1});
  const int64_t missing = (count - flat.numel() % count) % count;
  return at::constant_pad_nd(flat, {0, missing}).view({-1, count});
}

// Of 0 where all of a block is 0, any size will do.
at::Tensor largest(const at::Tensor& blocks) { return blocks.abs().amax(1); }
at::Tensor divided(const at::Tensor& blocks, const at::Tensor& size) {
  return blocks / at::where(size > 0, size, at::ones_like(size)).unsqueeze(1);
}

// The number of the nearest entry, the lower one of two. f32 distances say which is nearer, as in bitsandbytes: their
// rounding is not that of the entries' middle.
at::Tensor nearest(const at::Tensor& x, const at::Tensor& map) {
  const at::Tensor inner = map.slice(0, 1);  // those that are not below all
  const at::Tensor left = at::bucketize(x, inner, /*out_int32=*/false, /*right=*/true);
  const at::Tensor right = (left + 1).clamp_max_(map.size(0) - 1);
  const at::Tensor nearer = (map.index({right}) - x).abs() < (map.index({left}) - x).abs();
  return at::where(nearer, right, left).to(at::kByte);
}

// LibTorch's sum of a whole tensor follows the threads from some size on, so it is asked for less.
float mean_of(const at::Tensor& x) {
  constexpr int64_t kAlone = 16384;
  float sum = 0;
  for (int64_t begin = 0; begin < x.numel(); begin += kAlone)
    sum += x.slice(0, begin, begin + kAlone).sum().item<float>();
  return sum / static_cast<float>(x.numel());
}

at::Tensor entries(const at::Tensor& map, const at::Tensor& numbers) {
  return at::embedding(map.view({map.size(0), -1}), numbers.to(at::kInt));
}

// The two values of each byte of codes, [256, 2].
at::Tensor pair_map() {
  const at::Tensor map = nf4_map();
  return at::stack({map.repeat_interleave(16), map.repeat({16})}, 1);
}

}  // namespace

at::Tensor nf4_map() {
  return at::tensor({-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                     -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                     0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
                     0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f});
}

// For i = 0 .. 6 the middles of 2^i equal parts of [0.1, 1], times 10^(i - 6), of both signs; with 0 and 1.
at::Tensor byte_map() {
  std::vector<float> values = {0.0f, 1.0f};
  for (int64_t i = 0; i < 7; ++i) {
    const at::Tensor edges = at::linspace(0.1, 1.0, (int64_t{1} << i) + 1, at::kFloat);
    const at::Tensor middles = (edges.slice(0, 0, -1) + edges.slice(0, 1)) / 2.0;
    const at::Tensor scaled = middles * std::pow(10.0, static_cast<double>(i - 6));
    for (int64_t k = 0; k < scaled.numel(); ++k)
      for (const float sign : {-1.0f, 1.0f}) values.push_back(sign * scaled[k].item<float>());
  }
  std::sort(values.begin(), values.end());
  return at::tensor(values);
}

Nf4Tensor pack_nf4(const at::Tensor& x) {
  const at::Tensor blocks = in_blocks(x, kBlock), size = largest(blocks);
  const at::Tensor codes = nearest(divided(blocks, size), nf4_map()).view({-1, 2});
  Nf4Tensor out;
  out.shape = x.sizes().vec();
  out.codes = codes.select(1, 0) * 16 + codes.select(1, 1);
  out.offset = mean_of(size);
  const at::Tensor groups = in_blocks(size - at::full({}, out.offset), kGroup);
  out.groups = largest(groups);
  out.sizes = nearest(divided(groups, out.groups), byte_map()).view({-1}).slice(0, 0, size.numel()).clone();
  return out;
}

at::Tensor unpack_nf4(const Nf4Tensor& packed) {
  static const at::Tensor pairs = pair_map(), bytes = byte_map();
  const int64_t blocks = packed.sizes.numel();
  const at::Tensor group = packed.groups.repeat_interleave(kGroup).slice(0, 0, blocks);
  const at::Tensor size = entries(bytes, packed.sizes).view({-1}) * group + packed.offset;
  const at::Tensor values = entries(pairs, packed.codes).view({blocks, kBlock}) * size.unsqueeze(1);
  const int64_t count = c10::multiply_integers(packed.shape);
  return values.view({-1}).slice(0, 0, count).view(packed.shape);
}

}  // namespace retort::formats
