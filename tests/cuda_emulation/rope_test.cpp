#include <gtest/gtest.h>

#include "kernels/reference.h"
#include "kernels/rope.h"
#include "tests/cuda_emulation/providers.h"

namespace retort::testing {
namespace {

using kernels::cuda::Ops;

// Heads whose halves are runs, one that is no multiple of a run, and more or fewer than a block's threads.
struct Shape {
  int64_t tokens, q_heads, k_heads, width;
};
const std::vector<Shape> kShapes = {
    {1, 1, 1, 2}, {5, 3, 1, 12}, {33, 4, 2, 16}, {7, 12, 12, 64}, {3, 40, 8, 128}};

TEST(CudaRope, TurnsQueriesAndKeysBothWays) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const Shape& s : kShapes) {
      const auto tables = kernels::rope_tables(kernels::rope_frequencies(s.width, 10000.0, {}), 64);
      const at::Tensor positions = at::arange(s.tokens, at::kLong).mul(7).remainder(64);
      const at::Tensor q = normal({s.tokens, s.q_heads, s.width}, 1).to(dtype),
                       k = normal({s.tokens, s.k_heads, s.width}, 2).to(dtype);
      const auto turned = [&](double sign, const Tensors& pair) -> KernelRun {
        return [&, sign, pair](const Ops& ops, const at::Device& device) -> Tensors {
          const auto [a, b] =
              ops.rope(placed(pair[0], device), placed(pair[1], device), placed(tables.cos_PK, device),
                       placed(tables.sin_PK, device), placed(positions, device), sign);
          return {a, b};
        };
      };
      const Operation plain = [&](const Tensors& t) {
        return kernels::reference::rope(t[0].unsqueeze(0), tables, positions.unsqueeze(0)).squeeze(0);
      };
      const std::string what = fmt::format("{} {} heads of {}", toString(dtype), s.q_heads, s.width);
      const Tensors back{direction_of(q.sizes(), dtype), direction_of(k.sizes(), dtype)};
      Tensors forward;
      everywhere(what, turned(1.0, {q, k}), [&](const Tensors& got) { forward = got; });
      everywhere(what, turned(-1.0, back), [&](const Tensors& got) {
        expect_no_worse(what + " q", {forward[0], got[0]}, plain, {q}, dtype);
        expect_no_worse(what + " k", {forward[1], got[1]}, plain, {k}, dtype);
      });
    }
}

// Columns of one product: the same bits as of dense queries and keys, in runs and one by one.
TEST(CudaRope, TakesTokensThatAreApart) {
  for (const int64_t width : {16, 12})
    for (const int64_t before : {0, 8, 3}) {
      const auto tables = kernels::rope_tables(kernels::rope_frequencies(width, 10000.0, {}), 8);
      const at::Tensor positions = at::arange(5, at::kLong),
                       all = normal({5, before + 5 * width}, 1).to(at::kBFloat16);
      const auto turned = [&](bool dense) -> KernelRun {
        return [&, dense](const Ops& ops, const at::Device& device) -> Tensors {
          const at::Tensor there = placed(all, device);
          const auto heads = [&](int64_t first, int64_t count) {
            const at::Tensor x =
                there.narrow(1, before + first * width, count * width).unflatten(1, {count, width});
            return dense ? x.contiguous() : x;
          };
          const auto [q, k] = ops.rope(heads(0, 3), heads(3, 2), placed(tables.cos_PK, device),
                                       placed(tables.sin_PK, device), placed(positions, device), 1.0);
          return {q, k};
        };
      };
      Tensors want;
      everywhere("dense", turned(true), [&](const Tensors& got) { want = got; });
      everywhere(fmt::format("{} after {}", width, before), turned(false), [&](const Tensors& got) {
        EXPECT_TRUE(same_bits(got[0], want[0]));
        EXPECT_TRUE(same_bits(got[1], want[1]));
      });
    }
}

}  // namespace
}  // namespace retort::testing
