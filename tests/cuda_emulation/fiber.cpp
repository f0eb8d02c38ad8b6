// Compiled without instrumentation: what happens here is no business of the kernels' sanitizers.
#include "tests/cuda_emulation/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <system_error>

#if RETORT_EMULATION_ASAN
#include <sanitizer/asan_interface.h>
#endif
#if RETORT_EMULATION_TSAN
#include <sanitizer/tsan_interface.h>
#endif

// Saves what a call must keep, changes stacks, and returns there.
asm(R"(
.text
.type retort_switch_stack, @function
retort_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size retort_switch_stack, .-retort_switch_stack
.type retort_enter_fiber, @function
retort_enter_fiber:
  .cfi_startproc
  .cfi_undefined rip
  movq %r12, %rdi
  callq *%r13
  ud2
  .cfi_endproc
.size retort_enter_fiber, .-retort_enter_fiber
)");
extern "C" void retort_switch_stack(void** from, void* to);
extern "C" void retort_enter_fiber();

namespace retort::emulation {

namespace {

#if RETORT_EMULATION_ASAN
constexpr size_t kStack = 256 << 10;  // red zones make frames larger
#else
constexpr size_t kStack = 64 << 10;
#endif
constexpr size_t kGuard = 4096;

}  // namespace

struct Fiber::State {
  char* memory = nullptr;
  void *here = nullptr, *host = nullptr;  // stack pointers of the sides that do not run
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
#if RETORT_EMULATION_ASAN
  void *fake_here = nullptr, *fake_host = nullptr;
  const void* host_stack = nullptr;
  size_t host_bytes = 0;
#endif
#if RETORT_EMULATION_TSAN
  void *fiber = nullptr, *host_fiber = nullptr;
#endif
  char* stack() const { return memory + kGuard; }

  static void enter(void* self) {
    auto& s = *static_cast<State*>(self);
#if RETORT_EMULATION_ASAN
    __sanitizer_finish_switch_fiber(s.fake_here, &s.host_stack, &s.host_bytes);
#endif
    s.body(s.argument);
    std::abort();
  }
};

Fiber::Fiber() : state_(std::make_unique<State>()) {
  void* memory = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap of a stack");
  state_->memory = static_cast<char*>(memory);
  mprotect(memory, kGuard, PROT_NONE);
#if RETORT_EMULATION_TSAN
  state_->fiber = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
#if RETORT_EMULATION_TSAN
  __tsan_destroy_fiber(state_->fiber);
#endif
#if RETORT_EMULATION_ASAN
  __asan_unpoison_memory_region(state_->stack(), kStack);  // of frames that were left and never returned
#endif
  munmap(state_->memory, kGuard + kStack);
}

void Fiber::start(void (*body)(void*), void* argument) {
  State& s = *state_;
  s.body = body;
  s.argument = argument;
  // As retort_switch_stack leaves a stack: six registers, and where to return to.
  auto** top = reinterpret_cast<void**>(s.stack() + kStack) - 2;
  *--top = reinterpret_cast<void*>(retort_enter_fiber);
  *--top = nullptr;                                 // rbp
  *--top = nullptr;                                 // rbx
  *--top = &s;                                      // r12: the argument of enter()
  *--top = reinterpret_cast<void*>(&State::enter);  // r13
  *--top = nullptr;                                 // r14
  *--top = nullptr;                                 // r15
  s.here = top;
  resume();
}

void Fiber::resume() {
  State& s = *state_;
#if RETORT_EMULATION_ASAN
  __sanitizer_start_switch_fiber(&s.fake_host, s.stack(), kStack);
#endif
#if RETORT_EMULATION_TSAN
  s.host_fiber = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(s.fiber, __tsan_switch_to_fiber_no_sync);
#endif
  retort_switch_stack(&s.host, s.here);
#if RETORT_EMULATION_ASAN
  __sanitizer_finish_switch_fiber(s.fake_host, nullptr, nullptr);
#endif
}

void Fiber::suspend() {
  State& s = *state_;
#if RETORT_EMULATION_ASAN
  __sanitizer_start_switch_fiber(&s.fake_here, s.host_stack, s.host_bytes);
#endif
#if RETORT_EMULATION_TSAN
  __tsan_switch_to_fiber(s.host_fiber, __tsan_switch_to_fiber_no_sync);
#endif
  retort_switch_stack(&s.here, s.host);
#if RETORT_EMULATION_ASAN
  __sanitizer_finish_switch_fiber(s.fake_here, &s.host_stack, &s.host_bytes);
#endif
}

#if RETORT_EMULATION_TSAN
void order_before(void* gate) { __tsan_release(gate); }
void order_after(void* gate) { __tsan_acquire(gate); }
#else
void order_before(void*) {}
void order_after(void*) {}
#endif

}  // namespace retort::emulation
