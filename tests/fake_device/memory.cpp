#include "tests/fake_device/memory.h"

#include <sys/mman.h>
#include <unistd.h>

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
  const auto map = [&](int rights) {
    void* const at = mmap(nullptr, kBytes, rights, MAP_SHARED | MAP_NORESERVE, file, 0);
    RETORT_ASSERT(at != MAP_FAILED);
    return static_cast<char*>(at);
  };
  closed_ = map(PROT_NONE);
  readable_ = map(PROT_READ | PROT_WRITE);
  close(file);
}

void* Memory::allocate(size_t bytes) {
  const size_t size = (bytes + kUnit) / kUnit * kUnit;
  const std::lock_guard lock(mutex_);
  TORCH_CHECK_WITH(OutOfMemoryError, in_use_ + size <= most_, "fake device out of memory. Tried to allocate ",
                   size, " bytes");
  in_use_ += size;
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
  sizes_[address] = size;
  std::memset(readable(address), 0xff, size);
  return address;
}

void Memory::free(void* address) {
  const std::lock_guard lock(mutex_);
  const auto found = sizes_.find(address);
  RETORT_ASSERT(found != sizes_.end());
  in_use_ -= found->second;
  spare_[found->second].push_back(address);
  sizes_.erase(found);
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

void Memory::open(int more) {
  const std::lock_guard lock(mutex_);
  const bool before = opened_ > 0;
  opened_ += more;
  if ((opened_ > 0) == before) return;
  RETORT_ASSERT(mprotect(closed_, kBytes, before ? PROT_NONE : PROT_READ | PROT_WRITE) == 0);
}

}  // namespace retort::testing
