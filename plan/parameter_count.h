// How many parameters a model has, from the shapes that it declares: exact, and nothing is allocated (a model on
// at::kMeta). What is shared counts once; trained and frozen apart, since only the trained have gradients and optimizer
// states. Pure functions; any thread.
#pragma once

#include <cstdint>
#include <string>

#include "models/parameters.h"

namespace retort::plan {

struct ParameterCount {
  int64_t stored = 0;    // elements; scales of grids are not counted, as in Parameters::stored()
  int64_t expanded = 0;  // what a file without sharing holds
  // All elements, scales included: trained in the working dtype (matrices, embedding, head), trained in f32 whatever the
  // precision (norms, biases, positions, adapters, scales), and the same of those that are frozen.
  int64_t trained_matrices = 0, trained_f32 = 0, frozen_matrices = 0, frozen_f32 = 0;
  int64_t coded = 0;      // of frozen_matrices: kept as codes, without values of their own
  double code_bytes = 0;  // of these
  int64_t largest = 0;    // elements of the largest trained parameter

  int64_t trained() const { return trained_matrices + trained_f32; }
  int64_t frozen() const { return frozen_matrices + frozen_f32; }
};

// `base`: what the borrowed matrices are kept as, a row of models/frozen_codes.h.
ParameterCount count_parameters(const models::Parameters& parameters, const std::string& base = "f32");

// Bytes of `elements` kept in that form.
double code_bytes(const std::string& base, int64_t elements);

}  // namespace retort::plan
