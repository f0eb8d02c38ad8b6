// Work whose failure all ranks must hear of, so that none waits for a peer that has left. Collective. When
// the work throws on any rank, every rank throws a SharedError with the message and code of the lowest
// failing one. In a world of one the work's own exception passes.
#pragma once

#include <functional>

#include "comm/comm.h"
#include "core/error.h"

namespace retort::comm {

struct SharedError : Error {
  SharedError(const std::string& what, ExitCode code, bool speaks) : Error(what, code), speaks(speaks) {}
  bool speaks;  // rank 0: prints it for all
};

void together(Comm& comm, const std::function<void()>& work);      // on every rank
void on_rank_zero(Comm& comm, const std::function<void()>& work);  // others wait
std::string text_from_rank_zero(Comm& comm,
                                const std::function<std::string()>& work);  // the same on all

// An exception as an Error: LibTorch's without the back trace; a path that was refused an IoError, memory a ConfigError.
Error as_error(const std::exception_ptr& exception);

}  // namespace retort::comm
