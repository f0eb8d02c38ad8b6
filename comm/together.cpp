#include "comm/together.h"

#include <c10/util/Exception.h>

#include <system_error>

#include "comm/faulty_machine.h"

namespace retort::comm {
namespace {

constexpr ExitCode kCodes[] = {ExitCode::kUsage,       ExitCode::kBadData,   ExitCode::kInternal,
                               ExitCode::kInputOutput, ExitCode::kPreempted, ExitCode::kCommunication,
                               ExitCode::kNonFinite,   kFaultyMachine};

ExitCode code_of(int64_t value) {
  for (const ExitCode code : kCodes)
    if (static_cast<int64_t>(code) == value) return code;
  return ExitCode::kInternal;
}

// As a step that is refused memory has it (train/holders.h): this machine has less than the recipe takes.
ConfigError out_of_memory() {
  return ConfigError("out of memory: lower data.micro_batch or the model's sizes");
}

}  // namespace

Error as_error(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const Error& error) {
    return error;
  } catch (const c10::OutOfMemoryError&) {
    return out_of_memory();
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    return what.find("can't allocate memory") == what.npos ? Error(what, ExitCode::kInternal)
                                                           : out_of_memory();
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::system_error& error) {  // a path that cannot be looked at, a thread that cannot start
    return IoError(error.what());
  } catch (const std::exception& error) {
    return {error.what(), ExitCode::kInternal};
  } catch (...) {
    return {"an unknown exception", ExitCode::kInternal};
  }
}

void together(Comm& comm, const std::function<void()>& work) {
  if (comm.size() == 1) return work();
  std::exception_ptr failure;
  try {
    work();
  } catch (const CommError&) {
    throw;  // the group itself is broken: nothing can be shared
  } catch (...) {
    failure = std::current_exception();
  }
  comm.barrier();  // a rank may have worked alone for longer than the watchdog allows
  const int64_t mine = failure ? comm.rank() : comm.size();
  const auto first = static_cast<int>(comm.reduce(mine, Reduce::kMin));
  if (first == comm.size()) return;
  const Error error = first == comm.rank() ? as_error(failure) : Error("", ExitCode::kInternal);
  const std::string what = comm.broadcast_text(error.what(), first);
  const auto code = std::stoll(comm.broadcast_text(std::to_string(static_cast<int>(error.code())), first));
  throw SharedError(fmt::format("rank {}: {}", first, what), code_of(code), comm.rank() == 0);
}

void on_rank_zero(Comm& comm, const std::function<void()>& work) {
  together(comm, [&] {
    if (comm.rank() == 0) work();
  });
}

std::string text_from_rank_zero(Comm& comm, const std::function<std::string()>& work) {
  std::string text;
  on_rank_zero(comm, [&] { text = work(); });
  return comm.size() == 1 ? text : comm.broadcast_text(text);
}

}  // namespace retort::comm
