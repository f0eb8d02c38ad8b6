#include "plan/flops.h"

#include <algorithm>

namespace retort::plan {

Flops flops_a_token(double multiplied, double attended) { return {6.0 * multiplied, 12.0 * attended}; }

Flops flops_a_token(const models::Model& model, int64_t tokens) {
  const double products = model.flops_per_token(0);
  return flops_a_token(products / 6.0, (model.flops_per_token(tokens) - products) / 12.0);
}

double forward_flops_a_token(const models::Model& model, int64_t tokens) {
  return flops_a_token(model, std::min(tokens, model.context())).total() / 3.0;
}

}  // namespace retort::plan
