#include "kernels/attention.h"

#include <ATen/Parallel.h>
#include <ATen/SDPBackend.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>

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
    RECORD_USER_SCOPE_WITH_INPUTS("retort::attention_backward", std::vector<c10::IValue>({dy, q, k, v, y}));
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

// --- LibTorch's flash kernels

// Of one launch: documents are a dimension of its grid.
constexpr int64_t kMostDocuments = 65535;
// The widest head, and what its width must be divisible by.
constexpr int64_t kWidestHead = 256, kHeadUnit = 8;

bool has_kernel(const char* name, const at::Tensor& x) {
  const auto op = c10::Dispatcher::singleton().findSchema({name, ""});
  return op && op->hasKernelForDispatchKey(c10::computeDispatchKey(x.scalar_type(), x.layout(), x.device()));
}

// Whether they take such tensors: what the device and the dtype allow is LibTorch's to say, which names flash or cuDNN
// on devices that have both.
bool has_flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) {
  if (q.is_cpu() || q.size(3) % kHeadUnit != 0 || q.size(3) > kWidestHead) return false;
  if (!has_kernel("aten::_flash_attention_forward", q) || !has_kernel("aten::_flash_attention_backward", q))
    return false;
  const auto chosen = static_cast<at::SDPBackend>(
      at::_fused_sdp_choice(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), {}, 0.0,
                            /*is_causal=*/false, scale, k.size(2) != q.size(2)));
  return chosen == at::SDPBackend::flash_attention || chosen == at::SDPBackend::cudnn_attention;
}

bool learns(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return at::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
}

// Documents need their lengths, and have none where keys are more than queries.
bool takes_mask(const AttentionMask& mask, int64_t queries, int64_t keys) {
  if (!mask.document_BS.defined()) return true;
  return mask.lengths.cumulative.defined() && queries == keys &&
         mask.lengths.cumulative.numel() <= kMostDocuments + 1;
}

// LibTorch's flash backward adds up in a fixed order under a flag of the whole process alone, its deterministic algorithms.
// Threads that are ranks are here at once: who wants the flag (kFixed) and whose choice of a kernel must not follow what a rank
// beside does (kOwn: cuDNN's attention is out under the flag) wait for one another, while they enqueue. What else a rank may do
// beside it must be right under the flag as well, and have the same bits: LibTorch refuses operators whose sums have no order, or
// takes other kernels for them. None of those may be in a step (tests/fake_device/order_of_sums.h). Products are not among
// them: LibTorch 2.11 gives cuBLAS a workspace itself, and no longer asks for CUBLAS_WORKSPACE_CONFIG.
enum class Order { kOwn, kFixed };
class OrderOfSums {
 public:
  explicit OrderOfSums(Order order) {
    Shared& all = of_all();
    std::unique_lock lock(all.mutex);
    all.changed.wait(lock, [&] { return all.alive == 0 || all.order == order; });
    all.order = order;
    if (all.alive++ > 0 || order == Order::kOwn) return;
    at::Context& context = at::globalContext();
    all.on = context.deterministicAlgorithms(), all.warns = context.deterministicAlgorithmsWarnOnly();
    all.fills = context.deterministicFillUninitializedMemory();
    context.setDeterministicFillUninitializedMemory(false);
    context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  }
  ~OrderOfSums() {
    Shared& all = of_all();
    const std::lock_guard lock(all.mutex);
    if (--all.alive > 0) return;
    all.changed.notify_all();
    if (all.order == Order::kOwn) return;
    at::globalContext().setDeterministicAlgorithms(all.on, all.warns);
    at::globalContext().setDeterministicFillUninitializedMemory(all.fills);
  }
  OrderOfSums(const OrderOfSums&) = delete;
  OrderOfSums& operator=(const OrderOfSums&) = delete;

 private:
  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    int alive = 0;
    Order order = Order::kOwn;                     // of those that live
    bool on = false, warns = false, fills = true;  // as they were
  };
  static Shared& of_all() {
    static Shared shared;
    return shared;
  }
};

// Documents as sequences of their own among all rows' tokens [N, H, K]; without any, rows [B, T, H, K].
struct Flash : torch::autograd::Function<Flash> {
  struct Window {
    std::optional<int64_t> left, right;
    explicit Window(int64_t window) {
      if (window > 0) left = window - 1, right = 0;
    }
  };

  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_BTHK, const at::Tensor& k_BSGK,
                            const at::Tensor& v_BSGK, const AttentionMask& mask, double scale) {
    const at::Tensor& cumulative = mask.lengths.cumulative;
    const bool packed = mask.document_BS.defined();
    const auto sequences = [&](const at::Tensor& x) {
      const at::Tensor rows = packed ? x.flatten(0, 1) : x;
      return rows.stride(-1) == 1 ? rows : rows.contiguous();
    };
    const at::Tensor q = sequences(q_BTHK), k = sequences(k_BSGK), v = sequences(v_BSGK);
    // Sequences of one query are another case of the kernels', which such a bound keeps them from.
    const int64_t longest = std::max<int64_t>(2, mask.lengths.longest);
    const int64_t max_q = packed ? longest : q.size(1), max_k = packed ? longest : k.size(1);
    const std::optional<at::Tensor> lengths = packed ? std::optional(cumulative) : std::nullopt;
    const Window window(mask.window);
    const auto [y, lse, seed, offset, weights] = at::_flash_attention_forward(
        q, k, v, lengths, lengths, max_q, max_k, /*dropout_p=*/0.0,
        /*is_causal=*/true, /*return_debug_mask=*/false, scale, window.left, window.right);
    context->save_for_backward({q, k, v, y, lse, packed ? cumulative : at::Tensor(), seed, offset});
    context->saved_data["window"] = mask.window;
    context->saved_data["scale"] = scale;
    context->saved_data["rows"] = q_BTHK.size(0);
    context->saved_data["max_q"] = max_q;
    context->saved_data["max_k"] = max_k;
    return y.view(q_BTHK.sizes());
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    auto& numbers = context->saved_data;
    const at::Tensor& y = saved[3];
    const Window window(numbers["window"].toInt());
    const OrderOfSums fixed(Order::kFixed);
    const auto [dq, dk, dv] = at::_flash_attention_backward(
        gradients[0].contiguous().view(y.sizes()), saved[0], saved[1], saved[2], y, saved[4], saved[5],
        saved[5], numbers["max_q"].toInt(), numbers["max_k"].toInt(), /*dropout_p=*/0.0, /*is_causal=*/true,
        saved[6], saved[7], numbers["scale"].toDouble(), window.left, window.right);
    const auto rows = [&](const at::Tensor& x) {
      return x.dim() == 4 ? x : x.unflatten(0, {numbers["rows"].toInt(), -1});
    };
    return {rows(dq), rows(dk), rows(dv), {}, {}};
  }
};

// --- LibTorch's memory-efficient kernels, for what learns and flash does not take

// They read rows of heads 16 bytes at a time.
bool has_efficient(const at::Tensor& q) {
  constexpr int64_t kAccess = 16;
  return q.size(3) * q.element_size() % kAccess == 0 && has_kernel("aten::_efficient_attention_forward", q) &&
         has_kernel("aten::_efficient_attention_backward", q);
}

// Called as scaled_dot_product_attention() calls them, but for how many blocks divide the keys of a head in backward: several,
// which it may take, add to the queries' gradients by atomics, in any order.
struct Efficient : torch::autograd::Function<Efficient> {
  enum Causal : int64_t { kNo = 0, kFromBottomRight = 2 };
  static constexpr int64_t kBlocks = 1;

  // All of as many heads. bias_BHTS is added to the scores; without it rows are causal, queries the last of the keys.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_BTHK, const at::Tensor& k_BSHK,
                            const at::Tensor& v_BSHK, const std::optional<at::Tensor>& bias_BHTS,
                            double scale) {
    const at::Tensor q = q_BTHK.contiguous(), k = k_BSHK.contiguous(), v = v_BSHK.contiguous();
    const auto [y, lse, seed, offset, max_q, max_k] = at::_efficient_attention_forward(
        q, k, v, bias_BHTS, {}, {}, {}, {}, /*dropout_p=*/0.0, causal(bias_BHTS),
        /*compute_log_sumexp=*/true, scale);
    context->save_for_backward({q, k, v, bias_BHTS.value_or(at::Tensor()), y, lse, seed, offset});
    context->saved_data["scale"] = scale;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const std::optional<at::Tensor> bias = saved[3].defined() ? std::optional(saved[3]) : std::nullopt;
    const auto [dq, dk, dv, unused] = at::_efficient_attention_backward(
        gradients[0].contiguous(), q, k, v, bias, saved[4], {}, {}, q.size(1), k.size(1), saved[5],
        /*dropout_p=*/0.0, saved[6], saved[7], causal(bias), /*bias_requires_grad=*/false,
        context->saved_data["scale"].toDouble(), kBlocks);
    return {dq, dk, dv, {}, {}};
  }

 private:
  static int64_t causal(const std::optional<at::Tensor>& bias) { return bias ? kNo : kFromBottomRight; }
};

// What is added to scores: 0, or minus infinity where a query does not see. Rows of it begin at multiples of 16 elements.
at::Tensor bias_of(const at::Tensor& visible_B1TS, const at::Tensor& q_BTHK) {
  constexpr int64_t kUnit = 16;
  const int64_t B = visible_B1TS.size(0), T = visible_B1TS.size(2), S = visible_B1TS.size(3);
  const at::Tensor memory = at::full({B, 1, T, (S + kUnit - 1) / kUnit * kUnit}, -INFINITY, q_BTHK.options());
  return memory.narrow(3, 0, S)
      .masked_fill_(visible_B1TS, 0.0)
      .expand({q_BTHK.size(0), q_BTHK.size(2), T, S});
}

at::Tensor efficient(const at::Tensor& q_BTHK, const at::Tensor& k_BSGK, const at::Tensor& v_BSGK,
                     const std::optional<at::Tensor>& visible_B1TS, double scale) {
  const int64_t group = q_BTHK.size(2) / k_BSGK.size(2);
  const auto for_each_query = [&](const at::Tensor& x) {
    return group == 1 ? x : x.unsqueeze(3).expand({-1, -1, -1, group, -1}).flatten(2, 3);
  };
  std::optional<at::Tensor> bias;
  if (visible_B1TS) bias = bias_of(*visible_B1TS, q_BTHK);
  return Efficient::apply(q_BTHK, for_each_query(k_BSGK), for_each_query(v_BSGK), bias, scale);
}

// Its choice of a kernel, or, where sums must have an order, its products and softmax.
at::Tensor of_libtorch(const at::Tensor& q_BTHK, const at::Tensor& k_BSGK, const at::Tensor& v_BSGK,
                       const std::optional<at::Tensor>& visible, bool causal, double scale, bool in_order) {
  const at::Tensor q = q_BTHK.transpose(1, 2), k = k_BSGK.transpose(1, 2), v = v_BSGK.transpose(1, 2);
  const bool grouped = k.size(1) != q.size(1);
  if (in_order) {  // which takes what is added to scores, and no truths
    std::optional<at::Tensor> bias;
    if (visible) bias = bias_of(*visible, q_BTHK);
    return std::get<0>(at::_scaled_dot_product_attention_math(q, k, v, bias, 0.0, causal, {}, scale, grouped))
        .transpose(1, 2);
  }
  std::optional<OrderOfSums> own;
  if (!q.is_cpu()) own.emplace(Order::kOwn);
  return at::scaled_dot_product_attention(q, k, v, visible, 0.0, causal, scale, grouped).transpose(1, 2);
}

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
  if (!mask.lengths.cumulative.defined()) return;
  check_shape("attention", "cumulative lengths", mask.lengths.cumulative, {-1});
  check(mask.document_BS.defined() && mask.lengths.cumulative.scalar_type() == at::kInt,
        "[attention] lengths must be i32 and have documents, got {}{}",
        c10::toString(mask.lengths.cumulative.scalar_type()), mask.document_BS.defined() ? "" : " alone");
}

}  // namespace

at::Tensor attention(const at::Tensor& q_BTHK, const at::Tensor& k_BSGK, const at::Tensor& v_BSGK,
                     const AttentionMask& mask, double scale) {
  RECORD_USER_SCOPE_WITH_INPUTS("retort::attention", std::vector<c10::IValue>({q_BTHK, k_BSGK, v_BSGK}));
  check_arguments(q_BTHK, k_BSGK, v_BSGK, mask);
  const int64_t queries = q_BTHK.size(1), keys = k_BSGK.size(1);
  if (cpu::has_loops(q_BTHK) && queries >= kFewQueries)
    return Blocked::apply(q_BTHK, k_BSGK, v_BSGK, mask, scale);
  const bool plain = !mask.document_BS.defined() && (mask.window == 0 || mask.window >= keys);
  // LibTorch's causal flag aligns the mask to the first key, so it serves only where T = S; one query sees
  // all.
  const bool causal = plain && queries == keys;
  // Without a gradient, and so without its order of sums, LibTorch may choose a kernel for plain rows.
  const bool flash = queries > 1 && (!causal || learns(q_BTHK, k_BSGK, v_BSGK));
  if (flash && takes_mask(mask, queries, keys) && has_flash(q_BTHK, k_BSGK, v_BSGK, scale))
    return Flash::apply(q_BTHK, k_BSGK, v_BSGK, mask, scale);
  const bool in_order = !q_BTHK.is_cpu() && learns(q_BTHK, k_BSGK, v_BSGK);
  const bool memory_efficient = in_order && has_efficient(q_BTHK);
  std::optional<at::Tensor> visible;
  if (!plain || (queries > 1 && !causal && !memory_efficient))
    visible = reference::visible_BTS(mask, queries, keys, q_BTHK.device());
  if (memory_efficient) return efficient(q_BTHK, k_BSGK, v_BSGK, visible, scale);
  return of_libtorch(q_BTHK, k_BSGK, v_BSGK, visible, causal, scale, in_order);
}

}  // namespace retort::kernels
