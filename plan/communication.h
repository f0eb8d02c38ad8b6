// Bytes that a rank sends in a step. d ranks, P trained parameters; gradients are f32, in sums of R rows of a tree
// (comm/tree_sum.h: 1 where the micro-batches of a rank are a power of two).
//
//   none      (R + 1) 4 P (d - 1)/d       slices are traded, summed in order, and gathered
//   optimizer  the same, and 4 P (1 + 1/d) (d - 1)/d for the updated masters, a broadcast from each owner
//   gradients  e P (G + 1 + 1/d) (d - 1)/d  scattered after each of a rank's G micro-batches; working weights from owners
//   parameters  G (e P + W (1 + 1/d)) (d - 1)/d  the same gradients, and W bytes of weights that a micro-batch brings from
//                                         owners (plan/gathered.h): about twice the layers, once embedding and head
//               of N groups of d ranks gradients and parameters send (R + 1) 4 P/d (N - 1)/N more, between groups
//   ZeRO-1    (4 + e) P (d - 1)/d         gradients scattered, working weights gathered
//
// Pure functions.
#pragma once

#include <cstdint>

#include "plan/memory.h"

namespace retort::plan {

double all_reduce_bytes(double bytes, int64_t ranks);  // 2 (d - 1)/d of them
double bytes_sent(const Workload& work, Policy policy);

}  // namespace retort::plan
