#include "eval/python_random.h"

#include <bit>
#include <cmath>
#include <numeric>
#include <set>

#include "core/error.h"

namespace retort::eval {
namespace {

constexpr size_t kWords = 624, kMiddle = 397;

}  // namespace

PythonRandom::PythonRandom(uint64_t seed) {
  std::vector<uint32_t> key = {static_cast<uint32_t>(seed)};
  if (seed >> 32 != 0) key.push_back(static_cast<uint32_t>(seed >> 32));
  state_[0] = 19650218u;
  for (uint32_t i = 1; i < kWords; ++i) state_[i] = 1812433253u * (state_[i - 1] ^ (state_[i - 1] >> 30)) + i;
  size_t i = 1, j = 0;
  const auto mixed = [&](uint32_t factor) {
    return state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * factor);
  };
  const auto step = [&] {
    if (++i < kWords) return;
    state_[0] = state_[kWords - 1];
    i = 1;
  };
  for (size_t k = kWords; k > 0; --k) {
    state_[i] = mixed(1664525u) + key[j] + static_cast<uint32_t>(j);
    step();
    j = (j + 1) % key.size();
  }
  for (size_t k = kWords - 1; k > 0; --k) {
    state_[i] = mixed(1566083941u) - static_cast<uint32_t>(i);
    step();
  }
  state_[0] = 0x80000000u;
}

void PythonRandom::refill() {
  for (size_t i = 0; i < kWords; ++i) {
    const uint32_t y = (state_[i] & 0x80000000u) | (state_[(i + 1) % kWords] & 0x7fffffffu);
    state_[i] = state_[(i + kMiddle) % kWords] ^ (y >> 1) ^ ((y & 1u) != 0 ? 0x9908b0dfu : 0u);
  }
  at_ = 0;
}

uint32_t PythonRandom::bits() {
  if (at_ == kWords) refill();
  uint32_t y = state_[at_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

double PythonRandom::random() {
  const auto high = static_cast<double>(bits() >> 5), low = static_cast<double>(bits() >> 6);
  return (high * 67108864.0 + low) / 9007199254740992.0;
}

uint64_t PythonRandom::below(uint64_t bound) {
  RETORT_ASSERT(bound > 0 && bound < uint64_t{1} << 32);
  const int width = std::bit_width(bound);
  uint32_t draw = 0;
  do draw = bits() >> (32 - width);
  while (draw >= bound);
  return draw;
}

std::vector<size_t> PythonRandom::sample(size_t n, size_t k) {
  RETORT_ASSERT(k <= n);
  size_t small = 21;  // a list of up to so many takes less memory than a set of k
  if (k > 5)
    small +=
        static_cast<size_t>(std::pow(4.0, std::ceil(std::log(static_cast<double>(3 * k)) / std::log(4.0))));
  std::vector<size_t> out;
  if (n <= small) {
    std::vector<size_t> pool(n);
    std::iota(pool.begin(), pool.end(), size_t{0});
    for (size_t i = 0; i < k; ++i) {
      const auto j = static_cast<size_t>(below(n - i));
      out.push_back(pool[j]);
      pool[j] = pool[n - i - 1];
    }
    return out;
  }
  std::set<size_t> taken;
  while (out.size() < k)
    if (const auto j = static_cast<size_t>(below(n)); taken.insert(j).second) out.push_back(j);
  return out;
}

}  // namespace retort::eval
