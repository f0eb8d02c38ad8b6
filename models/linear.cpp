#include "models/linear.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "kernels/embedding.h"
#include "kernels/product.h"
#include "kernels/thin_product.h"
#include "models/moved_codes.h"

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
    const at::Tensor gradient =
        kernels::embedding_backward(gradients[0], ids, ctx->saved_data["rows"].toInt());
    return {gradient.to(dtype), at::Tensor()};
  }
};

// x W^T with a W that is kept as codes: its values are made for the product and again for the gradient of
// x, so that they are never there for all layers at once. The parameter outlives the graph.
struct CodesProduct : torch::autograd::Function<CodesProduct> {
  static at::Tensor values(int64_t weight, const at::Tensor& like) {
    return values_on(*reinterpret_cast<const Parameter*>(weight)->codes, like.device(), like.scalar_type());
  }
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, int64_t weight) {
    ctx->saved_data["weight"] = weight;
    return kernels::linear_product(x, values(weight, x), {});
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const at::Tensor& gradient = gradients[0];
    const int64_t weight = ctx->saved_data["weight"].toInt();
    return {kernels::linear_product(gradient, values(weight, gradient).t(), {}), at::Tensor()};
  }
};

constexpr double kShortest = 1e-30;  // instead of a row of zeros, which has no direction

// s (x A^T) B^T, f32.
at::Tensor low_rank(const at::Tensor& x, const LowRank& adapter) {
  const at::Tensor x_A = at::linear(x.to(at::kFloat), adapter.a->working.to(at::kFloat));
  return at::linear(adapter.scale == 1.0 ? x_A : x_A * adapter.scale, adapter.b->working.to(at::kFloat));
}

// Of codes, where the model is.
at::Tensor made_values(const Parameter& weight, at::ScalarType dtype) {
  return values_on(*weight.codes, weight.working.device(), dtype);
}

at::Tensor thin(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias) {
  const at::Tensor y = kernels::thin_product(x, w);
  return (bias.defined() ? y + bias : y).to(w.scalar_type());
}

}  // namespace

at::Tensor Linear::product(const at::Tensor& x, const at::Tensor& b) const {
  if (weight->codes && at::GradMode::is_enabled() && x.requires_grad()) {
    const at::Tensor y = CodesProduct::apply(x, reinterpret_cast<int64_t>(weight));
    return b.defined() ? y + b : y;
  }
  const at::Tensor w = weight->codes ? made_values(*weight, dtype()) : weight->working;
  return kernels::is_thin(x, w) ? thin(x, w, b) : kernels::linear_product(x, w, b);
}

at::Tensor Linear::operator()(const at::Tensor& x) const {
  at::Tensor input = x.to(dtype());
  if (weight->observer) weight->observer(input);
  if (weight->input_map) input = weight->input_map(input);
  const at::Tensor b = bias ? bias->working.to(dtype()) : at::Tensor();
  const bool rescaled = adapter && adapter->magnitude;
  const at::Tensor y = product(input, rescaled ? at::Tensor() : b);  // a bias is not rescaled
  if (!adapter || !*adapter) return y;
  at::Tensor sum = y.to(at::kFloat) + low_rank(input, *adapter);
  if (rescaled) {
    const LowRankValues values = working_values(*adapter);
    sum = sum * (values.m /
                 joined_lengths(weight->codes ? made_values(*weight, at::kFloat) : weight->working, values)
                     .clamp_min(kShortest));
    if (bias) sum = sum + bias->working;
  }
  return sum.to(dtype());
}

bool Linear::plain() const {
  return !weight->observer && !weight->input_map && !weight->codes && (!adapter || !*adapter);
}

std::vector<at::Tensor> apply_all(const at::Tensor& x, std::initializer_list<const Linear*> linears) {
  const Linear& first = **linears.begin();
  const bool joined = std::all_of(linears.begin(), linears.end(), [&](const Linear* one) {
    return one->plain() && one->dtype() == first.dtype() && !one->bias == !first.bias;
  });
  std::vector<at::Tensor> out, weights, biases;
  for (const Linear* one : linears) {
    if (!joined || !at::GradMode::is_enabled()) {
      out.push_back((*one)(x));
      continue;
    }
    weights.push_back(one->weight->working);
    if (one->bias) biases.push_back(one->bias->working.to(one->dtype()));
  }
  return out.empty() ? kernels::linear_products(x.to(first.dtype()), weights, biases) : out;
}

bool has_column_lengths(const Parameter& weight, std::string_view use) {
  return weight.role == Role::kEmbedding && weight.name == use;
}

LowRankValues working_values(const LowRank& adapter) {
  const auto f32 = [](const Parameter* p) { return p ? p->working.to(at::kFloat) : at::Tensor(); };
  return {f32(adapter.a), f32(adapter.b), f32(adapter.magnitude), adapter.scale};
}

// |w + s b A|^2 = w.w + 2 s b.(A w) + s^2 b (A A^T) b of each row w of W and b of B; of columns the same of W^T and A^T B^T.
at::Tensor joined_lengths(const at::Tensor& weight, const LowRankValues& adapter) {
  const at::NoGradGuard no_grad;
  const at::Tensor w = weight.to(at::kFloat);
  const at::Tensor a = adapter.columns ? adapter.b.t() : adapter.a,
                   b = adapter.columns ? adapter.a.t() : adapter.b;
  const at::Tensor cross = (at::mm(adapter.columns ? w.t() : w, a.t()) * b).sum(1);
  const at::Tensor own = (at::mm(b, at::mm(a, a.t())) * b).sum(1);
  const at::Tensor squares = w.square().sum(adapter.columns ? 0 : 1) + cross * (2.0 * adapter.scale) +
                             own * (adapter.scale * adapter.scale);
  return squares.clamp_min_(0.0).sqrt_();
}

at::Tensor joined(const at::Tensor& weight, const LowRankValues& adapter) {
  const at::Tensor sum = at::addmm(weight.to(at::kFloat), adapter.b, adapter.a, 1.0, adapter.scale);
  if (!adapter.m.defined()) return sum;
  const at::Tensor factors = adapter.m / joined_lengths(weight, adapter).clamp_min(kShortest);
  return sum * (adapter.columns ? factors : factors.unsqueeze(1));
}

at::Tensor look_up(const Parameter& embedding, const at::Tensor& ids, const LowRank& adapter) {
  const at::Tensor rows = LookUp::apply(embedding.working, ids);
  if (!adapter) return rows;
  const at::Tensor sum = rows + at::matmul(LookUp::apply(adapter.b->working, ids) * adapter.scale,
                                           adapter.a->working.to(at::kFloat));
  if (adapter.magnitude == nullptr) return sum;
  LowRankValues values = working_values(adapter);
  values.columns = true;
  return sum * (values.m / joined_lengths(embedding.working, values).clamp_min(kShortest));
}

at::Tensor head_weight(const Parameter& head, const LowRank& adapter) {
  if (!adapter) return head.working;
  return joined(head.working, working_values(adapter)).to(head.working.scalar_type());
}

}  // namespace retort::models
