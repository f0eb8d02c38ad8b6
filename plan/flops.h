// Floating-point operations of training, a token. N' is what a token multiplies: every executed matrix, the head once, no
// look-up; L layers, H heads of K, T tokens of a row.
//
//   products    6 N'              forward 2, gradient of the input 2, of the weight 2
//   attention   12 L H K T        the full square; a causal kernel does half of it
//   teacher     a third of its own, since it only runs forward
//
// Conventions of published figures differ: llm-foundry's 6 N counts every parameter, the look-up too; NeMo's 6 (N - V D) +
// 6 L D T leaves the input embedding out and halves attention. Plans print the one above.
#pragma once

#include "models/model.h"

namespace retort::plan {

struct Flops {
  double products = 0, attention = 0;
  double total() const { return products + attention; }
};

// `multiplied`: N' or what a convention takes for it; `attended`: L H K T.
Flops flops_a_token(double multiplied, double attended);
Flops flops_a_token(const models::Model& model, int64_t tokens);
double forward_flops_a_token(const models::Model& model, int64_t tokens);

}  // namespace retort::plan
