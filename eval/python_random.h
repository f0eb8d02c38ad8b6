// Python's random.Random, draw for draw: the few-shot examples and bootstrap errors of lm-evaluation-harness come
// from it. MT19937 (Matsumoto and Nishimura 1998) seeded by its init_by_array; CPython's random.py for what is made
// of its bits. One thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace retort::eval {

class PythonRandom {
 public:
  explicit PythonRandom(uint64_t seed);
  uint32_t bits();                                 // 32 of them, getrandbits(32)
  double random();                                 // [0, 1), 53 bits
  uint64_t below(uint64_t bound);                  // randrange(bound), 0 < bound < 2^32
  std::vector<size_t> sample(size_t n, size_t k);  // the indices of sample(population, k), k <= n
  size_t choice(size_t n) { return static_cast<size_t>(random() * static_cast<double>(n)); }  // of choices()

 private:
  void refill();

  std::array<uint32_t, 624> state_{};
  size_t at_ = state_.size();
};

}  // namespace retort::eval
