// The promise of kernels/linear_loss.h that nothing of size [N, V] exists, held by the kernel's own count of
// resident pages.
#include <gtest/gtest.h>
#include <malloc.h>
#include <torch/csrc/autograd/autograd.h>

#include <fstream>
#include <sstream>

#include "kernels/linear_loss.h"
#include "kernels/row_losses.h"
#include "tests/kernels/gradcheck.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

constexpr int64_t kMiB = 1 << 20;

int64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(key + ":")) {
      std::istringstream words(line.substr(key.size() + 1));
      int64_t kilobytes = 0;
      words >> kilobytes;
      return kilobytes * 1024;
    }
  return -1;
}

// Peak resident growth of `work`.
int64_t peak_growth(const std::function<void()>& work) {
  malloc_trim(0);  // pages that earlier tests left in the heap would hide growth
  std::ofstream("/proc/self/clear_refs") << "5";
  const int64_t before = status_bytes("VmRSS");
  work();
  return status_bytes("VmHWM") - before;
}

// A sanitizer keeps freed memory back, and its shadow is resident too.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#define RETORT_NEEDS_PLAIN_MALLOC() \
  if (kSanitized) GTEST_SKIP() << "resident memory under a sanitizer says nothing"

// N = 65536, V = 8192: an [N, V] tensor is 2 GiB in f32, 1 GiB in bf16 and 512 MiB in one byte. All inputs
// and gradients together are 9 MiB.
TEST(LinearLossMemory, IsFlatInTheNumberOfRows) {
  RETORT_NEEDS_PLAIN_MALLOC();
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
  RETORT_NEEDS_PLAIN_MALLOC();
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
