#include "core/random.h"

#include <bit>
#include <cmath>
#include <numbers>

#include "core/digest.h"
#include "core/error.h"
#include "core/host_tensor.h"

namespace retort {
namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;

uint64_t mix(uint64_t a, uint64_t b) {  // one splitmix64 step over both
  uint64_t x = a + 0x9E3779B97F4A7C15ull * (b + 1);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

double to_unit(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1.0p-53; }

}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{kMultiplier0} * c[0], p1 = uint64_t{kMultiplier1} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k[0] += kWeyl0;
    k[1] += kWeyl1;
  }
  return c;
}

Random::Random(uint64_t seed, std::string_view purpose, uint64_t step, uint64_t sample) {
  const uint64_t key = mix(seed, xxh3(purpose));
  key_ = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  stream_ = mix(step, sample);
}

std::array<uint32_t, 4> Random::block(uint64_t index) const {
  return philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                     static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)},
                    key_);
}

uint64_t Random::bits(uint64_t index) const {
  const auto c = block(index);
  return (uint64_t{c[1]} << 32) | c[0];
}

double Random::uniform(uint64_t index) const { return to_unit(bits(index)); }

double Random::normal(uint64_t index) const {
  const auto c = block(index);
  const double u = 1.0 - to_unit((uint64_t{c[1]} << 32) | c[0]);  // (0, 1], so that log is finite
  const double v = to_unit((uint64_t{c[3]} << 32) | c[2]);
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

uint64_t Random::below(uint64_t index, uint64_t bound) const {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(bits(index)) * bound) >> 64);
}

void Random::fill_normal(at::Tensor& out, double std) const {
  check(out.is_contiguous() && out.scalar_type() == at::kFloat && out.is_cpu(),
        "[fill_normal] needs a contiguous f32 CPU tensor");
  uint64_t index = 0;
  for (float& value : host_values<float>(out)) value = static_cast<float>(std * normal(index++));
}

Permutation::Permutation(uint64_t size, uint64_t seed, uint64_t epoch)
    : size_(size), half_bits_(0), round_keys_(seed, "permutation", epoch) {
  check<InternalError>(size > 0, "[Permutation] size must be > 0");
  const int bits = std::bit_width(size - 1);
  half_bits_ = std::max(1, (bits + 1) / 2);
}

uint64_t Permutation::operator()(uint64_t index) const {
  RETORT_ASSERT(index < size_);
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  do {  // at most 4 tries on average: the network's domain is below 4 * size
    uint64_t left = index >> half_bits_, right = index & mask;
    for (uint64_t round = 0; round < 6; ++round) {
      const uint64_t mixed = left ^ (round_keys_.bits((round << 48) ^ right) & mask);
      left = right;
      right = mixed;
    }
    index = (left << half_bits_) | right;
  } while (index >= size_);
  return index;
}

}  // namespace retort
