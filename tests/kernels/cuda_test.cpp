// The room's operations on a device against the same fp64 oracle as the CPU's. Without one they skip aloud;
// tests/cuda_emulation runs every kernel without one.
#include <gtest/gtest.h>

#include <cmath>

#include "core/cuda_plugin.h"
#include "core/error.h"
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/table.h"
#include "kernels/cuda_ops.h"
#include "kernels/device_graph.h"
#include "kernels/linear_loss.h"
#include "kernels/norm.h"
#include "kernels/reference.h"
#include "kernels/row_losses.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

// Other tests run backward passes: the device must be known before them.
class LoadCuda final : public ::testing::Environment {
  void SetUp() override { cuda::load(); }
};
const ::testing::Environment* const kLoadCuda = ::testing::AddGlobalTestEnvironment(new LoadCuda);

#define RETORT_NEEDS_CUDA() \
  if (const std::string why = cuda::load(); !why.empty()) GTEST_SKIP() << why

// Runs `operation` on the device, for inputs and results on the host. fp64 stays on the host.
Operation on_device(const Operation& operation) {
  return [operation](const Tensors& inputs) {
    if (inputs[0].scalar_type() == at::kDouble) return operation(inputs);
    Tensors moved;
    for (const at::Tensor& input : inputs) moved.push_back(input.to(at::kCUDA));
    return operation(moved).to(at::kCPU);
  };
}

TEST(Cuda, AnswersWithoutADevice) {
  EXPECT_FALSE(cuda::takes(at::zeros({2, 2})));
  EXPECT_EQ(graphs_for(at::kCPU), nullptr);
  EXPECT_EQ(cuda::load().empty(), at::hasCUDA());
  if (!CudaPlugin::get().missing().empty()) {
    EXPECT_EQ(cuda::load(), CudaPlugin::get().missing());
    EXPECT_THROW(cuda::device_ops(), InternalError);
  } else {
    const cuda::Ops& ops = cuda::device_ops();
    EXPECT_STREQ(ops.table().name, "device");
    EXPECT_NE(ops.table().adamw, nullptr);
  }
}

TEST(Cuda, RmsNormMatchesFp64) {
  RETORT_NEEDS_CUDA();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (int64_t n : {1, 5, 1025})
      for (int64_t d : {7, 256, 1031})
        expect_as_good(
            fmt::format("{}x{}", n, d),
            on_device([](const Tensors& t) { return rms_norm(t[0], t[1], 1e-5); }),
            [](const Tensors& t) { return reference::rms_norm(t[0], t[1], 1e-5, false); },
            {normal({n, d}, 1), normal({d}, 2)}, dtype);
}

TEST(Cuda, GatesMatchFp64) {
  RETORT_NEEDS_CUDA();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (int64_t n : {1, 77, 1025}) {
      const Tensors inputs{normal({n, 123}, 1, 3.0), normal({n, 123}, 2)};
      expect_as_good(
          "swiglu", on_device([](const Tensors& t) { return swiglu(t[0], t[1]); }),
          [](const Tensors& t) { return reference::swiglu(t[0], t[1]); }, inputs, dtype);
      expect_as_good(
          "geglu", on_device([](const Tensors& t) { return geglu(t[0], t[1]); }),
          [](const Tensors& t) { return reference::geglu(t[0], t[1]); }, inputs, dtype);
      expect_as_good(
          "relu2glu", on_device([](const Tensors& t) { return relu2glu(t[0], t[1]); }),
          [](const Tensors& t) { return reference::relu2glu(t[0], t[1]); }, inputs, dtype);
    }
}

TEST(Cuda, LossesMatchFp64) {
  RETORT_NEEDS_CUDA();
  for (int64_t n : {5, 123})
    for (int64_t v : {3, 1031, 32000}) {
      const at::Tensor labels = random_labels(n, v, 7, 4);
      const at::Tensor hidden = normal({n, 33}, 3), head = normal({v, 33}, 4, 0.3);
      const Operation ours = [&](const Tensors& t) {
        const auto like = [&](const at::Tensor& x) { return x.to(t[0].options().requires_grad(false)); };
        return linear_distill(t[0], t[1], {.heads = {{like(hidden), like(head)}}}, labels.to(t[0].device()),
                              {{cross_entropy_rows(), 0.25}, {forward_kl_rows(2.0), 0.75}}, {50})
            .sum;
      };
      const Operation plain = [&](const Tensors& t) {
        const at::Tensor student = at::matmul(t[0], t[1].t());
        const at::Tensor teacher = at::matmul(hidden.to(t[0].scalar_type()), head.to(t[0].scalar_type()).t());
        return 0.25 * reference::cross_entropy(student, labels) +
               0.75 * reference::forward_kl(student, teacher, labels, 2.0);
      };
      expect_as_good(fmt::format("distill {}x{}", n, v), on_device(ours), plain,
                     {normal({n, 64}, 1), normal({v, 64}, 2, 0.3)});
      expect_as_good(
          fmt::format("ce {}x{}", n, v), on_device([&](const Tensors& t) {
            return linear_cross_entropy(t[0], t[1], labels.to(t[0].device()));
          }),
          [&](const Tensors& t) { return reference::cross_entropy(at::matmul(t[0], t[1].t()), labels); },
          {normal({n, 64}, 1), normal({v, 64}, 2, 0.3)});
    }
}

// By LibTorch's flash kernels, whose gradients are to have the same bits each time.
TEST(Cuda, AttentionInDocumentsAndWindowsMatchesFp64) {
  RETORT_NEEDS_CUDA();
  struct Case {
    int64_t queries, keys, window;
    bool documents;
  };
  const Case cases[] = {{150, 150, 0, true},   {150, 150, 37, true}, {150, 150, 1, false},
                        {150, 150, 64, false}, {33, 150, 0, false},  {33, 150, 50, false}};
  for (const int64_t width : {16, 64, 128, 256})
    for (const Case& c : cases) {
      const at::Tensor q = normal({2, c.queries, 4, width}, 1), k = normal({2, c.keys, 2, width}, 2),
                       v = normal({2, c.keys, 2, width}, 3);
      AttentionMask here{.window = c.window}, there = here;
      if (c.documents) {
        const at::Tensor t = at::arange(c.keys, at::kLong);
        here.document_BS = at::stack({t.square().floor_divide(4 * c.keys), t.floor_divide(7)});
        there.document_BS = here.document_BS.to(at::kCUDA),
        there.lengths = document_lengths(here.document_BS);
        there.lengths.cumulative = there.lengths.cumulative.to(at::kCUDA);
      }
      const double scale = 1.0 / std::sqrt(static_cast<double>(width)),
                   terms = scale * k.abs().max().item<double>() * v.square().sum(-1).max().item<double>();
      const auto ours = on_device([&](const Tensors& x) {
        return attention(x[0], x[1], x[2], x[0].is_cuda() ? there : here, scale);
      });
      expect_as_good(
          fmt::format("T{} window {} documents {} K{}", c.queries, c.window, c.documents, width), ours,
          [&](const Tensors& x) { return reference::attention(x[0], x[1], x[2], here, scale); }, {q, k, v},
          at::kBFloat16, terms);
      const Outcome one = run(ours, {q, k, v}, at::kBFloat16), again = run(ours, {q, k, v}, at::kBFloat16);
      EXPECT_TRUE(same_bits(one.value, again.value));
      for (size_t i = 0; i < one.gradients.size(); ++i)
        EXPECT_TRUE(same_bits(one.gradients[i], again.gradients[i])) << i;
    }
}

}  // namespace
}  // namespace retort::kernels
