// File systems for tests: one that does not wait for the disk, and one whose k-th operation goes wrong, once. Both also
// open ranges, as thread-safe as the local ones.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "core/error.h"
#include "core/file.h"
#include "train/range_files.h"

namespace retort::train {

// The local one without fsync, whose effect no test could see and whose time every test would feel.
class QuickFiles : public FileSystem, public RangeFiles {
 public:
  std::unique_ptr<WritableFile> create(const Path& path, uint64_t expected_bytes = 0) override {
    return std::make_unique<File>(local_files().create(path, expected_bytes));
  }
  std::unique_ptr<WritableFile> open_at(const Path& path, uint64_t offset) override {
    return std::make_unique<File>(local_ranges().open_at(path, offset));
  }
  void make_directories(const Path& path) override { local_files().make_directories(path); }
  void rename(const Path& from, const Path& to) override { local_files().rename(from, to); }
  void sync_directory(const Path&) override {}
  void remove_all(const Path& path) override { local_files().remove_all(path); }
  uint64_t free_bytes(const Path& path) override { return local_files().free_bytes(path); }

 private:
  class File final : public WritableFile {
   public:
    explicit File(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}
    void append(std::span<const std::byte> bytes) override { file_->append(bytes); }
    void sync() override {}
    void close() override { file_->close(); }

   private:
    std::unique_ptr<WritableFile> file_;
  };
};

inline QuickFiles& quick_files() {
  static QuickFiles files;  // stateless
  return files;
}

enum class Fault {
  kNoSpace,  // the operation throws IoError, half done; what follows works
  kCrash,    // the process dies in it: half done, nothing follows, what was not synced is lost
  kKill,     // the same by SIGKILL, where this is a process of its own
  kLie,      // half of the bytes are dropped, and nobody is told
};

struct Crash {};  // outside the Error tree: nothing may handle it

class FaultyFiles final : public QuickFiles {
 public:
  FaultyFiles(Fault fault, int64_t at) : fault_(fault), at_(at) {}
  bool fired() const { return fired_; }
  int64_t operations() const { return count_; }

  std::unique_ptr<WritableFile> create(const Path& path, uint64_t expected_bytes) override {
    tick();
    auto file = std::make_unique<File>(*this, path, files_.create(path, expected_bytes));
    mark_unsynced(path);
    return file;
  }
  std::unique_ptr<WritableFile> open_at(const Path& path, uint64_t offset) override {
    tick();
    auto file = std::make_unique<File>(*this, path, files_.open_at(path, offset));
    mark_unsynced(path);
    return file;
  }
  void make_directories(const Path& path) override { tick(), files_.make_directories(path); }
  void rename(const Path& from, const Path& to) override {
    tick();
    files_.rename(from, to);
    const std::lock_guard lock(mutex_);
    std::set<Path> moved;
    for (const Path& path : unsynced_) {
      const std::string text = path.string(), old = from.string();
      moved.insert(text.starts_with(old) ? Path(to.string() + text.substr(old.size())) : path);
    }
    unsynced_ = moved;
  }
  void sync_directory(const Path& path) override { tick(), files_.sync_directory(path); }
  void remove_all(const Path& path) override {
    tick([&] {  // half of it
      std::error_code none;
      for (const auto& entry : std::filesystem::directory_iterator(path, none)) {
        std::filesystem::remove(entry.path());
        break;
      }
    });
    files_.remove_all(path);
  }
  uint64_t free_bytes(const Path& path) override { return tick(), files_.free_bytes(path); }

 private:
  class File final : public WritableFile {
   public:
    File(FaultyFiles& owner, Path path, std::unique_ptr<WritableFile> file)
        : owner_(owner), path_(std::move(path)), file_(std::move(file)) {}
    void append(std::span<const std::byte> bytes) override {
      const auto half = [&] { file_->append(bytes.first(bytes.size() / 2)); };
      if (!owner_.tick(half)) file_->append(bytes);
    }
    void sync() override {
      if (owner_.tick()) return;
      file_->sync();
      const std::lock_guard lock(owner_.mutex_);
      owner_.unsynced_.erase(path_);
    }
    void close() override { owner_.tick(), file_->close(); }

   private:
    FaultyFiles& owner_;
    Path path_;
    std::unique_ptr<WritableFile> file_;
  };

  // Counts an operation. At the k-th: does `half` of it and throws, or returns true for a lie.
  template <class Half>
  bool tick(const Half& half) {
    const std::lock_guard lock(mutex_);
    if (crashed_) throw Crash{};
    if (count_++ != at_) return false;
    fired_ = true;
    half();
    if (fault_ == Fault::kNoSpace) fail<IoError>("operation {}: No space left on device", at_);
    if (fault_ == Fault::kLie) return true;
    if (fault_ == Fault::kKill) ::kill(::getpid(), SIGKILL);
    crashed_ = true;
    for (const Path& path : unsynced_)
      if (std::filesystem::exists(path)) std::filesystem::resize_file(path, 0);
    throw Crash{};
  }
  bool tick() {
    return tick([] {});
  }
  void mark_unsynced(const Path& path) {
    const std::lock_guard lock(mutex_);
    unsynced_.insert(path);
  }

  std::mutex mutex_;
  QuickFiles files_;
  Fault fault_;
  int64_t at_, count_ = 0;
  bool fired_ = false, crashed_ = false;
  std::set<Path> unsynced_;
};

}  // namespace retort::train
