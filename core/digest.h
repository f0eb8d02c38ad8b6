// XXH3-64 digests: of data on disk, and of names for random streams. Values are persistent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace retort {

uint64_t xxh3(std::span<const std::byte> bytes);
uint64_t xxh3(std::string_view text);
std::string hex(uint64_t digest);  // 16 lower-case digits

// A digest over pieces, equal to the digest of their concatenation.
class Digest {
 public:
  Digest();
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;
  void add(std::span<const std::byte> bytes);
  uint64_t value() const;

 private:
  void* state_;
};

}  // namespace retort
