// MPI lies in a library beside the program, libretort_mpi.so (mpi_comm.cpp), which needs libmpi and is opened where a
// launcher of MPI is found: the program starts without either. $RETORT_MPI_PLUGIN names another place.
#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

#include "comm/bootstrap.h"
#include "comm/comm.h"
#include "comm/queued_comm.h"
#include "core/error.h"

namespace retort::comm {
namespace {

using MakeTransport = Transport*(double timeout_seconds, double alone_seconds);

std::string library_path() {
  const char* const given = std::getenv("RETORT_MPI_PLUGIN");
  if (given != nullptr && *given != '\0') return given;
  std::error_code failed;
  return std::filesystem::read_symlink("/proc/self/exe", failed)
      .replace_filename("libretort_mpi.so")
      .string();
}

struct Library {
  MakeTransport* make = nullptr;
  std::string missing;  // why it cannot be used
};

Library open_library(const std::string& path) {
  std::error_code failed;
  if (!std::filesystem::exists(path, failed))
    return {nullptr, fmt::format("there is no {}, which a build with MPI makes (RETORT_MPI=ON)", path)};
  // Global: Open MPI opens parts of its own that look for its symbols.
  void* const library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) return {nullptr, fmt::format("{} (Debian has libmpi in libopenmpi3)", ::dlerror())};
  auto* const stamp = reinterpret_cast<const char* (*)()>(::dlsym(library, "retort_mpi_stamp"));
  if (stamp == nullptr || std::string(stamp()) != RETORT_PLUGIN_STAMP)
    return {nullptr, fmt::format("{} is {}, and this program is of {}: take the one that was built with it",
                                 path, stamp == nullptr ? "no part of retort" : fmt::format("of {}", stamp()),
                                 RETORT_PLUGIN_STAMP)};
  return {reinterpret_cast<MakeTransport*>(::dlsym(library, "retort_mpi_transport")), ""};
}

const Library& library() {
  static const Library opened = open_library(library_path());  // never closed: MPI is once a process
  return opened;
}

}  // namespace

std::string mpi_missing() { return library().missing; }

std::unique_ptr<Comm> make_mpi_comm(const CommOptions& options) {
  check<CommError>(mpi_launcher(process_environment).has_value(),
                   "[mpi] no launcher started this process: use `mpirun -n N retort ...`");
  check<ConfigError>(library().missing.empty(), "[mpi] {}", library().missing);
  return std::make_unique<QueuedComm>([options] {
    return std::unique_ptr<Transport>(library().make(options.timeout_seconds, options.alone_seconds));
  });
}

}  // namespace retort::comm
