// While it lives, malloc keeps freed pages: the large tensors of a step are otherwise given back to the
// kernel and faulted in again, every time. For loops of equal steps; work whose tensors come in many sizes
// would grow by what it cannot use again. When it goes, free pages go back and large blocks are malloc's own
// again, save those that fit a hole which kept blocks left in the heap: the hole's pages stay once used.
// One at a time; for the whole process.
#pragma once

namespace retort {

class KeptPages {
 public:
  KeptPages();
  ~KeptPages();
  KeptPages(const KeptPages&) = delete;
  KeptPages& operator=(const KeptPages&) = delete;
};

}  // namespace retort
