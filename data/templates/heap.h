// The memory of one rendering, and the count of what it takes. Values, texts and frames lie in blocks that go
// together at the end, so nothing is freed singly, nothing is destroyed, and cycles do no harm. One thread.
// Throws Raised when a limit is passed.
#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "data/templates/limits.h"

namespace retort::data::jinja {

class Heap {
 public:
  explicit Heap(const TemplateLimits& limits) : limits_(limits), steps_left_(limits.steps) {}
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  const TemplateLimits& limits() const { return limits_; }

  void step(uint64_t count = 1) {
    if (count > steps_left_) [[unlikely]]
      out_of_steps();
    steps_left_ -= count;
  }
  // Work on `bytes` of text.
  void read(size_t bytes) { step(1 + bytes / 32); }

  // Memory that lies elsewhere: buffers that grow.
  void charge(size_t bytes) {
    if (bytes > limits_.memory - used_) [[unlikely]]
      out_of_memory();
    used_ += bytes;
  }
  void refund(size_t bytes) { used_ -= bytes; }
  // Of a text that is going to be made.
  void check_text(size_t bytes) const {
    if (bytes > limits_.text) [[unlikely]]
      text_too_long();
  }

  void* allocate(size_t bytes, size_t alignment);
  template <class T>
  T* array(size_t count) {
    static_assert(std::is_trivially_destructible_v<T>);
    if (count > limits_.memory / sizeof(T)) out_of_memory();
    T* items = static_cast<T*>(allocate(count * sizeof(T), alignof(T)));
    for (size_t i = 0; i < count; ++i) new (items + i) T();
    return items;
  }
  template <class T, class... Args>
  T* make(Args&&... args) {
    static_assert(std::is_trivially_destructible_v<T>);
    return new (allocate(sizeof(T), alignof(T))) T{std::forward<Args>(args)...};
  }
  // Room for a text; counts it as read.
  char* text(size_t bytes) {
    check_text(bytes);
    read(bytes);
    return static_cast<char*>(allocate(bytes, 1));
  }
  std::string_view copy(std::string_view bytes) {
    char* out = text(bytes.size());
    if (!bytes.empty()) std::memcpy(out, bytes.data(), bytes.size());
    return {out, bytes.size()};
  }

 private:
  [[noreturn]] void out_of_steps() const;
  [[noreturn]] void out_of_memory() const;
  [[noreturn]] void text_too_long() const;

  TemplateLimits limits_;
  uint64_t steps_left_;
  size_t used_ = 0;
  std::vector<std::unique_ptr<std::byte[]>> blocks_;
  std::byte *at_ = nullptr, *end_ = nullptr;
};

// A text that grows, counted by the heap; its bytes become a value's with take().
class Buffer {
 public:
  explicit Buffer(Heap& heap) : heap_(heap) {}
  ~Buffer() { heap_.refund(bytes_.capacity()); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void add(std::string_view bytes) {
    heap_.step(bytes.size() / 32);
    if (bytes.size() > bytes_.capacity() - bytes_.size()) grow(bytes.size());
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void add(char byte) { repeat(byte, 1); }
  void add_character(char32_t character);
  void repeat(char byte, size_t count) {
    if (count > bytes_.capacity() - bytes_.size()) grow(count);
    bytes_.insert(bytes_.end(), count, byte);
  }
  size_t size() const { return bytes_.size(); }
  std::string_view view() const { return {bytes_.data(), bytes_.size()}; }
  std::string_view take() { return heap_.copy(view()); }

 private:
  void grow(size_t more);

  Heap& heap_;
  std::vector<char> bytes_;
};

}  // namespace retort::data::jinja
