#include "models/linear.h"

#include <torch/csrc/autograd/custom_function.h>

#include "kernels/thin_product.h"

namespace retort::models {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct LookUp : torch::autograd::Function<LookUp> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& weight_VD, const at::Tensor& ids) {
    ctx->save_for_backward({ids});
    ctx->saved_data["rows"] = weight_VD.size(0);
    ctx->saved_data["dtype"] = static_cast<int64_t>(weight_VD.scalar_type());
    return at::embedding(weight_VD, ids).to(at::kFloat);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const at::Tensor ids = ctx->get_saved_variables()[0];
    const auto dtype = static_cast<at::ScalarType>(ctx->saved_data["dtype"].toInt());
    const at::Tensor gradient = at::embedding_dense_backward(
        gradients[0].contiguous(), ids, ctx->saved_data["rows"].toInt(), /*padding_idx=*/-1, false);
    return {gradient.to(dtype), at::Tensor()};
  }
};

at::Tensor thin(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias) {
  const at::Tensor y = kernels::thin_product(x, w);
  return (bias.defined() ? y + bias : y).to(w.scalar_type());
}

}  // namespace

at::Tensor Linear::operator()(const at::Tensor& x) const {
  const at::Tensor& w = weight->working;
  at::Tensor input = x.to(w.scalar_type());
  if (weight->observer) weight->observer(input);
  if (weight->input_map) input = weight->input_map(input);
  const at::Tensor b = bias ? bias->working.to(w.scalar_type()) : at::Tensor();
  const at::Tensor y = kernels::is_thin(input, w) ? thin(input, w, b) : at::linear(input, w, b);
  return lora_a ? y + at::linear(at::linear(input, lora_a->working), lora_b->working) : y;
}

at::Tensor look_up(const Parameter& embedding, const at::Tensor& ids) {
  return LookUp::apply(embedding.working, ids);
}

}  // namespace retort::models
