// Field keys of a protobuf are (number << 3) | wire type; types here: 0 varint, 1 double, 2 bytes, 5 float.
#include "formats/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>
#include <climits>

namespace retort::formats {
namespace {

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
    table[i] = crc;
  }
  return table;
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(as_bytes(bytes));
  return std::rotr(crc, 15) + 0xa282ead8u;
}

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void put_bytes(std::string& out, char key, std::string_view bytes) {
  out += key;
  put_varint(out, bytes.size());
  out += bytes;
}

std::string event(double wall_time) {
  std::string out(1, '\x09');  // 1: double wall_time
  put(out, wall_time);
  return out;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// events.out.tfevents.SECONDS.HOST.PID.N, the first N whose name is free.
Path new_file(const Path& directory, double wall_time) {
  char host[HOST_NAME_MAX + 1] = "localhost";
  ::gethostname(host, sizeof host - 1);
  for (int number = 0;; ++number) {
    Path path = directory / fmt::format("events.out.tfevents.{:010}.{}.{}.{}",
                                        static_cast<int64_t>(wall_time), host, ::getpid(), number);
    if (!std::filesystem::exists(path)) return path;
  }
}

}  // namespace

uint32_t crc32c(std::span<const std::byte> bytes) {
  static constexpr std::array<uint32_t, 256> table = make_table();
  uint32_t crc = 0xFFFFFFFFu;
  for (const std::byte byte : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<uint32_t>(byte)) & 0xFF];
  return ~crc;
}

std::string version_event(double wall_time) {
  std::string out = event(wall_time);
  put_bytes(out, '\x1a', "brain.Event:2");  // 3: file_version
  return out;
}

std::string scalars_event(int64_t step, double wall_time, const std::map<std::string, double>& values) {
  std::string summary;
  for (const auto& [tag, number] : values) {
    std::string value;
    put_bytes(value, '\x0a', tag);  // 1: tag
    value += '\x15';                // 2: float simple_value
    put(value, static_cast<float>(number));
    put_bytes(summary, '\x0a', value);  // 1: repeated Value
  }
  std::string out = event(wall_time);
  out += '\x10';  // 2: int64 step
  put_varint(out, static_cast<uint64_t>(step));
  put_bytes(out, '\x2a', summary);  // 5: Summary
  return out;
}

std::string tensorboard_record(std::string_view event) {
  std::string out;
  put<uint64_t>(out, event.size());
  put(out, masked_crc(out));
  out += event;
  put(out, masked_crc(event));
  return out;
}

TensorboardWriter::TensorboardWriter(const Path& directory) {
  local_files().make_directories(directory);
  const double wall_time = now();
  path_ = new_file(directory, wall_time);
  file_ = local_files().create(path_);
  file_->append(as_bytes(tensorboard_record(version_event(wall_time))));
}

TensorboardWriter::~TensorboardWriter() = default;

void TensorboardWriter::scalars(int64_t step, double wall_time, const std::map<std::string, double>& values) {
  file_->append(as_bytes(tensorboard_record(scalars_event(step, wall_time, values))));
}

}  // namespace retort::formats
