// The threads of a block as the scheduler sees them (block.cpp), and what is reported of them in words.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tests/cuda_emulation/fiber.h"
#include "tests/cuda_emulation/shared_memory.h"
#include "tests/cuda_emulation/thread.h"

namespace retort::emulation {

constexpr int kMostThreads = 1024, kMostWarps = kMostThreads / kWarpLanes;

enum class State { kReady, kAtBarrier, kInWarp, kLeft, kFailed };

// SplitMix64: a permutation of its counter.
struct Draws {
  uint64_t state;
  uint64_t below(uint64_t bound) {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (z ^ (z >> 31)) % bound;
  }
};

struct Run {
  const Grid& grid;
  Kernel kernel;
  const void* arguments;
  const Where& where;
};

struct Thread {
  Fiber fiber;
  View view;
  bool started = false;
  State state = State::kLeft;
  Where where;            // of what it waits at, or failed at
  const char* what = "";  // it failed with
  Gather gather = Gather::kNone;
  int predicate = 0, gathered = 0;
  WarpOp op = WarpOp::kSync;
  uint32_t mask = 0;
  uint64_t bits = 0, result = 0;
  int source = 0;
  unsigned int meetings = 0;  // __syncwarps so far
};

// The threads that make one block, and what they share.
struct Crew {
  std::vector<std::unique_ptr<Thread>> threads;
  SharedMemory shared;
  int count = 0;
  const Run* run = nullptr;
  uint32_t left[kMostWarps] = {}, in_warp_now[kMostWarps] = {};  // lanes
  unsigned int barriers = 0;
  bool given_up = false;  // something was reported
  Draws draws{0};
  char at_barrier[2] = {}, in_warp[kMostWarps][2] = {};  // gates
  char done[2] = {};                                     // of the blocks before this and of this, in turn
  unsigned int blocks = 0;

  int warps() const { return (count + kWarpLanes - 1) / kWarpLanes; }
  int lanes_of(int warp) const { return std::min(kWarpLanes, count - warp * kWarpLanes); }
};

// "kernels/cuda/gate.cu:21 in void backward(...)"
std::string place_of(const Where& where);
// "threads 0-31, 64 wait ...; threads 32-63 have left the kernel"
std::string states_of(const Crew& crew);
std::string name_of(const Index& index);

}  // namespace retort::emulation
