// The scheduler: one fiber for each thread of a block, blocks one after another. A thread runs until it waits
// for others; the host then looks whether those it waits for are there. Compiled without instrumentation.
//
// For TSan nothing orders two threads but barriers, __syncwarp, fences and atomics. Blocks of even and of odd
// number have fibers and shared memory of their own, so that a block races with its neighbour.
#include <bit>
#include <numeric>
#include <utility>

#include "tests/cuda_emulation/crew.h"
#include "tests/cuda_emulation/schedule.h"

namespace retort::emulation {

thread_local const View* view = nullptr;

namespace {

#if RETORT_EMULATION_TSAN
constexpr int kCrews = 2;
#else
constexpr int kCrews = 1;  // one serves: nobody looks
#endif

void order_after_all(Crew& c) {
  order_after(&c.done[0]);
  order_after(&c.done[1]);
}

struct Machine {
  std::unique_ptr<Crew> crews[kCrews];
  char launched = 0;  // gate
};
thread_local std::unique_ptr<Machine> machine;
thread_local Crew* crew = nullptr;
thread_local Thread* current = nullptr;
thread_local int current_number = 0;
char fence = 0;  // a gate of all threads
thread_local const std::function<void(const Launch&)>* taker = nullptr;

[[noreturn]] void report(Crew& c, const std::string& what) {
  const std::string text = "[emulation] " + what + ", in block " + name_of(c.threads[0]->view.block) +
                           " of the kernel that " + place_of(c.run->where) + " launched";
  // Threads are in the middle of the kernel. What they did comes before what the host does now.
  c.given_up = true;
  for (int i = 0; i < c.count; ++i)
    if (Thread& t = *c.threads[static_cast<size_t>(i)]; t.started && t.state != State::kLeft) {
      current = &t;
      t.fiber.resume();
    }
  for (const std::unique_ptr<Crew>& each : machine->crews)
    if (each != nullptr) order_after_all(*each);
  machine.reset();
  crew = nullptr, current = nullptr, view = nullptr;
  throw EmulationError(text);
}

[[noreturn]] void report_thread(Crew& c, int number, const std::string& what, const Where& where) {
  report(c, what + " by thread " + std::to_string(number) + " at " + place_of(where));
}

// --- warps

Thread& in_lane(const Crew& c, int warp, int lane) {
  return *c.threads[static_cast<size_t>(warp * kWarpLanes + lane)];
}

bool same_meeting(const Thread& a, const Thread& b) {
  return a.op == b.op && a.mask == b.mask && a.where == b.where;
}

uint64_t reduced(const Crew& c, int warp, const Thread& t) {
  bool first = true;
  uint64_t all = 0;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    if ((t.mask >> lane & 1) == 0) continue;
    const uint64_t x = in_lane(c, warp, lane).bits;
    const auto signed_x = static_cast<int64_t>(x), signed_all = static_cast<int64_t>(all);
    if (first)
      all = x;
    else if (t.op == WarpOp::kAdd)
      all += x;
    else if (t.op == WarpOp::kMin)
      all = static_cast<uint64_t>(std::min(signed_x, signed_all));
    else if (t.op == WarpOp::kMax)
      all = static_cast<uint64_t>(std::max(signed_x, signed_all));
    else if (t.op == WarpOp::kAnd)
      all &= x;
    else
      all = t.op == WarpOp::kOr ? all | x : all ^ x;
    first = false;
  }
  return all;
}

uint64_t result_for(Crew& c, int warp, int lane) {
  const Thread& t = in_lane(c, warp, lane);
  uint64_t lanes = 0;
  switch (t.op) {
    case WarpOp::kSync:
      return 0;
    case WarpOp::kShuffle:
      if ((t.mask >> t.source & 1) == 0)
        report_thread(c, warp * kWarpLanes + lane,
                      "shuffle from lane " + std::to_string(t.source) + ", which is not in its mask",
                      t.where);
      return in_lane(c, warp, t.source).bits;
    case WarpOp::kBallot:
    case WarpOp::kMatch:
      for (int other = 0; other < kWarpLanes; ++other) {
        if ((t.mask >> other & 1) == 0) continue;
        const uint64_t bits = in_lane(c, warp, other).bits;
        if (t.op == WarpOp::kBallot ? bits != 0 : bits == t.bits) lanes |= uint64_t{1} << other;
      }
      return lanes;
    default:
      return reduced(c, warp, t);
  }
}

// Lets the lanes go that `lane` waits for, once all of them are there.
void try_to_meet(Crew& c, int warp, int lane) {
  const Thread& t = in_lane(c, warp, lane);
  const int number = warp * kWarpLanes + lane;
  if ((t.mask >> lane & 1) == 0)
    report_thread(c, number, "warp operation whose mask leaves out its own lane", t.where);
  if (const uint32_t gone = t.mask & c.left[warp]; gone != 0)
    report_thread(c, number,
                  "warp operation whose mask names lane " + std::to_string(std::countr_zero(gone)) +
                      ", which is not in the kernel any more",
                  t.where);
  if ((t.mask & ~c.in_warp_now[warp]) != 0) return;
  for (int other = 0; other < kWarpLanes; ++other) {
    if ((t.mask >> other & 1) == 0) continue;
    const Thread& o = in_lane(c, warp, other);
    if (!same_meeting(t, o))
      report(c, "warp operations that do not meet: thread " + std::to_string(number) + " at " +
                    place_of(t.where) + ", thread " + std::to_string(warp * kWarpLanes + other) + " at " +
                    place_of(o.where));
  }
  uint64_t results[kWarpLanes];
  for (int other = 0; other < kWarpLanes; ++other)
    if (t.mask >> other & 1) results[other] = result_for(c, warp, other);
  const uint32_t mask = t.mask;
  c.in_warp_now[warp] &= ~mask;
  for (int other = 0; other < kWarpLanes; ++other)
    if (mask >> other & 1) {
      in_lane(c, warp, other).result = results[other];
      in_lane(c, warp, other).state = State::kReady;
    }
}

// --- blocks

// Waits until the host lets the thread go on.
void wait(Thread& t) {
  t.fiber.suspend();
  while (crew->given_up) {
    order_before(&crew->done[crew->blocks % 2]);
    t.fiber.suspend();
  }
}

void thread_body(void* self) {
  auto* t = static_cast<Thread*>(self);
  for (;;) {
    order_after(&machine->launched);
    order_after(&crew->done[(crew->blocks + 1) % 2]);
    crew->run->kernel(crew->run->arguments);
    order_before(&crew->done[crew->blocks % 2]);
    t->state = State::kLeft;
    wait(*t);
  }
}

void run_thread(Crew& c, int number) {
  Thread& t = *c.threads[static_cast<size_t>(number)];
  current = &t;
  current_number = number;
  view = &t.view;
  if (t.started) {
    t.fiber.resume();
  } else {
    t.started = true;
    t.fiber.start(thread_body, &t);
  }
  view = nullptr;
  if (t.state == State::kFailed) report_thread(c, number, t.what, t.where);
  const int warp = number / kWarpLanes, lane = number % kWarpLanes;
  if (t.state == State::kLeft) c.left[warp] |= uint32_t{1} << lane;
  if (t.state != State::kInWarp) return;
  c.in_warp_now[warp] |= uint32_t{1} << lane;
  try_to_meet(c, warp, lane);
}

// Whether any of the warp's threads could run.
bool run_warp(Crew& c, int warp) {
  const int lanes = c.lanes_of(warp);
  const int first = schedule().order == Order::kSeeded ? static_cast<int>(c.draws.below(kWarpLanes)) : 0;
  bool ran = false;
  for (int i = 0; i < lanes; ++i) {
    const int lane = schedule().order == Order::kReverse ? lanes - 1 - i : (first + i) % lanes;
    const int number = warp * kWarpLanes + lane;
    if (c.threads[static_cast<size_t>(number)]->state != State::kReady) continue;
    run_thread(c, number);
    ran = true;
  }
  return ran;
}

bool run_warps(Crew& c) {
  std::vector<int> order(static_cast<size_t>(c.warps()));
  std::iota(order.begin(), order.end(), 0);
  if (schedule().order == Order::kReverse) std::reverse(order.begin(), order.end());
  if (schedule().order == Order::kSeeded)
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[c.draws.below(i)]);
  bool ran = false;
  for (const int warp : order)
    while (run_warp(c, warp)) {
      ran = true;
      if (schedule().order == Order::kSeeded) break;  // others come between
    }
  return ran;
}

// All threads wait: for the block's barrier, or in vain. False when they have left.
bool pass_barrier(Crew& c) {
  const Thread& one = *c.threads[0];
  int left = 0, waiting = 0, sum = 0;
  bool together = true;
  for (int i = 0; i < c.count; ++i) {
    const Thread& t = *c.threads[static_cast<size_t>(i)];
    left += static_cast<int>(t.state == State::kLeft);
    waiting += static_cast<int>(t.state == State::kAtBarrier);
    together = together && t.gather == one.gather && t.where == one.where;
    sum += static_cast<int>(t.predicate != 0);
  }
  if (left == c.count) return false;
  if (waiting + left < c.count) report(c, "lanes that wait in vain: " + states_of(c));
  if (left > 0 || !together) report(c, "divergent barrier: " + states_of(c));
  for (int i = 0; i < c.count; ++i) {
    Thread& t = *c.threads[static_cast<size_t>(i)];
    t.gathered = t.gather == Gather::kAnd  ? static_cast<int>(sum == c.count)
                 : t.gather == Gather::kOr ? static_cast<int>(sum > 0)
                                           : sum;
    t.state = State::kReady;
  }
  ++c.barriers;
  return true;
}

Index split(unsigned int number, const Index& sizes) {
  return {number % sizes.x, number / sizes.x % sizes.y, number / sizes.x / sizes.y};
}

void run_block(Crew& c, const Run& run, unsigned int number) {
  const Index& sizes = run.grid.threads;
  c.run = &run;
  c.count = static_cast<int>(sizes.x * sizes.y * sizes.z);
  c.barriers = 0;
  ++c.blocks;
  for (int warp = 0; warp < c.warps(); ++warp) {
    c.in_warp_now[warp] = 0;
    c.left[warp] = c.lanes_of(warp) == kWarpLanes ? 0 : ~uint32_t{0} << c.lanes_of(warp);
  }
  c.draws.state = schedule().seed + number;
  c.shared.begin_block(run.grid.dynamic_bytes, run.grid.asked);
  crew = &c;
  while (static_cast<int>(c.threads.size()) < c.count) c.threads.push_back(std::make_unique<Thread>());
  for (int i = 0; i < c.count; ++i) {
    Thread& t = *c.threads[static_cast<size_t>(i)];
    t.view = {split(static_cast<unsigned int>(i), sizes), split(number, run.grid.blocks), sizes,
              run.grid.blocks};
    t.state = State::kReady;
    t.meetings = 0;
  }
  do
    while (run_warps(c)) {
    }
  while (pass_barrier(c));
  const std::string written = c.shared.check_bands();
  if (!written.empty()) report(c, "shared memory written past the end of " + written);
}

std::vector<unsigned int> order_of_blocks(unsigned int count) {
  std::vector<unsigned int> order(count);
  std::iota(order.begin(), order.end(), 0u);
  if (schedule().order == Order::kReverse) std::reverse(order.begin(), order.end());
  if (schedule().order == Order::kSeeded) {
    Draws draws{schedule().seed ^ count};
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[draws.below(i)]);
  }
  return order;
}

void check_grid(const Grid& grid, const Where& where) {
  const auto count = [](const Index& i) { return uint64_t{i.x} * i.y * i.z; };
  std::string what;
  if (count(grid.threads) == 0 || count(grid.threads) > kMostThreads)
    what = "a block of " + std::to_string(count(grid.threads)) + " threads";
  else if (count(grid.blocks) == 0 || grid.blocks.x > 0x7fffffffu ||
           std::max(grid.blocks.y, grid.blocks.z) > 65535u)
    what = "a grid of " + name_of(grid.blocks) + " blocks";
  else if (grid.dynamic_bytes > SharedMemory::kMost)
    what = std::to_string(grid.dynamic_bytes) + " bytes of dynamic shared memory";
  else
    return;
  throw EmulationError("[emulation] no device can launch " + what + ", as " + place_of(where) + " wants");
}

}  // namespace

void run_grid(const Grid& grid, Kernel kernel, const void* arguments, const Where& where) {
  check_grid(grid, where);
  if (machine == nullptr) machine = std::make_unique<Machine>();
  const Run run{grid, kernel, arguments, where};
  order_before(&machine->launched);
  int turn = 0;
  for (const unsigned int block : order_of_blocks(grid.blocks.x * grid.blocks.y * grid.blocks.z)) {
    std::unique_ptr<Crew>& c = machine->crews[turn++ % kCrews];
    if (c == nullptr) c = std::make_unique<Crew>();
    run_block(*c, run, block);
  }
  for (const std::unique_ptr<Crew>& c : machine->crews)
    if (c != nullptr) order_after_all(*c);
}

void give(const Launch& launch) { taker == nullptr ? launch.run() : (*taker)(launch); }

Taker::Taker(std::function<void(const Launch&)> take)
    : take_(std::move(take)), before_(std::exchange(taker, &take_)) {}
Taker::~Taker() { taker = before_; }

int block_barrier(Gather gather, int predicate, const Where& where) {
  Thread& t = *current;
  t.state = State::kAtBarrier;
  t.gather = gather;
  t.predicate = predicate;
  t.where = where;
  char* gate = &crew->at_barrier[crew->barriers % 2];
  order_before(gate);
  wait(t);
  order_after(gate);
  return t.gathered;
}

uint64_t in_warp(WarpOp op, uint32_t mask, uint64_t bits, int source_lane, const Where& where) {
  Thread& t = *current;
  t.state = State::kInWarp;
  t.op = op;
  t.mask = mask;
  t.bits = bits;
  t.source = source_lane;
  t.where = where;
  char* gate = &crew->in_warp[current_number / kWarpLanes][t.meetings % 2];
  if (op == WarpOp::kSync) ++t.meetings, order_before(gate);
  wait(t);
  if (op == WarpOp::kSync) order_after(gate);
  return t.result;
}

int lane() { return current_number % kWarpLanes; }

// All that are in the kernel, or this one alone: a program may count on neither.
uint32_t active_lanes() {
  if (schedule().order != Order::kForward) return uint32_t{1} << lane();
  uint32_t mask = 0;
  const int warp = current_number / kWarpLanes;
  for (int other = 0; other < crew->lanes_of(warp); ++other)
    if (in_lane(*crew, warp, other).state != State::kLeft) mask |= uint32_t{1} << other;
  return mask;
}

void memory_fence() {
  order_before(&fence);
  order_after(&fence);
}

void* shared_variable(const void* key, size_t bytes, size_t alignment, const char* name, const Where& where) {
  void* p = crew->shared.variable(key, bytes, alignment, name);
  if (p == nullptr) fail("more shared memory than a block has", where);
  return p;
}

void* dynamic_shared_memory() { return crew->shared.dynamic(); }

void fail(const char* what, const Where& where) {
  if (current == nullptr || view == nullptr)
    throw EmulationError(std::string("[emulation] ") + what + " on the host at " + place_of(where));
  current->state = State::kFailed;
  current->what = what;
  current->where = where;
  wait(*current);
  __builtin_unreachable();
}

}  // namespace retort::emulation
