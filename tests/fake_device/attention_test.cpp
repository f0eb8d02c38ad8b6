// Attention on a device by LibTorch's kernels: what is asked of them, that what learns has one order of sums, and that by flash
// nothing grows with the square of a row.
#include "kernels/attention.h"

#include <ATen/Context.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>

#include "kernels/reference.h"
#include "tests/fake_device/distilled_training.h"
#include "tests/fake_device/efficient_operator.h"
#include "tests/fake_device/flash_operator.h"
#include "tests/fake_device/memory.h"
#include "tests/kernels/gradcheck.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::testing {
namespace {

using kernels::AttentionMask;

struct Shape {
  int64_t batch, queries, keys, heads, kv_heads, head_dim, window = 0;
  at::Tensor document_BS = {};
  std::string name() const {
    return fmt::format("B{} T{} S{} H{} G{} K{} window {} documents {}", batch, queries, keys, heads,
                       kv_heads, head_dim, window, document_BS.defined());
  }
};

// Documents of uneven length, other ones in each row.
at::Tensor uneven(int64_t batch, int64_t keys) {
  at::Tensor out = at::empty({batch, keys}, at::kLong);
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t s = 0; s < keys; ++s) out[b][s] = (s * s + 3 * b * s) / (4 * keys);
  return out;
}

enum class Lengths { kGiven, kUnknown };

AttentionMask there(const Shape& s, Lengths lengths) {
  AttentionMask mask{.window = s.window};
  if (!s.document_BS.defined()) return mask;
  mask.document_BS = s.document_BS.to(fake_device());
  if (lengths == Lengths::kUnknown) return mask;
  mask.lengths = document_lengths(s.document_BS);
  mask.lengths.cumulative = mask.lengths.cumulative.to(fake_device());
  return mask;
}

// Value and gradients by fp64, and by how many calls of flash or of the memory-efficient kernels they came.
void expect_right(const Shape& s, int64_t flash, at::ScalarType dtype = at::kBFloat16,
                  Lengths lengths = Lengths::kGiven, int64_t efficient = 0) {
  const AttentionMask here{.window = s.window, .document_BS = s.document_BS}, mask = there(s, lengths);
  const double scale = 1.0 / std::sqrt(static_cast<double>(s.head_dim));
  const at::Tensor q = normal({s.batch, s.queries, s.heads, s.head_dim}, 1);
  const at::Tensor k = normal({s.batch, s.keys, s.kv_heads, s.head_dim}, 2), v = normal(k.sizes(), 3);
  const double terms = scale * k.abs().max().item<double>() * v.square().sum(-1).max().item<double>();
  const FlashCalls before = flash_calls();
  const EfficientCalls efficient_before = efficient_calls();
  expect_as_good(
      s.name(),
      [&](const Tensors& t) {
        Tensors moved;
        for (const at::Tensor& x : t) moved.push_back(x.to(fake_device()));
        const Watch watch;
        const at::Tensor y = kernels::attention(moved[0], moved[1], moved[2], mask, scale);
        EXPECT_EQ(watch.traffic().host_reads(), 0);
        if (flash > 0) {
          for (const auto& [name, times] : watch.traffic().operators) ADD_FAILURE() << name << " beside it";
        }
        return y.cpu();
      },
      [&](const Tensors& t) { return kernels::reference::attention(t[0], t[1], t[2], here, scale); },
      {q, k, v}, dtype, terms);
  EXPECT_EQ(flash_calls().forward - before.forward, flash) << s.name();
  EXPECT_EQ(flash_calls().backward - before.backward, flash) << s.name();
  EXPECT_EQ(efficient_calls().forward - efficient_before.forward, efficient) << s.name();
  EXPECT_EQ(efficient_calls().backward - efficient_before.backward, efficient) << s.name();
}

TEST(AttentionOnDevice, PacksDocumentsForFlash) {
  expect_right({1, 50, 50, 2, 2, 16, 0, uneven(1, 50)}, 1);
  expect_right({3, 41, 41, 4, 2, 8, 0, uneven(3, 41)}, 1);
  expect_right({2, 33, 33, 6, 1, 24, 0, uneven(2, 33)}, 1);
  for (const int64_t k : {8, 64, 80, 128, 256}) expect_right({1, 20, 20, 2, 1, k, 0, uneven(1, 20)}, 1);
}

TEST(AttentionOnDevice, GivesFlashWindows) {
  for (const int64_t window : {1, 2, 7, 30}) {
    expect_right({2, 31, 31, 4, 2, 16, window}, 1);
    expect_right({2, 31, 31, 4, 2, 16, window, uneven(2, 31)}, 1);
  }
  expect_right({2, 31, 31, 4, 2, 16, 200, uneven(2, 31)}, 1);
}

TEST(AttentionOnDevice, PacksDocumentsOfOneTokenAndOfARow) {
  const at::Tensor each = at::arange(26, at::kLong).view({2, 13});
  for (const int64_t kv_heads : {1, 4}) {
    expect_right({2, 13, 13, 4, kv_heads, 8, 0, each}, 1);
    expect_right({2, 13, 13, 4, kv_heads, 8, 3, each}, 1);
    expect_right({2, 13, 13, 4, kv_heads, 8, 0, at::zeros({2, 13}, at::kLong)}, 1);  // one number, two rows
  }
}

TEST(AttentionOnDevice, ContinuesACacheWithFlash) {
  expect_right({2, 9, 40, 4, 2, 16}, 1);
  expect_right({2, 9, 40, 4, 2, 16, 12}, 1);
  expect_right({1, 2, 3, 1, 1, 8, 1}, 1);
}

// For the order of their sums; what has no gradients is LibTorch's choice.
TEST(AttentionOnDevice, GivesFlashPlainRowsThatLearn) {
  expect_right({2, 21, 21, 4, 2, 16}, 1);
  expect_right({2, 21, 21, 4, 2, 16, 21}, 1);
  const at::Tensor x = normal({2, 21, 4, 16}, 1).to(fake_device(), at::kBFloat16);
  const FlashCalls before = flash_calls();
  kernels::attention(x, x, x, {}, 0.25);
  const at::Tensor learns = x.clone().requires_grad_();
  const at::NoGradGuard no_grad;
  kernels::attention(learns, learns, learns, {}, 0.25);
  EXPECT_EQ(flash_calls().forward, before.forward);
}

void expect_efficient(const Shape& s, at::ScalarType dtype = at::kBFloat16,
                      Lengths lengths = Lengths::kGiven) {
  expect_right(s, 0, dtype, lengths, 1);
}

// What flash does not take and learns, in one order of sums too: f32, one query, wide heads, unknown documents.
TEST(AttentionOnDevice, GivesMemoryEfficientKernelsWhatElseLearns) {
  for (const int64_t kv_heads : {1, 2, 4}) {
    expect_efficient({2, 21, 21, 4, kv_heads, 16}, at::kFloat);
    expect_efficient({2, 21, 21, 4, kv_heads, 16, 5, uneven(2, 21)}, at::kFloat);
  }
  expect_efficient({2, 33, 33, 4, 2, 4, 7}, at::kFloat);
  expect_efficient({2, 9, 40, 4, 2, 16}, at::kFloat);
  expect_efficient({2, 9, 40, 4, 2, 16, 12}, at::kFloat);
  expect_efficient({1, 32, 32, 1, 1, 8}, at::kFloat);
  expect_efficient({2, 1, 21, 4, 2, 16}, at::kFloat);
  expect_efficient({2, 1, 21, 4, 2, 16, 5});
  expect_efficient({1, 5, 5, 1, 1, 264, 0, uneven(1, 5)});
  expect_efficient({2, 21, 21, 4, 2, 16, 5, uneven(2, 21)}, at::kBFloat16, Lengths::kUnknown);
  expect_efficient({2, 9, 21, 4, 2, 16, 0, uneven(2, 21)});  // lengths of the keys, not of the queries
}

// Products and a softmax, whatever LibTorch would choose: heads that are no runs of 16 bytes.
TEST(AttentionOnDevice, MakesTheRestThatLearnsOfProducts) {
  expect_right({2, 21, 21, 4, 2, 6}, 0, at::kFloat);
  expect_right({2, 21, 21, 4, 2, 6, 5, uneven(2, 21)}, 0, at::kFloat);
  expect_right({2, 21, 21, 4, 2, 12, 5, uneven(2, 21)}, 0);
}

// As a cache gives keys, and as a transposed product gives queries.
TEST(AttentionOnDevice, TakesViews) {
  const auto on = [](const at::Device& device, const AttentionMask& mask) {
    const at::Tensor q = normal({1, 2, 16, 9}, 1).to(device, at::kBFloat16).permute({0, 3, 1, 2}),
                     k = normal({1, 64, 1, 16}, 2).to(device, at::kBFloat16).narrow(1, 3, 20),
                     v = normal({1, 64, 1, 16}, 3).to(device, at::kBFloat16).narrow(1, 3, 20);
    return kernels::attention(q, k, v, mask, 0.25).cpu();
  };
  const FlashCalls before = flash_calls();
  EXPECT_LE(relative_error(on(fake_device(), {.window = 8}), on(at::kCPU, {.window = 8})), 0x1p-7);
  EXPECT_EQ(flash_calls().forward - before.forward, 1);
}

// The order of gradients' sums is asked for while they are computed, and no longer; a program's own wish stays.
TEST(AttentionOnDevice, AsksForAnOrderOfSumsInBackwardAlone) {
  at::Context& context = at::globalContext();
  for (const bool own : {false, true}) {
    context.setDeterministicAlgorithms(own, /*warn_only=*/true);
    const at::Tensor x =
        normal({1, 12, 1, 8}, 1).to(fake_device(), at::kBFloat16).requires_grad_();  // backward checks it
    kernels::attention(x, x, x, {.window = 4}, 1.0).sum().backward();
    EXPECT_TRUE(x.grad().cpu().isfinite().all().item<bool>());
    EXPECT_EQ(context.deterministicAlgorithms(), own);
    EXPECT_TRUE(context.deterministicAlgorithmsWarnOnly());
    EXPECT_TRUE(context.deterministicFillUninitializedMemory());
  }
  context.setDeterministicAlgorithms(false, false);
}

// How often LibTorch was asked to choose a kernel under its deterministic flag, since the object was made.
class ChoicesInFixedOrder {
 public:
  ChoicesInFixedOrder() {
    choices = 0;
    handle_ = at::addGlobalCallback(at::RecordFunctionCallback(&see));
  }
  ~ChoicesInFixedOrder() { at::removeCallback(handle_); }
  ChoicesInFixedOrder(const ChoicesInFixedOrder&) = delete;
  ChoicesInFixedOrder& operator=(const ChoicesInFixedOrder&) = delete;
  int64_t count() const { return choices; }

 private:
  static std::unique_ptr<at::ObserverContext> see(const at::RecordFunction& function) {
    const bool asked = std::string_view(function.name()) == "aten::scaled_dot_product_attention";
    if (asked && at::globalContext().deterministicAlgorithms()) ++choices;
    return nullptr;
  }
  static inline std::atomic<int64_t> choices;
  at::CallbackHandle handle_;
};

// What learns nothing has the kernel that LibTorch chooses, which is another one under the flag that a rank beside sets for its
// gradients: a choice waits until the flag is back.
TEST(AttentionOnDevice, ChoosesAKernelWhateverARankBesideDoes) {
  const ChoicesInFixedOrder seen;
  const int64_t before = flash_calls().backward;
  std::atomic<bool> through{false};
  std::thread beside([&] {
    for (int i = 0; i < 20; ++i) {
      const at::Tensor x = normal({1, 64, 2, 8}, 1).to(fake_device(1), at::kBFloat16).requires_grad_();
      kernels::attention(x, x, x, {}, 1.0).sum().backward();
    }
    through = true;
  });
  const at::Tensor x = normal({1, 8, 1, 8}, 1).to(fake_device(), at::kBFloat16);
  while (!through) kernels::attention(x, x, x, {}, 1.0);
  beside.join();
  EXPECT_EQ(flash_calls().backward - before, 20);
  EXPECT_EQ(seen.count(), 0);
}

// --- flash attention on the fake device

TEST(FlashOperator, RefusesWhatCudaWouldReadWrongly) {
  const at::TensorOptions there = at::TensorOptions(fake_device()).dtype(at::kBFloat16);
  const at::Tensor q = at::zeros({12, 4, 8}, there), k = at::zeros({12, 2, 8}, there);
  const auto lengths = [&](std::vector<int32_t> x) { return at::tensor(x, at::kInt).to(fake_device()); };
  const auto call = [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& cumulative,
                       int64_t longest) {
    at::_flash_attention_forward(q, k, k, cumulative, cumulative, longest, longest, 0.0, true, false, 1.0);
  };
  const at::Tensor right = lengths({0, 5, 5, 12});
  EXPECT_NO_THROW(call(q, k, right, 7));
  EXPECT_THROW(call(q, k, right, 6), c10::Error) << "a longer sequence";
  EXPECT_THROW(call(q, k, lengths({0, 5, 11}), 7), c10::Error) << "not all tokens";
  EXPECT_THROW(call(q, k, lengths({1, 5, 12}), 7), c10::Error);
  EXPECT_THROW(call(q, k, lengths({0, 7, 5, 12}), 7), c10::Error) << "not rising";
  EXPECT_THROW(call(q, k, right.to(at::kLong), 7), c10::Error);
  EXPECT_THROW(call(q, k, right.cpu(), 7), c10::Error);
  EXPECT_THROW(call(q, k, lengths({0, 5, 5, 5, 5, 5, 12}).slice(0, 0, 7, 2), 7), c10::Error) << "strided";
  EXPECT_THROW(call(q.to(at::kFloat), k.to(at::kFloat), right, 7), c10::Error);
  EXPECT_THROW(call(q, k.to(fake_device(1)), right, 7), c10::Error);
  EXPECT_THROW(call(q, at::zeros({12, 3, 8}, there), right, 7), c10::Error) << "4 heads over 3";
  EXPECT_THROW(call(at::zeros({12, 4, 12}, there), at::zeros({12, 2, 12}, there), right, 7), c10::Error);
  EXPECT_THROW(call(at::zeros({4, 8, 12}, there).permute({2, 0, 1}), k, right, 7), c10::Error);
  EXPECT_THROW(call(q.view({1, 12, 4, 8}), k.view({1, 12, 2, 8}), right, 7), c10::Error);
}

TEST(FlashOperator, RefusesGradientsInAnyOrder) {
  const at::Tensor x = at::zeros({1, 4, 1, 8}, at::TensorOptions(fake_device()).dtype(at::kBFloat16));
  const auto [y, lse, seeds, unused, mask] =
      at::_flash_attention_forward(x, x, x, {}, {}, 4, 4, 0.0, true, false, 1.0);
  EXPECT_THROW(at::_flash_attention_backward(x, x, x, x, y, lse, {}, {}, 4, 4, 0.0, true, seeds, unused, 1.0),
               c10::Error);
}

// --- memory-efficient attention on the fake device

TEST(EfficientOperator, RefusesWhatCudaWouldNotTake) {
  const at::TensorOptions there(fake_device());
  const at::Tensor x = at::zeros({1, 5, 2, 8}, there), bias = at::zeros({1, 1, 5, 16}, there);
  const auto call = [](const at::Tensor& q, const at::Tensor& k, const std::optional<at::Tensor>& bias,
                       int64_t causal) {
    at::_efficient_attention_forward(q, k, k, bias, {}, {}, {}, {}, 0.0, causal, true, 1.0);
  };
  EXPECT_NO_THROW(call(x, x, {}, 2));
  EXPECT_NO_THROW(call(x, x, bias.narrow(3, 0, 5).expand({1, 2, 5, 5}), 0));
  EXPECT_THROW(call(x, x, {}, 0), c10::Error) << "sees ahead";
  EXPECT_THROW(call(x, x.narrow(2, 0, 1), {}, 2), c10::Error) << "fewer heads of keys";
  EXPECT_THROW(call(x, x, bias.narrow(3, 0, 5), 0), c10::Error) << "of one head";
  EXPECT_THROW(call(x, x, at::zeros({1, 2, 5, 5}, there), 0), c10::Error) << "rows that begin anywhere";
  const at::Tensor narrow = at::zeros({1, 5, 2, 6}, there);
  EXPECT_THROW(call(narrow, narrow, {}, 2), c10::Error);
}

TEST(EfficientOperator, RefusesGradientsInAnyOrder) {
  const at::Tensor x = at::zeros({1, 5, 2, 8}, at::TensorOptions(fake_device()));
  const auto [y, lse, seed, offset, q, k] =
      at::_efficient_attention_forward(x, x, x, {}, {}, {}, {}, {}, 0.0, 2, true, 1.0);
  const auto call = [&, y = y, lse = lse, seed = seed, offset = offset](std::optional<int64_t> blocks) {
    at::_efficient_attention_backward(x, x, x, x, {}, y, {}, {}, 5, 5, lse, 0.0, seed, offset, 2, false, 1.0,
                                      blocks);
  };
  EXPECT_NO_THROW(call(1));
  EXPECT_THROW(call(2), c10::Error);
  EXPECT_THROW(call({}), c10::Error) << "as LibTorch's own backward calls it";
}

// --- memory

class Limited {
 public:
  explicit Limited(size_t bytes) { Memory::get().limit(bytes); }
  ~Limited() { Memory::get().unlimit(); }
  Limited(const Limited&) = delete;
  Limited& operator=(const Limited&) = delete;
};

// In less than a byte a pair of tokens.
TEST(AttentionOnDevice, MakesNoMaskForFlash) {
  constexpr int64_t kTokens = 768;
  const Shape documents{1, kTokens, kTokens, 2, 1, 8, 0, uneven(1, kTokens)},
      window{1, kTokens, kTokens, 2, 1, 8, 40};
  const auto both_ways = [](const Shape& s, at::ScalarType dtype, Lengths lengths) {
    const auto leaf = [&](int64_t heads) {
      return normal({1, kTokens, heads, 8}, 1).to(fake_device(), dtype).requires_grad_();
    };
    const at::Tensor q = leaf(2), k = leaf(1), v = leaf(1), dy = at::ones_like(q);
    const AttentionMask mask = there(s, lengths);
    const Limited memory(kTokens * kTokens);
    kernels::attention(q, k, v, mask, 0.3).backward(dy);
  };
  EXPECT_NO_THROW(both_ways(documents, at::kBFloat16, Lengths::kGiven));
  EXPECT_NO_THROW(both_ways(window, at::kBFloat16, Lengths::kGiven));
  EXPECT_THROW(both_ways(documents, at::kBFloat16, Lengths::kUnknown), c10::OutOfMemoryError);
  EXPECT_THROW(both_ways(window, at::kFloat, Lengths::kGiven), c10::OutOfMemoryError);
}

// --- in training

// Rows so long that a mask is larger than the logits, whose rows a device pads.
constexpr int64_t kRow = 144, kSteps = 2, kBatches = 2, kLayers = 2;

// Documents side by side, as packing gives them.
data::Batch packed_batch(int64_t number) {
  data::Batch batch = train::tiny_batch(number, 2, kRow);
  batch.document_BT = uneven(2, kRow).add(number).contiguous();
  batch.positions_BT = at::zeros({2, kRow}, at::kLong);
  for (int64_t b = 0; b < 2; ++b)
    for (int64_t t = 1; t < kRow; ++t)
      if (batch.document_BT[b][t].equal(batch.document_BT[b][t - 1]))
        batch.positions_BT[b][t] = batch.positions_BT[b][t - 1] + 1;
  return batch;
}

// Gemma 3: a layer with a window, and one without.
std::unique_ptr<models::Model> windowed_model(uint64_t seed) {
  const std::vector<models::DecoderSpec> all = tiny_families();
  models::DecoderSpec spec = *std::ranges::find(all, "gemma3", &models::DecoderSpec::family);
  spec.vocabulary = 32, spec.context = kRow, spec.layers = kLayers, spec.window = 10, spec.global_every = 2;
  spec.heads = 2, spec.kv_heads = 1, spec.ffn_width = 32;  // rows far narrower than long
  auto model = std::make_unique<models::Decoder>(spec);
  models::initialise(model->parameters(), "gpt2", 0.1, seed);
  return model;
}

Training packed(at::ScalarType dtype, bool distilled) {
  Training training{.model = [] { return windowed_model(5); }, .batch = packed_batch, .dtype = dtype};
  if (!distilled) return training;
  return testing::distilled(training, [] { return windowed_model(9); },
                            {{.fn = "cross_entropy"}, {.fn = "forward_kl"}});
}

// By what bf16 itself is off from f32, every layer of student and teacher by flash.
TEST(AttentionOnDevice, PackedTrainingIsAsGoodAsTheCpus) {
  for (const bool distilled : {false, true}) {
    SCOPED_TRACE(distilled);
    const FlashCalls before = flash_calls();
    expect_as_good_as_the_cpus([&](at::ScalarType dtype) { return packed(dtype, distilled); }, kSteps);
    EXPECT_EQ(flash_calls().forward - before.forward, kSteps * kBatches * kLayers * (distilled ? 2 : 1));
    EXPECT_EQ(flash_calls().backward - before.backward, kSteps * kBatches * kLayers);
  }
}

// In f32, which flash does not take, with a mask.
TEST(AttentionOnDevice, PackedTrainingInF32IsTheCpus) {
  const FlashCalls before = flash_calls();
  const EfficientCalls efficient = efficient_calls();
  expect_the_cpus(packed(at::kFloat, false), kChain, kSteps);
  EXPECT_EQ(flash_calls().forward, before.forward);
  EXPECT_EQ(efficient_calls().backward - efficient.backward, kSteps * kBatches * kLayers);
}

// The host reads once; documents and their lengths are sent without a wait, for student and teacher; and flash is all that
// LibTorch does for attention.
TEST(AttentionOnDevice, APackedStepWaitsForNothingMore) {
  const Traffic traffic = run(packed(at::kBFloat16, true), fake_device(), 1).all_traffic.back();
  EXPECT_EQ(traffic.host_reads(), 1);
  EXPECT_EQ(traffic.uploads_waited, 0);
  EXPECT_EQ(traffic.uploads_ahead, 3 * kBatches) << "tokens, labels, positions";
  for (const char* name :
       {"aten::_softmax.out", "aten::_softmax_backward_data.out", "aten::bmm.out", "aten::tril.out",
        "aten::where.self", "aten::eq.Tensor_out", "aten::lt.Scalar_out", "aten::bitwise_and.Tensor_out"})
    EXPECT_FALSE(traffic.operators.contains(name)) << name;
}

// The most elements of any tensor on the device that an operator has given since the object was made.
class Largest {
 public:
  Largest() {
    largest = 0;
    handle_ = at::addGlobalCallback(at::RecordFunctionCallback(nullptr, &see).needsOutputs(true));
  }
  ~Largest() { at::removeCallback(handle_); }
  Largest(const Largest&) = delete;
  Largest& operator=(const Largest&) = delete;
  int64_t elements() const { return largest; }

 private:
  static void see(const at::RecordFunction& function, at::ObserverContext*) {
    for (const c10::IValue& value : function.outputs()) {
      if (!value.isTensor() || !value.toTensor().defined()) continue;
      if (value.toTensor().device().type() != fake_device().type()) continue;
      int64_t before = largest;
      while (before < value.toTensor().numel() &&
             !largest.compare_exchange_weak(before, value.toTensor().numel()))
        continue;
    }
  }
  static inline std::atomic<int64_t> largest;
  at::CallbackHandle handle_;
};

TEST(AttentionOnDevice, APackedStepHasNothingAsLargeAsAMask) {
  const auto largest = [](at::ScalarType dtype) {
    const Largest seen;
    run(packed(dtype, true), fake_device(), 1);
    return seen.elements();
  };
  EXPECT_LT(largest(at::kBFloat16), kRow * kRow);
  EXPECT_GE(largest(at::kFloat), 2 * kRow * kRow) << "what is looked for is seen";
}

}  // namespace
}  // namespace retort::testing
