#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "comm/comm.h"
#include "core/cuda_plugin.h"
#include "core/error.h"

namespace retort::comm {
namespace {

using Files = std::set<std::filesystem::path>;

// Of a library's copies in this process.
Files mapped(const std::string& library) {
  Files out;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (const size_t path = line.find('/');
        path != std::string::npos && line.find("/" + library) != std::string::npos)
      out.insert(std::filesystem::canonical(line.substr(path)));
  return out;
}

// Where libtorch_cuda looks for NCCL first, beside the wheel; none: the system's serves.
Files in_the_wheels() {
  const std::filesystem::path torch = mapped("libtorch_cpu.so").begin()->parent_path(),
                              nccl = torch / "../../nvidia/nccl/lib/libnccl.so.2";
  return std::filesystem::exists(nccl) ? Files{std::filesystem::canonical(nccl)} : Files{};
}

// What `work` says in a process of its own, in which libraries may stay.
std::string in_a_child(std::string (*work)()) {
  int ends[2] = {};
  if (::pipe(ends) != 0) return "no pipe";
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(120);
    const std::string text = work();
    ::_exit(::write(ends[1], text.data(), text.size()) == std::ssize(text) ? 0 : 1);
  }
  ::close(ends[1]);
  std::string out;
  char part[512];
  for (ssize_t count = 0; (count = ::read(ends[0], part, sizeof part)) > 0;)
    out.append(part, static_cast<size_t>(count));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return status == 0 ? out : "the child has died: " + out;
}

}  // namespace

// All that can be said without a GPU; with one, a world of one must come up and pass CPU tensors on.
TEST(NcclComm, ComesUpOrSaysWhatIsMissing) {
  const auto self = make_self_comm();
  try {
    const auto comm = make_nccl_comm(*self);
    EXPECT_EQ(comm->name(), "nccl");
    EXPECT_EQ(comm->size(), 1);
    EXPECT_EQ(comm->reduce(2.5, Reduce::kSum), 2.5);
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("[nccl] "));
  }
}

// Two would know nothing of each other's communicators and streams, and the wheel's is what LibTorch was built against.
TEST(NcclComm, IsTheCopyThatLibTorchLoads) {
  const std::string said = in_a_child([]() -> std::string {
    const CudaPlugin& plugin = CudaPlugin::get();
    if (!plugin.missing().empty()) return "skip: " + plugin.missing();
    if (plugin.function<void()>("retort_cuda_nccl_id") == nullptr) return "skip: this build has no NCCL";
    const Files ours = mapped("libnccl.so"), wheels = in_the_wheels();
    if (ours.size() != 1 || (!wheels.empty() && ours != wheels))
      return "opened: " + ::testing::PrintToString(ours);
    auto* const start = plugin.function<const char*()>("retort_cuda_start");
    const char* const why = start == nullptr ? "it does not start" : start();
    if (why != nullptr && std::string(why).find(".so") != std::string::npos)
      return std::string("skip: LibTorch's half of CUDA cannot be loaded: ") + why;
    const Files both = mapped("libnccl.so");
    return both == ours ? "one" : "opened: " + ::testing::PrintToString(both);
  });
  if (said.starts_with("skip: ")) GTEST_SKIP() << said.substr(6);
  EXPECT_EQ(said, "one");
}

}  // namespace retort::comm
