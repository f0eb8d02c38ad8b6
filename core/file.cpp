#include "core/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "core/errno_text.h"
#include "core/error.h"
#include "core/input_file.h"

namespace retort {
namespace {

[[noreturn]] void fail_errno(std::string_view doing, const Path& path) {
  fail<IoError>("{}: cannot {}: {}", path.string(), doing, errno_text());
}

class LocalFile final : public WritableFile {
 public:
  LocalFile(const Path& path, uint64_t expected_bytes) : path_(path) {
    descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (descriptor_ < 0) fail_errno("create", path_);
    if (expected_bytes == 0) return;
    int code = EINTR;
    while (code == EINTR) code = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(expected_bytes));
    if (code != 0 && code != EOPNOTSUPP && code != EINVAL) {
      ::close(descriptor_);
      ::unlink(path.c_str());
      errno = code;
      fail_errno(fmt::format("reserve {} bytes", expected_bytes), path_);
    }
  }
  ~LocalFile() override {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  void append(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t done = ::write(descriptor_, bytes.data(), std::min<size_t>(bytes.size(), 1u << 30));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) fail_errno("write", path_);
      bytes = bytes.subspan(static_cast<size_t>(done));
    }
  }
  void sync() override {
    if (::fsync(descriptor_) != 0) fail_errno("fsync", path_);
  }
  void close() override {
    const int descriptor = std::exchange(descriptor_, -1);
    if (::close(descriptor) != 0) fail_errno("close", path_);
  }

 private:
  Path path_;
  int descriptor_ = -1;
};

class LocalFiles final : public FileSystem {
 public:
  std::unique_ptr<WritableFile> create(const Path& path, uint64_t expected_bytes) override {
    return std::make_unique<LocalFile>(path, expected_bytes);
  }
  void make_directories(const Path& path) override {
    std::error_code code;
    std::filesystem::create_directories(path, code);
    if (code) fail<IoError>("{}: cannot create directory: {}", path.string(), code.message());
  }
  void rename(const Path& from, const Path& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) fail_errno(fmt::format("rename {} to", from.string()), to);
  }
  void sync_directory(const Path& path) override {
    const Path directory = path.empty() ? Path(".") : path;
    const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) fail_errno("open directory", directory);
    const int code = ::fsync(descriptor);
    const int reason = errno;
    ::close(descriptor);
    errno = reason;
    if (code != 0 && reason != EINVAL) fail_errno("fsync directory", directory);
  }
  void remove_all(const Path& path) override {
    std::error_code code;
    std::filesystem::remove_all(path, code);
    if (code) fail<IoError>("{}: cannot remove: {}", path.string(), code.message());
  }
  uint64_t free_bytes(const Path& path) override {
    struct statvfs info {};
    if (::statvfs(path.c_str(), &info) != 0) fail_errno("read free space", path);
    return uint64_t{info.f_bavail} * info.f_frsize;
  }
};

}  // namespace

FileSystem& local_files() {
  static LocalFiles files;  // stateless
  return files;
}

void write_durably(FileSystem& files, const Path& path, uint64_t expected_bytes,
                   const std::function<void(WritableFile&)>& fill) {
  const Path temporary = path.string() + fmt::format(".tmp.{}", ::getpid());
  try {
    auto file = files.create(temporary, expected_bytes);
    fill(*file);
    file->sync();
    file->close();
    files.rename(temporary, path);
    files.sync_directory(path.parent_path());
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw;
  }
}

void write_durably(FileSystem& files, const Path& path, std::span<const std::byte> bytes) {
  write_durably(files, path, bytes.size(), [&](WritableFile& file) { file.append(bytes); });
}

void write_durably(FileSystem& files, const Path& path, std::string_view text) {
  write_durably(files, path, as_bytes(text));
}

std::shared_ptr<const MappedFile> MappedFile::open(const Path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // waits for no pipe
  if (descriptor < 0) fail_errno("open", path);
  struct stat info {};
  void* data = nullptr;
  const bool known = ::fstat(descriptor, &info) == 0;
  if (known && S_ISREG(info.st_mode) && info.st_size > 0)
    data = ::mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_SHARED, descriptor, 0);
  const int reason = errno;
  ::close(descriptor);
  errno = reason;
  if (!known || data == MAP_FAILED) fail_errno("map", path);
  check<IoError>(S_ISREG(info.st_mode), "{}: cannot map: not a regular file", path.string());
  return std::shared_ptr<const MappedFile>(
      new MappedFile(path, static_cast<const std::byte*>(data), static_cast<size_t>(info.st_size)));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

std::string read_text(const Path& path, uint64_t limit) {
  const InputFile file(path);
  check<DataError>(file.size() <= limit, "{}: is {} bytes, more than the {} allowed here", path.string(),
                   file.size(), limit);
  std::string text(file.size(), '\0');
  text.resize(file.read(0, std::as_writable_bytes(std::span(text))));
  return text;
}

DirectoryLock::DirectoryLock(const Path& directory) {
  const Path path = directory / ".lock";
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail_errno("create", path);
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    char holder[32] = {};
    const ssize_t got = ::pread(descriptor_, holder, sizeof holder - 1, 0);
    ::close(descriptor_);
    fail<IoError>("{}: another run (pid {}) is using this directory; wait for it or choose another run.dir",
                  directory.string(), got > 0 ? holder : "unknown");
  }
  const std::string pid = fmt::format("{}", ::getpid());
  if (::ftruncate(descriptor_, 0) != 0 || ::pwrite(descriptor_, pid.data(), pid.size(), 0) < 0) {
    ::close(descriptor_);
    fail_errno("write", path);
  }
}

DirectoryLock::~DirectoryLock() { ::close(descriptor_); }

}  // namespace retort
