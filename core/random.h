// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as
// 1, 2, 3"). A value depends only on (seed, purpose, step, sample, layer, index), never on how many numbers
// were drawn before or by which rank, so any restart and any rank count draws the same ones.
// Stateless and immutable: every method may be called from any thread.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <string_view>

namespace retort {

// The generator itself: 128 bits in, 128 bits out, for a 64-bit key.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

class Random {
 public:
  // `purpose` names the stream ("init/embed.weight", "sampling", "shuffle").
  Random(uint64_t seed, std::string_view purpose, uint64_t step = 0, uint64_t sample = 0);

  uint64_t bits(uint64_t index) const;                   // 64 random bits
  double uniform(uint64_t index) const;                  // [0, 1), 53 bits
  double normal(uint64_t index) const;                   // N(0, 1), Box-Muller on one counter
  uint64_t below(uint64_t index, uint64_t bound) const;  // 0 .. bound-1, without modulo bias worth naming

  // Fills a dense CPU float32 tensor with N(0, std), element i from counter i.
  void fill_normal(at::Tensor& out, double std) const;

 private:
  std::array<uint32_t, 4> block(uint64_t index) const;
  std::array<uint32_t, 2> key_;
  uint64_t stream_;
};

// A keyed permutation of 0 .. size-1 in constant memory: a Feistel network on the next even number of bits,
// cycle-walked into the range (Black and Rogaway 2002). permute(i) is a bijection for every key.
class Permutation {
 public:
  Permutation(uint64_t size, uint64_t seed, uint64_t epoch);
  uint64_t operator()(uint64_t index) const;  // index < size
  uint64_t size() const { return size_; }

 private:
  uint64_t size_;
  int half_bits_;
  Random round_keys_;
};

}  // namespace retort
