// Why the operating system refused, in words. The one place that asks for them: strerror(0) is "Success", which
// explains no failure, and an argument `std::strerror(errno)` may be made before the call that fails. Call it
// after the call. Any thread.
#pragma once

#include <cerrno>
#include <string>

namespace retort {

std::string errno_text(int code = errno);

}  // namespace retort
