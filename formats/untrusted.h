// What every reader of a file needs before it believes a word of it: names shortened for messages, and sizes
// multiplied without overflow.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace retort::formats {

// The text in quotes, control characters escaped and cut after 80 bytes: a hostile name cannot flood a log.
std::string shown(std::string_view text);

// unit * product(shape), each dimension at least 0; nothing when it, or the product with 0 read as 1 (the
// strides that LibTorch makes), does not fit in an int64.
std::optional<uint64_t> checked_product(std::span<const int64_t> shape, uint64_t unit = 1);

}  // namespace retort::formats
