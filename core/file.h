// Files that survive: everything Retort writes goes through a FileSystem, so that tests inject a full
// disk, a failed fsync or a crash, and everything it reads is mapped, with lengths checked by the reader.
// All of it throws IoError naming the path and errno's text. FileSystem implementations are thread-safe;
// one WritableFile belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace retort {

using Path = std::filesystem::path;

// An append-only file. Nothing is durable before sync() returned, and nothing is complete before close().
class WritableFile {
 public:
  virtual ~WritableFile() = default;  // closes, ignoring errors: call close() to hear of them
  virtual void append(std::span<const std::byte> bytes) = 0;
  virtual void sync() = 0;
  virtual void close() = 0;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // Creates or truncates. `expected_bytes` > 0 reserves the space first (posix_fallocate), so that a full
  // disk shows before a byte is written.
  virtual std::unique_ptr<WritableFile> create(const Path& path, uint64_t expected_bytes = 0) = 0;
  virtual void make_directories(const Path& path) = 0;
  virtual void rename(const Path& from,
                      const Path& to) = 0;            // atomic; files, or a directory onto a free name
  virtual void sync_directory(const Path& path) = 0;  // makes creations and renames in it durable
  virtual void remove_all(const Path& path) = 0;
  virtual uint64_t free_bytes(const Path& path) = 0;
};

// The operating system's. Stateless; the same object for all.
FileSystem& local_files();

// Writes a whole file so that a crash leaves the old one or the new one: temporary name beside it, write,
// fsync, rename, fsync of the directory. On an error the temporary file is removed.
void write_durably(FileSystem& files, const Path& path, std::span<const std::byte> bytes);
void write_durably(FileSystem& files, const Path& path, std::string_view text);
// The same for a file that is made piece by piece: `fill` appends `expected_bytes` bytes in all.
void write_durably(FileSystem& files, const Path& path, uint64_t expected_bytes,
                   const std::function<void(WritableFile&)>& fill);

// A read-only mapping of a whole file; lives while someone holds it. Sharable between threads.
class MappedFile {
 public:
  static std::shared_ptr<const MappedFile> open(const Path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const Path& path() const { return path_; }

 private:
  MappedFile(Path path, const std::byte* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}
  Path path_;
  const std::byte* data_;
  size_t size_;
};

// The whole file as text; refuses (DataError) one larger than `limit` bytes.
std::string read_text(const Path& path, uint64_t limit = uint64_t{1} << 30);

// Holds a directory for one process (flock on DIRECTORY/.lock). Throws IoError naming the holder's pid when
// another process has it. The lock goes with the object or the process, kill -9 included.
class DirectoryLock {
 public:
  explicit DirectoryLock(const Path& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int descriptor_;
};

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace retort
