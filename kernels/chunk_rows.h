// How many rows of logits exist at once: one rule for the walk over them (kernels/linear_loss.h) and for a plan of its
// memory (plan/memory.h). The products of a chunk read the weight, and read and write its gradient, once: rows enough that
// this costs less than the arithmetic, and no more memory than need be.
//
//   CPU      as many as fit 8 MiB of the student's f32 logits, so that those of a small vocabulary stay in cache; 512 to
//            2048
//   device   as many as fit 1 GiB of a row's logits, the student's and its teachers'; 1152 to 2048, in steps of 128. An
//            H100 waits for memory below 4 P / B = 1070 rows (P FLOP/s, B bytes/s: a gradient in f32 moves 8 bytes for
//            2 C FLOP), whatever the vocabulary and the width
//
// On a device a row of logits takes a multiple of 64 elements: all three products of the head have rows of V elements, and
// cuBLAS leaves its fast kernels where those do not begin at multiples of 16 bytes. Rows of a mixture's teachers lie close, as
// LibTorch's softmax writes in place only there.
#pragma once

#include <cstdint>
#include <vector>

namespace retort::kernels {

// From where a row begins to where the next does.
int64_t logit_row_elements(int64_t columns, bool on_device);

struct LogitShape {
  struct Side {
    int64_t columns = 0;
    bool bf16 = false;    // the product's dtype
    bool capped = false;  // by a softcap
  };
  Side student = {};
  std::vector<Side> teachers = {};  // of their heads; columns in common
  bool in_place = false;            // the loss can read products as they are
  bool on_device = false;

  // Whether it does: nothing is capped, and one teacher at most has the student's dtype. Else f32 copies are made.
  bool as_they_are() const;
  int64_t student_bytes() const;  // of a row
  int64_t teacher_bytes() const;  // with a mixture of several
  int64_t rows(int64_t of) const;
};

}  // namespace retort::kernels
