#include "data/templates/heap.h"

#include <algorithm>

#include "data/templates/raised.h"
#include "data/tokenizers/unicode.h"

namespace retort::data::jinja {

void* Heap::allocate(size_t bytes, size_t alignment) {
  const auto padding = [&] { return -reinterpret_cast<uintptr_t>(at_) & (alignment - 1); };
  if (at_ == nullptr || bytes + padding() > static_cast<size_t>(end_ - at_)) {
    constexpr size_t kFirst = size_t{16} << 10, kLargest = size_t{1} << 20;
    const size_t block = std::min(kFirst << std::min<size_t>(blocks_.size(), 10), kLargest);
    if (bytes > block / 4) {  // a block of its own; the one that is open stays open
      charge(bytes);
      blocks_.push_back(std::make_unique_for_overwrite<std::byte[]>(bytes));
      return blocks_.back().get();
    }
    charge(block);
    blocks_.push_back(std::make_unique_for_overwrite<std::byte[]>(block));
    at_ = blocks_.back().get();
    end_ = at_ + block;
  }
  std::byte* out = at_ + padding();
  at_ = out + bytes;
  return out;
}

void Heap::out_of_steps() const {
  raise("takes more than {} steps, the limit of a rendering", limits_.steps);
}

void Heap::out_of_memory() const {
  raise("takes more than {} bytes of memory, the limit of a rendering", limits_.memory);
}

void Heap::text_too_long() const {
  raise("makes a text longer than {} bytes, the limit of any text", limits_.text);
}

void Buffer::add_character(char32_t character) {
  std::string bytes;  // short: no allocation
  append_utf8(bytes, character);
  add(bytes);
}

void Buffer::grow(size_t more) {
  heap_.check_text(bytes_.size() + more);
  const size_t before = bytes_.capacity();
  const size_t after = std::max(bytes_.size() + more, before + before / 2);
  heap_.charge(after);  // both live while the bytes are moved
  bytes_.reserve(after);
  heap_.refund(before);
}

}  // namespace retort::data::jinja
