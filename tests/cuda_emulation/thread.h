// What an emulated thread of a block asks of the scheduler (block.cpp): its place in the grid, barriers,
// exchanges within its warp, and shared memory. The headers of include/ turn CUDA's names into these calls.
// A kernel never sees this file. Everything here is called on the thread's own fiber.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <source_location>

namespace retort::emulation {

// A line of a kernel.
struct Where {
  const char *file = "", *function = "";
  unsigned int line = 0, column = 0;
  Where() = default;
  Where(
      const std::source_location& l)  // implicit: the default of every function that wants to know its caller
      : file(l.file_name()), function(l.function_name()), line(l.line()), column(l.column()) {}
  bool operator==(const Where&) const = default;
};
using Here = std::source_location;

struct Index {
  unsigned int x = 0, y = 0, z = 0;
};
struct View {
  Index thread, block, threads = {1, 1, 1}, blocks = {1, 1, 1};
};
extern thread_local const View* view;  // of the thread that runs; null on the host

constexpr int kWarpLanes = 32;

enum class Gather { kNone, kCount, kAnd, kOr };  // what a block barrier makes of its threads' predicates
int block_barrier(Gather gather, int predicate, const Where& where);

enum class WarpOp { kSync, kShuffle, kBallot, kMatch, kAdd, kMin, kMax, kAnd, kOr, kXor };
// All lanes of `mask` meet; the result depends on `op`: a lane's bits, a mask of lanes, a reduction of i64s.
uint64_t in_warp(WarpOp op, uint32_t mask, uint64_t bits, int source_lane, const Where& where);
uint32_t active_lanes();
int lane();

// Orders what was written before it against what is read after another thread's, as a pair of fences does.
void memory_fence();

// The block's variable of this key: made by the thread that asks first, filled with 0xff (a NaN).
void* shared_variable(const void* key, size_t bytes, size_t alignment, const char* name, const Where& where);
void* dynamic_shared_memory();

// Ends the thread, and with it the launch: the host gets an EmulationError.
[[noreturn]] void fail(const char* what, const Where& where);
// Fails unless p is a multiple of `alignment`: an access of that width would trap on a device.
inline void check_aligned(const void* p, size_t alignment, const Where& where) {
  if (reinterpret_cast<uintptr_t>(p) % alignment != 0) fail("misaligned access to global memory", where);
}

// --- the host's side

struct Grid {
  Index blocks, threads;
  size_t dynamic_bytes;
  bool asked;  // for more shared memory than a kernel has unasked
};
using Kernel = void (*)(const void* arguments);
// Runs every thread of every block; throws EmulationError (schedule.h).
void run_grid(const Grid& grid, Kernel kernel, const void* arguments, const Where& where);

// What a kernel launches: run at once, or by whoever takes the launches of this OS thread, any number of times.
struct Launch {
  Grid grid;
  Kernel kernel;
  std::shared_ptr<const void> arguments;  // `bytes` of them, as they were
  size_t bytes;
  Where where;
  void run() const { run_grid(grid, kernel, arguments.get(), where); }
};
void give(const Launch& launch);

// While one lives, it takes them.
class Taker {
 public:
  explicit Taker(std::function<void(const Launch&)> take);
  ~Taker();
  Taker(const Taker&) = delete;
  Taker& operator=(const Taker&) = delete;

 private:
  std::function<void(const Launch&)> take_;
  const std::function<void(const Launch&)>* before_;
};

}  // namespace retort::emulation
