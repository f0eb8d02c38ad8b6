// A mapped file whose bytes the disk refuses, or that has become shorter, is no death by SIGBUS: the process says which
// file, and ends with exit code 74. The one handler of the program (signals.h), which may be, since it never returns.
#pragma once

namespace retort::launch {

void fail_at_lost_pages();

}  // namespace retort::launch
