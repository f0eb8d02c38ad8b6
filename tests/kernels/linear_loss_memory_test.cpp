// The promise of kernels/linear_loss.h that nothing of size [N, V] exists, held by the kernel's own count of
// resident pages.
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/linear_loss.h"
#include "kernels/row_losses.h"
#include "tests/kernels/gradcheck.h"
#include "tests/process_memory.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

// N = 65536, V = 8192: an [N, V] tensor is 2 GiB in f32, 1 GiB in bf16 and 512 MiB in one byte. All inputs
// and gradients together are 9 MiB.
TEST(LinearLossMemory, IsFlatInTheNumberOfRows) {
  RETORT_NEEDS_COUNTED_MEMORY();
  const Threads two_threads(2);  // each has buffers of its own
  const int64_t n = 65536, v = 8192, d = 16;
  const at::Tensor h = normal({n, d}, 1).to(at::kFloat).requires_grad_(true);
  const at::Tensor w = normal({v, d}, 2, 0.3).to(at::kFloat).requires_grad_(true);
  const at::Tensor labels = random_labels(n, v, 3, 10);
  const int64_t growth = peak_growth([&] {
    torch::autograd::grad({linear_cross_entropy(h, w, labels)}, {h, w});
  });
  ASSERT_GT(growth, 0);
  EXPECT_LT(growth, 128 * kMiB);
}

TEST(LinearLossMemory, IsFlatForDistillationToo) {
  RETORT_NEEDS_COUNTED_MEMORY();
  const Threads two_threads(2);               // each has buffers of its own
  const int64_t n = 16384, v = 8192, d = 16;  // [N, V] in f32: 512 MiB
  const at::Tensor h = normal({n, d}, 1).to(at::kFloat).requires_grad_(true);
  const at::Tensor w = normal({v, d}, 2, 0.3).to(at::kFloat).requires_grad_(true);
  const TeacherSignal teacher{
      .heads = {{normal({n, d}, 4).to(at::kFloat), normal({v, d}, 5, 0.3).to(at::kFloat)}}};
  const at::Tensor labels = random_labels(n, v, 3);
  const int64_t growth = peak_growth([&] {
    torch::autograd::grad({linear_distill(h, w, teacher, labels, {{forward_kl_rows(1.0), 1.0}}).sum}, {h, w});
  });
  EXPECT_LT(growth, 128 * kMiB);
}

}  // namespace
}  // namespace retort::kernels
