#include "core/kept_pages.h"

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

namespace retort {

namespace {

constexpr int kNever = -1;  // of a threshold

// The heap grows into one piece of address space that is marked for large pages; what is not touched costs nothing.
// The kernel backs by itself only what it is asked to, and where it does not, nothing changes.
void mark_for_large_pages() {
  constexpr uintptr_t kPage = 2 << 20;
  const auto memory =
      static_cast<uintptr_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  void* const heap = std::malloc(memory / 2);
  if (heap == nullptr) return;  // a limit on address space
  const auto begin = (reinterpret_cast<uintptr_t>(heap) + kPage - 1) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), memory / 2 - kPage, MADV_HUGEPAGE);
  std::free(heap);
}

}  // namespace

// Large blocks come from the heap, and the heap never shrinks.
KeptPages::KeptPages() {
  if (mallopt(M_MMAP_MAX, 0) == 0) return;  // another malloc, which may touch all that it hands out
  mallopt(M_TRIM_THRESHOLD, kNever);
  mallopt(M_TOP_PAD, 64 << 20);
  mark_for_large_pages();
}

// As malloc would be by itself after it has freed a large block.
KeptPages::~KeptPages() {
  mallopt(M_MMAP_MAX, 65536);
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  mallopt(M_TOP_PAD, 128 << 10);
  malloc_trim(0);
}

}  // namespace retort
