#include "plan/parameter_count.h"

#include <algorithm>

#include "core/registry.h"

namespace retort::plan {
namespace {

using models::Parameter;
using models::Role;

struct FormBytes {
  std::string name;
  double a_weight;
};

// q8_0 and q4_0: an f16 scale for 32 codes. nf4: 4 bits, a byte for 64 of them, an f32 for 256 of these
// bytes.
const Registry<FormBytes>& forms() {
  static const Registry<FormBytes> table("form of a frozen base",
                                         {{"f32", 4.0},
                                          {"bf16", 2.0},
                                          {"q8_0", 34.0 / 32},
                                          {"q4_0", 18.0 / 32},
                                          {"nf4", 0.5 + 1.0 / 64 + 4.0 / (64 * 256)}});
  return table;
}

bool is_matrix(Role role) { return role == Role::kMatrix || role == Role::kEmbedding || role == Role::kHead; }

}  // namespace

double code_bytes(const std::string& base, int64_t elements) {
  return forms().at(base).a_weight * static_cast<double>(elements);
}

ParameterCount count_parameters(const models::Parameters& parameters, const std::string& base) {
  ParameterCount out{.stored = parameters.stored(), .expanded = parameters.expanded()};
  for (const Parameter& p : parameters.unique()) {
    const int64_t elements = p.numel();
    int64_t& kind = p.frozen ? (is_matrix(p.role) ? out.frozen_matrices : out.frozen_f32)
                             : (is_matrix(p.role) ? out.trained_matrices : out.trained_f32);
    kind += elements;
    if (!p.frozen) out.largest = std::max(out.largest, elements);
    if (base != "f32" && p.borrowed && p.role == Role::kMatrix) out.coded += elements;
  }
  out.code_bytes = code_bytes(base, out.coded);
  return out;
}

}  // namespace retort::plan
