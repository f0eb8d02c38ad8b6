#include "core/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "core/error.h"
#include "tests/testing.h"

namespace retort {
namespace {

int interruptions = 0;  // of the reservations to come

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

// In place of the C library's: a signal is wanted where none can be timed.
extern "C" int posix_fallocate(int descriptor, off_t offset, off_t length) {
  if (interruptions > 0) return --interruptions, EINTR;
  return ::fallocate(descriptor, 0, offset, length) == 0 ? 0 : errno;
}

TEST(File, DurableWriteReplacesWholeFiles) {
  testing::TemporaryDirectory directory;
  const Path path = directory / "a.txt";
  write_durably(local_files(), path, "one");
  write_durably(local_files(), path, "two, longer");
  EXPECT_EQ(read_text(path), "two, longer");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}),
            1);  // no temporary left
}

TEST(File, FailureKeepsTheOldFileAndLeavesNoTemporary) {
  testing::TemporaryDirectory directory;
  const Path path = directory / "a.txt";
  write_durably(local_files(), path, "old");

  // Fails in the middle of a write, as a full disk does.
  class FullDisk final : public FileSystem {
    class File final : public WritableFile {
     public:
      explicit File(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}
      void append(std::span<const std::byte> bytes) override {
        file_->append(bytes.first(bytes.size() / 2));
        throw IoError("No space left on device");
      }
      void sync() override { file_->sync(); }
      void close() override { file_->close(); }

     private:
      std::unique_ptr<WritableFile> file_;
    };

   public:
    std::unique_ptr<WritableFile> create(const Path& p, uint64_t n) override {
      return std::make_unique<File>(local_files().create(p, n));
    }
    void make_directories(const Path& p) override { local_files().make_directories(p); }
    void rename(const Path& a, const Path& b) override { local_files().rename(a, b); }
    void sync_directory(const Path& p) override { local_files().sync_directory(p); }
    void remove_all(const Path& p) override { local_files().remove_all(p); }
    uint64_t free_bytes(const Path& p) override { return local_files().free_bytes(p); }
  } full;
  EXPECT_THROW(write_durably(full, path, "new and long"), IoError);
  EXPECT_EQ(read_text(path), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}), 1);
}

TEST(File, ErrorsNameThePathAndTheReason) {
  EXPECT_EQ(error_of([] { MappedFile::open("/no/such/file"); }),
            "/no/such/file: cannot open: No such file or directory");
  EXPECT_NE(error_of([] { MappedFile::open("/tmp"); }), "");
  testing::TemporaryDirectory directory;
  EXPECT_NE(
      error_of([&] { local_files().create(directory / "missing" / "x"); }).find("missing/x: cannot create"),
      std::string::npos);
}

TEST(File, ReservingMoreThanTheDiskHasFailsBeforeWriting) {
  testing::TemporaryDirectory directory;
  const Path path = directory / "big";
  EXPECT_THROW(local_files().create(path, uint64_t{1} << 60), IoError);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(File, Fault16AnInterruptedReservationIsTriedAgain) {
  testing::TemporaryDirectory directory;
  interruptions = 3;
  local_files().create(directory / "a", 4096)->close();
  EXPECT_EQ(interruptions, 0);
  EXPECT_EQ(std::filesystem::file_size(directory / "a"), 4096u);
}

TEST(File, MapsEmptyAndFullFiles) {
  testing::TemporaryDirectory directory;
  write_durably(local_files(), directory / "empty", "");
  EXPECT_EQ(MappedFile::open(directory / "empty")->bytes().size(), 0u);
  write_durably(local_files(), directory / "x", "abc");
  EXPECT_EQ(MappedFile::open(directory / "x")->bytes()[1], std::byte{'b'});
  EXPECT_THROW(read_text(directory / "x", 2), DataError);
}

TEST(DirectoryLock, Fault17ASecondProcessIsRefusedAndTheLockDiesWithItsHolder) {
  testing::TemporaryDirectory directory;
  const pid_t child = ::fork();
  if (child == 0) {  // holds the lock and is killed
    try {
      const DirectoryLock lock(directory.path());
      write_durably(local_files(), directory / "ready", "1");
      ::pause();
    } catch (...) {
    }
    ::_exit(1);
  }
  while (!std::filesystem::exists(directory / "ready")) {
    ASSERT_EQ(::waitpid(child, nullptr, WNOHANG), 0) << "the child has ended";
    ::usleep(1000);
  }
  const std::string message = error_of([&] { DirectoryLock second(directory.path()); });
  EXPECT_NE(message.find(fmt::format("pid {}", child)), std::string::npos) << message;
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_NO_THROW(DirectoryLock(directory.path()));
}

}  // namespace retort
