#include "train/memory_use.h"

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

namespace retort::train {
namespace {

// "VmRSS:     1234 kB" in bytes.
std::optional<uint64_t> field(const Path& file, const std::string& name) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name + ":")) continue;
    std::istringstream words(line.substr(name.size() + 1));
    if (uint64_t kilobytes = 0; words >> kilobytes) return 1024 * kilobytes;
  }
  return {};
}

// Of a file that holds nothing else; a limit that is not there reads "max".
std::optional<uint64_t> number(const Path& file) {
  std::ifstream in(file);
  if (uint64_t value = 0; in >> value) return value;
  return {};
}

struct Files {
  const char *limit, *used;
};
constexpr Files kGroups[] = {
    {"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"},
    {"sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"}};

std::optional<MemoryUse> of_host(const Path& root) {
  const auto now = field(root / "proc/self/status", "VmRSS"),
             peak = field(root / "proc/self/status", "VmHWM"),
             free = field(root / "proc/meminfo", "MemAvailable"),
             total = field(root / "proc/meminfo", "MemTotal");
  if (!now || !peak || !free || !total) return {};
  MemoryUse out{*now, *peak, *free, *total};
  for (const Files& group : kGroups) {
    const auto limit = number(root / group.limit), used = number(root / group.used);
    if (!limit || !used || *limit >= out.total) continue;
    out.total = *limit;
    out.free = std::min(out.free, *limit - std::min(*limit, *used));
  }
  return out;
}

std::optional<MemoryUse> of_device(const at::Device& device) {
  auto* const allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device.type()));
  if (allocator == nullptr || !allocator->initialized()) return {};
  constexpr size_t kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto stats = allocator->getDeviceStats(device.index());
  const auto bytes = [](int64_t x) { return static_cast<uint64_t>(std::max<int64_t>(0, x)); };
  const auto& allocated = stats.allocated_bytes[kAll];
  const auto [free, total] = allocator->getMemoryInfo(device.index());
  return MemoryUse{bytes(allocated.current), bytes(allocated.peak),
                   free + bytes(stats.reserved_bytes[kAll].current - allocated.current), total};
}

}  // namespace

std::optional<MemoryUse> memory_use(const at::Device& device, const Path& root) {
  return device.is_cpu() ? of_host(root) : of_device(device);
}

}  // namespace retort::train
