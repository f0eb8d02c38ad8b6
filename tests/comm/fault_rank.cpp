// One rank of the fault tests: fault_rank FOLDER WHAT [BACKEND]. It joins the group that its environment tells of, leaves its
// process number in FOLDER/pid-R and takes steps of two collectives, until what is to go wrong at step 20 of rank 1 does:
//
//   none   nothing, and it ends after step 30         skip   it leaves one collective out
//   hang   it computes for ever                       size   it sums another number of elements
//   steps  nothing, and it takes steps for ever       alone  it works alone for ever, the others in a barrier
//
// An error of the group ends it with its exit code.
#include <fmt/core.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "comm/bootstrap.h"
#include "comm/flight.h"
#include "comm/together.h"
#include "core/error.h"

namespace {

using namespace retort;

constexpr int kFault = 20, kLast = 30;

void take_steps(comm::Comm& comm, const std::string& what) {
  const bool faulty = comm.rank() == 1;
  for (int step = 0; what != "none" || step < kLast; ++step) {
    int64_t elements = 2000;
    if (step == kFault) {
      if (what == "alone" && !faulty) comm.barrier();
      while (faulty && (what == "hang" || what == "alone"))
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      if (faulty && what == "skip") comm.broadcast(at::ones({8}), 0).wait();
      if (faulty && what == "size") ++elements;
    }
    comm.all_reduce(at::ones({elements}), comm::Reduce::kSum).wait();
    comm.broadcast(at::ones({8}), 0).wait();
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const std::filesystem::path folder = argv[1];
  comm::Started started;
  try {
    started = comm::start_comm(argc > 3 ? argv[3] : "auto");
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.code());
  }
  comm::Comm& comm = *started.comm;
  if (comm.flight()) comm.flight()->write_to(folder);
  const std::filesystem::path half = folder / fmt::format("half-{}", comm.rank());
  std::ofstream(half) << ::getpid();
  std::filesystem::rename(half, folder / fmt::format("pid-{}", comm.rank()));
  try {
    take_steps(comm, argv[2]);
  } catch (const CommError& error) {
    comm.abort(error.what(), static_cast<int>(error.code()));
  }
  fmt::print("rank {} is done\n", comm.rank());
  return 0;
}
