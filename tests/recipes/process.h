// The program as a user runs it: a process of it, with its output in files.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "core/error.h"
#include "tests/testing.h"

namespace retort::testing {

// The program that this build has made.
inline Path binary() {
  const char* build = std::getenv("RETORT_BINARY_DIR");
  return Path(build != nullptr ? build : source_directory() / "build" / "release") / "launch" / "retort";
}

// What a command begins with to be so many ranks of Open MPI, for root too.
inline std::vector<std::string> mpirun(int ranks) {
  return {"env",
          "OMPI_ALLOW_RUN_AS_ROOT=1",
          "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
          "mpirun",
          "--oversubscribe",
          "--bind-to",
          "none",
          "-n",
          std::to_string(ranks)};
}

// Whether this machine and this build have it.
inline bool has_mpirun() {
  return comm::mpi_missing().empty() && std::system("command -v mpirun >/dev/null") == 0;
}

// A port that nobody has at present.
inline int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  socklen_t size = sizeof address;
  const bool found = ::bind(socket, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(socket);
  check<InternalError>(found, "no free port");
  return ntohs(address.sin_port);
}

// A process of ours with its output in files.
class Process {
 public:
  Process(const std::vector<std::string>& command, const Path& out) {
    pid_ = ::fork();
    if (pid_ != 0) return;
    std::vector<char*> argv;
    for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    if (std::freopen((out.string() + ".out").c_str(), "w", stdout) == nullptr ||
        std::freopen((out.string() + ".err").c_str(), "w", stderr) == nullptr)
      ::_exit(126);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  ~Process() {
    if (signal(SIGKILL)) wait();
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  // False when it has ended already: kill(0) would signal whoever runs the tests.
  bool signal(int number) const { return pid_ > 0 && ::kill(pid_, number) == 0; }
  bool running() {
    int status = 0;
    if (pid_ > 0 && ::waitpid(pid_, &status, WNOHANG) == pid_) finish(status);
    return pid_ > 0;
  }
  int wait() {  // the exit code; 128 + n when signal n killed it
    int status = 0;
    if (pid_ > 0 && ::waitpid(pid_, &status, 0) == pid_) finish(status);
    return code_;
  }

 private:
  void finish(int status) {
    pid_ = 0;
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  pid_t pid_ = 0;
  int code_ = -1;
};

}  // namespace retort::testing
