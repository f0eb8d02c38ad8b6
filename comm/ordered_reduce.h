// The arithmetic of an all-reduce: each rank has one input, and elements are combined in the order of TreeSum
// over the ranks. bf16 and f16 are combined in f32 and rounded once; a NaN on any rank stays a NaN under kMax
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

// inputs[r]: `count` elements of rank r. `out` may be one of them. A check_reducible() dtype.
void ordered_reduce(at::ScalarType dtype, Reduce reduce, std::span<const std::byte* const> inputs,
                    std::byte* out, int64_t count);

}  // namespace retort::comm
