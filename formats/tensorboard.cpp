#include "formats/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <ctime>
#include <span>

namespace retort::formats {
namespace {

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) ? 0x82F63B78u : 0u);
    table[i] = value;
  }
  return table;
}();

// The format stores checksums rotated and shifted, so that a checksum of data with checksums stays sound.
uint32_t masked_crc(std::string_view data) {
  const uint32_t crc = crc32c(as_bytes(data));
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <class T>
std::string little_endian(T value) {
  static_assert(std::endian::native == std::endian::little);
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

// Protobuf fields: the key byte is field << 3 | wire type (0 varint, 1 double, 2 bytes, 5 float).
std::string bytes_field(char key, const std::string& content) { return key + varint(content.size()) + content; }

std::string record(const std::string& event) {
  const std::string length = little_endian<uint64_t>(event.size());
  return length + little_endian(masked_crc(length)) + event + little_endian(masked_crc(event));
}

std::string event_head(double wall_time) { return '\x09' + little_endian(wall_time); }

}  // namespace

uint32_t crc32c(std::span<const std::byte> bytes) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const std::byte byte : bytes) crc = kCrcTable[(crc ^ static_cast<uint32_t>(byte)) & 0xFF] ^ (crc >> 8);
  return crc ^ 0xFFFFFFFFu;
}

TensorboardWriter::TensorboardWriter(const Path& directory) {
  local_files().make_directories(directory);
  const std::time_t now = std::time(nullptr);
  char host[256] = "localhost";
  if (::gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
  file_ = local_files().create(directory / fmt::format("events.out.tfevents.{:010}.{}.{}.0", now, host, ::getpid()));
  file_->append(as_bytes(record(event_head(static_cast<double>(now)) + bytes_field('\x1A', "brain.Event:2"))));
}

TensorboardWriter::~TensorboardWriter() = default;

void TensorboardWriter::scalars(int64_t step, double wall_time, const std::map<std::string, double>& values) {
  std::string summary;
  for (const auto& [tag, value] : values)
    summary += bytes_field('\x0A', bytes_field('\x0A', tag) + '\x15' + little_endian(static_cast<float>(value)));
  const std::string event =
      event_head(wall_time) + '\x10' + varint(static_cast<uint64_t>(step)) + bytes_field('\x2A', summary);
  file_->append(as_bytes(record(event)));
}

}  // namespace retort::formats
