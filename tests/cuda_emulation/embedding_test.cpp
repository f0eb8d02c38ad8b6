#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "tests/cuda_emulation/providers.h"

namespace retort::testing {
namespace {

using kernels::cuda::Ops;

void expect_sums(const std::string& what, const at::Tensor& dy, const at::Tensor& ids, int64_t vocabulary) {
  const at::Tensor before = normal({vocabulary, dy.size(1)}, 9).to(at::kFloat);
  const auto added = [&](at::ScalarType dtype) { return before.to(dtype).index_add(0, ids, dy.to(dtype)); };
  everywhere(
      what,
      [&](const Ops& ops, const at::Device& device) -> Tensors {
        const at::Tensor dw = placed(before, device);
        ops.embedding_backward(placed(dy, device), placed(ids, device), dw);
        return {dw};
      },
      [&](const Tensors& got) { expect_no_worse(what, got, {added(at::kFloat)}, {added(at::kDouble)}); });
}

// Few ids and many, so that runs of one id are short, longer than a warp, and longer than a block.
TEST(CudaEmbedding, AddsRowsByTheirIds) {
  const at::Generator generator = at::detail::createCPUGenerator(1);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t width : {1, 24, 31, 264})
      for (const int64_t vocabulary : {1, 3, 40, 500})
        for (const int64_t tokens : {1, 33, 300})
          expect_sums(fmt::format("{} {} of {}, {} tokens", toString(dtype), vocabulary, width, tokens),
                      normal({tokens, width}, 2).to(dtype),
                      at::randint(vocabulary, {tokens}, generator, at::kLong), vocabulary);
}

// Runs that end exactly where a warp's look ends, and the last place of all.
TEST(CudaEmbedding, FindsWhereRunsEnd) {
  std::vector<int64_t> ids;
  for (const int64_t length : {31, 32, 33, 1, 64, 8, 257})
    ids.insert(ids.end(), static_cast<size_t>(length), length);
  const at::Tensor all = at::tensor(ids, at::kLong);
  expect_sums("ends", normal({all.size(0), 8}, 3).to(at::kFloat), all, 300);
}

}  // namespace
}  // namespace retort::testing
