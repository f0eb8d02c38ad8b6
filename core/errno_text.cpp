#include "core/errno_text.h"

#include <cstring>

namespace retort {

std::string errno_text(int code) {
  return code == 0 ? "the system gives no reason" : std::strerror(code);
}

}  // namespace retort
