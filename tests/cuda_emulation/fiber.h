// A stack of its own that the host's thread switches to and from (x86-64), announced to the sanitizers: ASan
// learns which stack is in use, TSan takes every fiber for a thread that nothing orders but what we tell it.
#pragma once

#include <cstddef>
#include <memory>

namespace retort::emulation {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Runs body(argument) from its start until it calls suspend(). It must never return.
  void start(void (*body)(void*), void* argument);
  void resume();   // from the host: until the next suspend()
  void suspend();  // from the fiber: back to the host

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Nothing orders fibers but these: what a thread did before order_before(gate) comes before what another does
// after a later order_after(gate). Without TSan they do nothing.
void order_before(void* gate);
void order_after(void* gate);

}  // namespace retort::emulation
