#include "kernels/attention.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "core/shape.h"
#include "kernels/cpu/elements.h"
#include "kernels/reference.h"

namespace retort::kernels {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Below this many queries packing the keys costs more than the products: a cache's decoding goes to LibTorch.
constexpr int64_t kFewQueries = 8;

cpu::AttentionShape shape_of(const at::Tensor& q_BTHK, const at::Tensor& k_BSGK, int64_t window, double scale,
                             const at::Tensor& documents_BS) {
  return {q_BTHK.size(0),
          q_BTHK.size(1),
          k_BSGK.size(1),
          q_BTHK.size(2),
          k_BSGK.size(2),
          q_BTHK.size(3),
          window,
          static_cast<float>(scale),
          documents_BS.defined() ? documents_BS.const_data_ptr<int32_t>() : nullptr};
}

struct Blocked : torch::autograd::Function<Blocked> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_BTHK, const at::Tensor& k_BSGK,
                            const at::Tensor& v_BSGK, const AttentionMask& mask, double scale) {
    const at::Tensor q = q_BTHK.contiguous(), k = k_BSGK.contiguous(), v = v_BSGK.contiguous();
    const at::Tensor documents =
        mask.document_BS.defined() ? mask.document_BS.to(at::kInt).contiguous() : at::Tensor();
    const cpu::AttentionShape shape = shape_of(q, k, mask.window, scale, documents);
    at::Tensor y = at::empty_like(q),
               lse_BHT = at::empty({shape.B, shape.H, shape.T}, q.options().dtype(at::kFloat));
    const cpu::Table& loops = cpu::cpu_table();
    cpu::with_elements(q, [&](auto element) {
      using T = decltype(element);
      at::parallel_for(0, shape.B * shape.H, 1, [&](int64_t begin, int64_t end) {
        const at::Tensor scratch = at::empty({loops.attention_scratch(shape, false)}, at::kFloat);
        for (int64_t i = begin; i < end; ++i)
          loops.of<T>().attention(shape, cpu::read<T>(q), cpu::read<T>(k), cpu::read<T>(v), cpu::write<T>(y),
                                  cpu::write<float>(lse_BHT), i / shape.H, i % shape.H,
                                  cpu::write<float>(scratch));
      });
    });
    context->save_for_backward({q, k, v, y, lse_BHT, documents});
    context->saved_data["window"] = mask.window;
    context->saved_data["scale"] = scale;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &y = saved[3], &lse_BHT = saved[4];
    const at::Tensor dy = gradients[0].contiguous();
    const cpu::AttentionShape shape = shape_of(q, k, context->saved_data["window"].toInt(),
                                               context->saved_data["scale"].toDouble(), saved[5]);
    at::Tensor dq = at::empty_like(q), dk = at::empty_like(k), dv = at::empty_like(v);
    const cpu::Table& loops = cpu::cpu_table();
    cpu::with_elements(q, [&](auto element) {
      using T = decltype(element);
      at::parallel_for(0, shape.B * shape.G, 1, [&](int64_t begin, int64_t end) {
        const at::Tensor scratch = at::empty({loops.attention_scratch(shape, true)}, at::kFloat);
        for (int64_t i = begin; i < end; ++i)
          loops.of<T>().attention_backward(shape, cpu::read<T>(dy), cpu::read<T>(q), cpu::read<T>(k),
                                           cpu::read<T>(v), cpu::read<T>(y), cpu::read<float>(lse_BHT),
                                           cpu::write<T>(dq), cpu::write<T>(dk), cpu::write<T>(dv),
                                           i / shape.G, i % shape.G, cpu::write<float>(scratch));
      });
    });
    return {dq, dk, dv, {}, {}};
  }
};

void check_arguments(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionMask& mask) {
  check_shape("attention", "q_BTHK", q, {-1, -1, -1, -1});
  check_shape("attention", "k_BSGK", k, {q.size(0), -1, -1, q.size(3)});
  check_shape("attention", "v_BSGK", v, {k.size(0), k.size(1), k.size(2), k.size(3)});
  check(k.size(2) > 0 && q.size(2) % k.size(2) == 0,
        "[attention] query heads must be a multiple of key/value heads, got {} and {}", q.size(2), k.size(2));
  check(q.size(1) <= k.size(1),
        "[attention] queries must be the last of the keys, got {} queries and {} keys", q.size(1), k.size(1));
  check(k.scalar_type() == q.scalar_type() && v.scalar_type() == q.scalar_type(),
        "[attention] q, k and v must have one dtype, got {}, {} and {}", c10::toString(q.scalar_type()),
        c10::toString(k.scalar_type()), c10::toString(v.scalar_type()));
  check(mask.window >= 0, "[attention] window must be >= 0, got {}", mask.window);
  if (mask.document_BS.defined())
    check_shape("attention", "document_BS", mask.document_BS, {k.size(0), k.size(1)});
}

}  // namespace

at::Tensor attention(const at::Tensor& q_BTHK, const at::Tensor& k_BSGK, const at::Tensor& v_BSGK,
                     const AttentionMask& mask, double scale) {
  RECORD_USER_SCOPE("retort::attention");
  check_arguments(q_BTHK, k_BSGK, v_BSGK, mask);
  const int64_t queries = q_BTHK.size(1), keys = k_BSGK.size(1);
  if (cpu::has_loops(q_BTHK) && queries >= kFewQueries)
    return Blocked::apply(q_BTHK, k_BSGK, v_BSGK, mask, scale);
  const bool plain = !mask.document_BS.defined() && (mask.window == 0 || mask.window >= keys);
  // LibTorch's causal flag aligns the mask to the first key, so it serves only where T = S; one query sees
  // all.
  const bool causal = plain && queries == keys;
  std::optional<at::Tensor> visible;
  if (!plain || (queries > 1 && !causal))
    visible = reference::visible_BTS(mask, queries, keys, q_BTHK.device());
  return at::scaled_dot_product_attention(q_BTHK.transpose(1, 2), k_BSGK.transpose(1, 2),
                                          v_BSGK.transpose(1, 2), visible, 0.0, causal, scale,
                                          k_BSGK.size(2) != q_BTHK.size(2))
      .transpose(1, 2);
}

}  // namespace retort::kernels
