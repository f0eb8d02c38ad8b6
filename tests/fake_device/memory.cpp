#include "tests/fake_device/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/error.h"

namespace retort::testing {

Memory& Memory::get() {
  static Memory* const memory = new Memory;  // tensors of static objects outlive everything
  return *memory;
}

Memory::Memory() {
  const int file = memfd_create("fake device", 0);
  RETORT_ASSERT(file >= 0 && ftruncate(file, kBytes) == 0);
  const auto map = [&](int rights, void* place, int fixed) {
    void* const at = mmap(place, kBytes, rights, MAP_SHARED | MAP_NORESERVE | fixed, file, 0);
    RETORT_ASSERT(at != MAP_FAILED);
    return static_cast<char*>(at);
  };
  // What of a launch's arguments is an address is told by its value (fake_device.cpp), and four bytes of padding beside a
  // small number may hold the upper half of ours. So it begins in the middle of its size: lower halves are no small numbers.
  void* const hole = mmap(nullptr, 3 * kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  RETORT_ASSERT(hole != MAP_FAILED);
  const uintptr_t whole = (reinterpret_cast<uintptr_t>(hole) + kBytes - 1) / kBytes * kBytes;
  closed_ = map(PROT_NONE, reinterpret_cast<void*>(whole + kBytes / 2), MAP_FIXED);
  readable_ = map(PROT_READ | PROT_WRITE, nullptr, 0);
  close(file);
}

void* Memory::allocate(size_t bytes, Pool* pool) {
  const size_t size = (bytes + kUnit) / kUnit * kUnit;
  const std::lock_guard lock(mutex_);
  if (pool == nullptr) count(size);
  if (pool != nullptr && (pool->in_use += size) > pool->most) {
    count(pool->in_use - pool->most);
    pool->most = pool->in_use;
  }
  void* address = nullptr;
  if (pool != nullptr && !pool->spare[size].empty()) {
    address = pool->spare[size].back();
    pool->spare[size].pop_back();
  } else {
    address = take(size);
  }
  entries_[static_cast<char*>(address)] = {size, ++numbers_, pool, true};
  std::memset(readable(address), 0xff, size);
  return address;
}

void Memory::count(size_t size) {
  TORCH_CHECK_WITH(OutOfMemoryError, in_use_ + size <= most_, "fake device out of memory. Tried to allocate ",
                   size, " bytes");
  in_use_ += size;
  peak_ = std::max(peak_, in_use_);
}

void* Memory::take(size_t size) {
  auto& spare = spare_[size];
  void* address = nullptr;
  if (!spare.empty()) {
    address = spare.back();
    spare.pop_back();
  } else {
    RETORT_ASSERT(used_ + size <= kBytes);
    address = closed_ + used_;
    used_ += size;
  }
  return address;
}

void Memory::free(void* address) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(static_cast<char*>(address));
  RETORT_ASSERT(found != entries_.end() && found->second.in_use);
  Entry& entry = found->second;
  if (entry.pool != nullptr) {
    entry.in_use = false;
    entry.pool->in_use -= entry.size;
    entry.pool->spare[entry.size].push_back(address);
    return;
  }
  in_use_ -= entry.size;
  spare_[entry.size].push_back(address);
  entries_.erase(found);
}

// What tensors of it still have is as any other from now on.
void Memory::give_back(Pool& pool) {
  const std::lock_guard lock(mutex_);
  in_use_ -= pool.most - pool.in_use;
  for (auto it = entries_.begin(); it != entries_.end();) {
    Entry& entry = it->second;
    if (entry.pool != &pool || entry.in_use) {
      if (entry.pool == &pool) entry.pool = nullptr;
      ++it;
      continue;
    }
    spare_[entry.size].push_back(const_cast<char*>(it->first));
    it = entries_.erase(it);
  }
}

Memory::Block Memory::block_of(const void* address) {
  const std::lock_guard lock(mutex_);
  const auto* const at = static_cast<const char*>(address);
  const auto after = entries_.upper_bound(at);
  if (after == entries_.begin()) return {};
  const auto& [begin, entry] = *std::prev(after);
  if (!entry.in_use || at >= begin + entry.size) return {};
  return {begin, entry.number, entry.pool};
}

void Memory::poison(const Pool& pool) {
  const std::lock_guard lock(mutex_);
  for (const auto& [begin, entry] : entries_)
    if (entry.pool == &pool) std::memset(readable(begin), 0xff, entry.size);
}

std::vector<const void*> Memory::in_use(const Pool& pool) {
  const std::lock_guard lock(mutex_);
  std::vector<const void*> out;
  for (const auto& [begin, entry] : entries_)
    if (entry.pool == &pool && entry.in_use) out.push_back(begin);
  return out;
}

void* Memory::readable(const void* address) const {
  const auto offset = static_cast<const char*>(address) - closed_;
  RETORT_ASSERT(offset >= 0 && static_cast<size_t>(offset) <= kBytes);
  return readable_ + offset;
}

void Memory::limit(size_t more) {
  const std::lock_guard lock(mutex_);
  most_ = in_use_ + more;
}

void Memory::begin_peak() {
  const std::lock_guard lock(mutex_);
  before_peak_ = peak_ = in_use_;
}

Memory::Use Memory::use() {
  const std::lock_guard lock(mutex_);
  return {in_use_, peak_, most_};
}

size_t Memory::peak() {
  const std::lock_guard lock(mutex_);
  return peak_ - before_peak_;
}

void Memory::open(int more) {
  const std::lock_guard lock(mutex_);
  const bool before = opened_ > 0;
  opened_ += more;
  if ((opened_ > 0) == before) return;
  RETORT_ASSERT(mprotect(closed_, kBytes, before ? PROT_NONE : PROT_READ | PROT_WRITE) == 0);
}

}  // namespace retort::testing
