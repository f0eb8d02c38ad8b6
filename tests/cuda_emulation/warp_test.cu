// What the emulation makes of CUDA's own functions: grids, barriers that count, shuffles of every kind and type,
// votes, atomics, vectors, dynamic shared memory.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "kernels/cuda/exp2.cuh"
#include "kernels/cuda/launch.cuh"
#include "tests/cuda_emulation/schedule.h"

namespace retort::emulation {
namespace {

using namespace kernels::cuda::emulated;

constexpr unsigned int kAll = 0xffffffff;

// Runs `kernel` on `threads` threads with n zeros, under every order; the results are the same.
template <class T>
std::vector<T> results(void (*kernel)(T*), unsigned int threads, size_t n, size_t dynamic = 0) {
  std::vector<T> first;
  for (const Schedule& schedule : schedules()) {
    const Scheduled in_turn(schedule);
    std::vector<T> y(n);
    launch(kernel, {1u, threads, dynamic}, nullptr, y.data());
    if (first.empty()) first = y;
    EXPECT_EQ(y, first) << schedule.name();
  }
  return first;
}

__global__ void number_kernel(int* y) {
  const unsigned int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  y[block * blockDim.x * blockDim.y * blockDim.z + thread] = static_cast<int>(block * 1000 + thread);
}

TEST(EmulatedGrid, CountsInThreeDimensions) {
  for (const Schedule& schedule : schedules()) {
    const Scheduled in_turn(schedule);
    std::vector<int> y(24 * 30);
    launch(number_kernel, {dim3(2, 3, 4), dim3(5, 3, 2)}, nullptr, y.data());
    for (int i = 0; i < 24 * 30; ++i) EXPECT_EQ(y[static_cast<size_t>(i)], i / 30 * 1000 + i % 30);
  }
}

TEST(EmulatedGrid, RefusesWhatNoDeviceLaunches) {
  std::vector<int> y(8);
  EXPECT_THROW(launch(number_kernel, {1u, 1025u}, nullptr, y.data()), EmulationError);
  EXPECT_THROW(launch(number_kernel, {0u, 1u}, nullptr, y.data()), EmulationError);
  EXPECT_THROW(launch(number_kernel, {dim3(1, 65536), 1u}, nullptr, y.data()), EmulationError);
  EXPECT_THROW(launch(number_kernel, {1u, 1u, 228 << 10}, nullptr, y.data()), EmulationError);
}

__global__ void barriers_kernel(int* y) {
  const bool odd = threadIdx.x % 2 == 1;
  const int count = __syncthreads_count(static_cast<int>(odd));
  const int all = __syncthreads_and(1), not_all = __syncthreads_and(static_cast<int>(odd));
  const int any = __syncthreads_or(static_cast<int>(threadIdx.x == 70)), none = __syncthreads_or(0);
  y[threadIdx.x] = count * 10000 + all * 1000 + not_all * 100 + any * 10 + none;
}

TEST(EmulatedBarriers, Count) {
  for (const int y : results(barriers_kernel, 75, 75)) EXPECT_EQ(y, 37 * 10000 + 1010);
}

__global__ void shuffles_kernel(int* y) {
  const int lane = static_cast<int>(threadIdx.x);
  y[lane] = __shfl_sync(kAll, lane, 37);             // modulo the warp
  y[32 + lane] = __shfl_sync(kAll, lane, 1, 8);      // of each segment
  y[64 + lane] = __shfl_up_sync(kAll, lane, 3, 16);  // the first keep their own
  y[96 + lane] = __shfl_down_sync(kAll, lane, 5);    // the last keep their own
  y[128 + lane] = __shfl_xor_sync(kAll, lane, 16);
  y[160 + lane] = __shfl_xor_sync(kAll, lane, 12, 8);  // lower segments only
}

TEST(EmulatedWarp, Shuffles) {
  const std::vector<int> y = results(shuffles_kernel, 32, 192);
  for (int lane = 0; lane < 32; ++lane) {
    const auto at = [&](int row) { return y[static_cast<size_t>(row * 32 + lane)]; };
    EXPECT_EQ(at(0), 5);
    EXPECT_EQ(at(1), lane / 8 * 8 + 1);
    EXPECT_EQ(at(2), lane % 16 >= 3 ? lane - 3 : lane);
    EXPECT_EQ(at(3), lane + 5 < 32 ? lane + 5 : lane);
    EXPECT_EQ(at(4), lane ^ 16);
    EXPECT_EQ(at(5), (lane ^ 12) < lane / 8 * 8 + 8 ? lane ^ 12 : lane);
  }
}

template <class T>
__global__ void exchange_kernel(T* y) {
  T mine = y[threadIdx.x];
  std::memset(&mine, static_cast<int>(threadIdx.x) + 1, sizeof mine);
  y[threadIdx.x] = __shfl_down_sync(kAll, mine, 1);
}

template <class T>
void expect_exchange() {
  std::vector<T> y(32);
  launch(exchange_kernel<T>, {1u, 32u}, nullptr, y.data());
  for (int lane = 0; lane < 32; ++lane) {
    T want;
    std::memset(&want, lane < 31 ? lane + 2 : 32, sizeof want);
    EXPECT_EQ(std::memcmp(&y[static_cast<size_t>(lane)], &want, sizeof want), 0) << sizeof(T) << " " << lane;
  }
}

TEST(EmulatedWarp, ShufflesEveryType) {
  expect_exchange<int>();
  expect_exchange<unsigned int>();
  expect_exchange<long>();
  expect_exchange<unsigned long long>();
  expect_exchange<float>();
  expect_exchange<double>();
  expect_exchange<__half>();
  expect_exchange<__half2>();
  expect_exchange<__nv_bfloat16>();
  expect_exchange<__nv_bfloat162>();
}

__global__ void votes_kernel(unsigned int* y) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  y[threadIdx.x] = __ballot_sync(kAll, static_cast<int>(lane % 3 == 0));
  y[64 + threadIdx.x] = __match_any_sync(kAll, lane / 5);
  int all = 0;
  const unsigned int same = __match_all_sync(kAll, 7, &all);
  const int any = __any_sync(kAll, static_cast<int>(lane == 4));
  const int every = __all_sync(kAll, static_cast<int>(lane != 4));
  y[128 + threadIdx.x] = same == kAll && all == 1 && any == 1 && every == 0 ? 1 : 0;
  y[192 + threadIdx.x] = __reduce_add_sync(kAll, static_cast<unsigned int>(lane)) * 1000000 +
                         __reduce_max_sync(kAll, static_cast<unsigned int>(lane)) * 1000 +
                         static_cast<unsigned int>(__reduce_min_sync(kAll, lane - 4) + 100);
  // Halves that exchange apart, and one lane alone.
  const unsigned int half = lane < 16 ? 0x0000ffff : 0xffff0000;
  if (lane < 16) y[256 + threadIdx.x] = __ballot_sync(half, 1);
  if (lane >= 16) y[256 + threadIdx.x] = __ballot_sync(half, static_cast<int>(lane == 20));
}

TEST(EmulatedWarp, Votes) {
  const std::vector<unsigned int> y = results(votes_kernel, 64, 320);
  for (unsigned int thread = 0; thread < 64; ++thread) {
    const unsigned int lane = thread % 32;
    EXPECT_EQ(y[thread], 0x49249249u);
    EXPECT_EQ(y[64 + thread], lane < 30 ? 31u << lane / 5 * 5 : 3u << 30);
    EXPECT_EQ(y[128 + thread], 1u);
    EXPECT_EQ(y[192 + thread], 496u * 1000000 + 31 * 1000 + 96);
    EXPECT_EQ(y[256 + thread], lane < 16 ? 0x0000ffffu : 1u << 20);
  }
}

__global__ void active_kernel(unsigned int* y) { y[threadIdx.x] = __activemask(); }

// No program may count on more than its own lane's bit.
TEST(EmulatedWarp, ActiveMaskChangesWithTheOrder) {
  std::vector<unsigned int> y(32);
  const Scheduled in_reverse({Order::kReverse, 0});
  launch(active_kernel, {1u, 32u}, nullptr, y.data());
  EXPECT_EQ(y[5], 1u << 5);
}

__global__ void atomics_kernel(double* y) {
  auto& count = shared<int, struct Count>();
  auto& real = shared<float, struct Real>();
  auto& largest = shared<unsigned int, struct Largest>();
  if (threadIdx.x == 0) count = 0, real = 0.0f, largest = 0;
  __syncthreads();
  atomicAdd(&count, 2);
  atomicAdd(&real, 0.5f);
  atomicMax(&largest, threadIdx.x * 7 % 97);
  atomicAdd(y, 1.0);
  atomicCAS(&count, -1, 5);  // never that
  __syncthreads();
  if (threadIdx.x == 0) y[1] = count, y[2] = real, y[3] = largest, y[4] = atomicExch(&count, 3) + count;
}

TEST(EmulatedAtomics, Add) {
  EXPECT_EQ(results(atomics_kernel, 100, 5), (std::vector<double>{100, 200, 50, 96, 203}));
}

__global__ void sums_kernel(float* y) {
  auto* values = dynamic_shared<float>();
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncthreads();
  for (unsigned int stride = blockDim.x / 2; stride > 0; stride /= 2) {
    if (threadIdx.x < stride) values[threadIdx.x] += values[threadIdx.x + stride];
    __syncthreads();
  }
  if (threadIdx.x == 0) *y = values[0];
}

TEST(EmulatedSharedMemory, Dynamic) { EXPECT_EQ(results(sums_kernel, 128, 1, 128 * 4)[0], 127 * 64); }

TEST(EmulatedVectors, LieAsOnADevice) {
  EXPECT_EQ(alignof(float4), 16u);
  EXPECT_EQ(sizeof(float4), 16u);
  EXPECT_EQ(alignof(uint4), 16u);
  EXPECT_EQ(alignof(float2), 8u);
  EXPECT_EQ(alignof(double2), 16u);
  EXPECT_EQ(sizeof(double4), 32u);
  EXPECT_EQ(alignof(__nv_bfloat162), 4u);
}

TEST(EmulatedNumbers, RoundToNearestEven) {
  EXPECT_EQ(__bfloat162float(__float2bfloat16_rn(1.00390625f)), 1.0f);       // a tie: to the even
  EXPECT_EQ(__bfloat162float(__float2bfloat16_rn(1.01171875f)), 1.015625f);  // a tie: to the even above
  EXPECT_EQ(__float2bfloat16_rn(NAN).bits, 0x7fff);
  EXPECT_EQ(__bfloat162float(__float2bfloat16_rn(3.4e38f)), INFINITY);
  EXPECT_EQ(__half2float(__float2half_rn(2049.0f)), 2048.0f);
  EXPECT_EQ(__half2float(__float2half_rn(65520.0f)), INFINITY);
  EXPECT_EQ(__half2float(__float2half_rn(0x1p-25f)), 0.0f);
  EXPECT_EQ(__half2float(__float2half_rn(0x1.8p-24f)), 0x1p-23f);
}

// The emulated fast division is as inaccurate as a device's, so tests of kernels see that error.
TEST(EmulatedNumbers, FastQuotientsAreAsFarOffAsADevices) {
  int most = 0, least = 0;
  for (int i = 1; i <= 1000; ++i) {
    const float b = 1.0f + 0.37f * static_cast<float>(i);
    const int units = __float_as_int(__fdividef(1.0f, b)) - __float_as_int(1.0f / b);
    most = std::max(most, units), least = std::min(least, units);
  }
  EXPECT_EQ(most, 2);
  EXPECT_EQ(least, -2);
  EXPECT_GT(__fdividef(1.0f, 0x1p126f), 0.0f);
  EXPECT_EQ(__fdividef(1.0f, 0x1.8p126f), 0.0f);
  EXPECT_EQ(__fdividef(1.0f, INFINITY), 0.0f);
  EXPECT_TRUE(std::isnan(__fdividef(0.0f, 0.0f)));
}

TEST(EmulatedNumbers, SmallPowersOfTwoAreZero) {
  EXPECT_EQ(exp2_or_zero(-2.0f), 0.25f);
  EXPECT_EQ(exp2_or_zero(-126.0f), 0x1p-126f);
  EXPECT_EQ(exp2_or_zero(-127.0f), 0.0f);
  EXPECT_EQ(exp2_or_zero(-INFINITY), 0.0f);
  EXPECT_TRUE(std::isnan(exp2_or_zero(NAN)));
}

__global__ void counter_kernel(int* y) {
  auto& last = shared<int, struct Last>();
  y[1 + blockIdx.x] = static_cast<int>(blockIdx.x) + 1;
  __threadfence();
  if (threadIdx.x == 0) last = static_cast<int>(atomicAdd(y, 1) == static_cast<int>(gridDim.x) - 1);
  __syncthreads();
  __threadfence();
  if (last != 0 && threadIdx.x == 0)
    for (unsigned int i = 1; i < gridDim.x; ++i) y[1] += y[1 + i];
}

// The last block of a grid may read what all have written, after a fence.
TEST(EmulatedFences, OrderBlocks) {
  for (const Schedule& schedule : schedules()) {
    const Scheduled in_turn(schedule);
    std::vector<int> y(9);
    launch(counter_kernel, {8u, 1u}, nullptr, y.data());
    EXPECT_EQ(y[1], 36) << schedule.name();
  }
}

__global__ void trap_kernel(int* y) {
  if (y[0] == 0 && threadIdx.x == 3) __trap();
  __syncthreads();
  y[1] = 5;
}

TEST(EmulatedErrors, NameThreadAndLineAndLeaveTheNextLaunchWhole) {
  std::vector<int> y = {0, 0};
  std::string what;
  try {
    launch(trap_kernel, {1u, 1u + 32u}, nullptr, y.data());
  } catch (const EmulationError& error) {
    what = error.what();
  }
  EXPECT_NE(what.find("__trap() by thread 3 at tests/cuda_emulation/warp_test.cu"), std::string::npos)
      << what;
  y[0] = 1;
  launch(trap_kernel, {1u, 1u}, nullptr, y.data());
  EXPECT_EQ(y[1], 5);
}

}  // namespace
}  // namespace retort::emulation
