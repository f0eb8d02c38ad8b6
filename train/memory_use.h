// How much memory is in use where a model trains, the most that was, and what is free: of a device by its allocator, of the host
// by the kernel's count of this process. A control group's limit counts as the host's memory. Nothing where neither tells.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>

#include "core/file.h"

namespace retort::train {

struct MemoryUse {
  uint64_t now = 0, peak = 0;    // of this process
  uint64_t free = 0, total = 0;  // for anybody; free: with what the allocator keeps for later
};
// root: where the host's /proc and /sys lie.
std::optional<MemoryUse> memory_use(const at::Device& device, const Path& root = "/");

}  // namespace retort::train
