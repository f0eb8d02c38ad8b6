// Remembers how short pieces were tokenized: natural text repeats its words. A table of 32768 lines of 64
// bytes, one for each hash, so memory is bounded and nothing is looked for; a new piece takes its line's
// place. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace retort::data {

class PieceCache {
 public:
  static constexpr size_t kLongest = 16;  // bytes of a piece
  static constexpr size_t kTokens = 11;

  struct Key {
    uint64_t low = 0, high = 0;
    uint32_t bytes = 0;
  };
  // `readable`: bytes from the piece's start that may be read; pieces of 1 .. kLongest bytes.
  static Key key(std::string_view piece, size_t readable) {
    Key key{0, 0, static_cast<uint32_t>(piece.size())};
    if (readable >= kLongest) {  // whole words, then what is not the piece's is cut off
      std::memcpy(&key.low, piece.data(), 8);
      std::memcpy(&key.high, piece.data() + 8, 8);
      const size_t bits = 8 * piece.size();
      if (bits <= 64) {
        key.low &= ~uint64_t{0} >> (64 - bits);
        key.high = 0;
      } else {
        key.high &= ~uint64_t{0} >> (128 - bits);
      }
    } else {
      char copy[kLongest] = {};
      std::memcpy(copy, piece.data(), piece.size());
      std::memcpy(&key.low, copy, 8);
      std::memcpy(&key.high, copy + 8, 8);
    }
    return key;
  }
  // The ids, or nothing (count 0) when the piece is not there.
  std::span<const int32_t> find(const Key& key) const {
    const Line& line = lines_[place(key)];
    const bool hit = line.low == key.low && line.high == key.high && line.bytes == key.bytes;
    return {line.ids, hit ? line.count : 0u};
  }
  void keep(const Key& key, std::span<const int32_t> ids) {
    if (ids.empty() || ids.size() > kTokens) return;
    Line& line = lines_[place(key)];
    line.low = key.low;
    line.high = key.high;
    line.bytes = static_cast<uint16_t>(key.bytes);
    line.count = static_cast<uint16_t>(ids.size());
    std::memcpy(line.ids, ids.data(), ids.size_bytes());
  }

 private:
  struct alignas(64) Line {
    uint64_t low = 0, high = 0;
    uint16_t bytes = 0, count = 0;  // bytes 0: no piece
    int32_t ids[kTokens] = {};
  };
  static_assert(sizeof(Line) == 64);
  static constexpr int kBits = 15;

  static size_t place(const Key& key) {
    const uint64_t mixed = (key.low ^ (key.high * 0xD6E8FEB86659FD93)) * 0x9E3779B97F4A7C15;
    return (mixed ^ mixed >> 29) * 0xBF58476D1CE4E5B9 >> (64 - kBits);
  }
  std::vector<Line> lines_ = std::vector<Line>(size_t{1} << kBits);
};

}  // namespace retort::data
