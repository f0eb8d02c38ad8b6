// The arithmetic of an all-reduce: elements of the ranks' inputs are combined in the order of TreeSum. bf16 and f16 are combined in f32 and rounded once; a NaN on any rank stays a NaN under kMax
// and kMin too. Pure; any thread.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "comm/comm.h"

namespace retort::comm {

// f64, f32, bf16, f16, i64 and i32; ShapeError for others.
void check_reducible(at::ScalarType dtype);

// ShapeError unless nodes_PN is what Comm::sum_tree() takes: contiguous, of P rows.
void check_nodes(const at::Tensor& nodes_PN, int64_t rows);

// `count` elements of a complete subtree of that many leaves.
struct ReduceInput {
  const std::byte* data;
  int64_t leaves = 1;
};

// The inputs of all ranks, in order. `out` may be one of them. A check_reducible() dtype.
void ordered_reduce(at::ScalarType dtype, Reduce reduce, std::span<const ReduceInput> inputs, std::byte* out,
                    int64_t count);

}  // namespace retort::comm
