#include "core/kept_pages.h"

#include <malloc.h>

namespace retort {

// Large blocks come from the heap, and the heap never shrinks.
KeptPages::KeptPages() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);  // never: the largest int would be 2 GiB
  mallopt(M_TOP_PAD, 64 << 20);
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
