// How much shared memory a kernel has without asking: 48 KiB a block, of which its own variables are a part that the launch does
// not know. Here and in the emulation, which judges as a device does.
#pragma once

#include <cstddef>

namespace retort::kernels::cuda {

// Of dynamic shared memory, above which a launch asks; 16 KiB are left for variables.
constexpr size_t kUnaskedDynamic = 32 << 10;

}  // namespace retort::kernels::cuda
