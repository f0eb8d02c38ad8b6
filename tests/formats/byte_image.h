// File images written out by hand, little-endian: what a test means to put on disk, byte for byte.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <string>
#include <string_view>

#include "core/error.h"
#include "tests/testing.h"

namespace retort::testing {

class ByteImage {
 public:
  template <class T>
  ByteImage& number(T value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof value);
    std::memcpy(bytes_.data() + at, &value, sizeof value);
    return *this;
  }
  ByteImage& raw(std::string_view text) {
    bytes_ += text;
    return *this;
  }
  ByteImage& string(std::string_view text) { return number<uint64_t>(text.size()).raw(text); }  // GGUF's
  ByteImage& pad(size_t multiple) {
    bytes_.resize((bytes_.size() + multiple - 1) / multiple * multiple, '\0');
    return *this;
  }
  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }

 private:
  std::string bytes_;
};

// Without the durable writer's fsyncs, nor the flush that ext4 makes of a truncation: the tables are long.
inline void put_file(const Path& path, std::string_view bytes) {
  std::filesystem::remove(path);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  ASSERT_TRUE(file.flush()) << path;
}

// open() must throw E with every one of `words` in its message.
template <class E, class Open>
void expect_refused(const std::string& what, Open open, std::initializer_list<std::string_view> words) {
  try {
    open();
    ADD_FAILURE() << what << ": was accepted";
  } catch (const E& e) {
    for (const std::string_view word : words)
      EXPECT_NE(std::string_view(e.what()).find(word), std::string_view::npos)
          << what << ": the message lacks \"" << word << "\": " << e.what();
  } catch (const std::exception& e) {
    ADD_FAILURE() << what << ": wrong kind of error: " << e.what();
  }
}

}  // namespace retort::testing
