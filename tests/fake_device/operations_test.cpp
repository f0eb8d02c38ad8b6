// The operations of kernels/ on tensors of a device: value and gradients no worse than twice the plain version's in
// the same dtype, against fp64, and no wait for the device.
#include <ATen/record_function.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "distill/loss.h"
#include "kernels/activation.h"
#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/divergences.h"
#include "kernels/embedding.h"
#include "kernels/linear_loss.h"
#include "kernels/norm.h"
#include "kernels/reference.h"
#include "kernels/rope.h"
#include "kernels/row_losses.h"
#include "tests/fake_device/fake_device.h"
#include "tests/kernels/block_squares.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16};

// Inputs and results on the host; fp64 stays there.
Operation there(const Operation& operation) {
  return [operation](const Tensors& inputs) {
    if (inputs[0].scalar_type() == at::kDouble) return operation(inputs);
    Tensors moved;
    for (const at::Tensor& input : inputs) moved.push_back(input.to(fake_device()));
    const Watch watch;
    const at::Tensor out = operation(moved);
    EXPECT_EQ(watch.traffic().host_reads(), 0);
    EXPECT_GT(watch.traffic().launches, 0);
    return out.to(at::kCPU);
  };
}

TEST(OnDevice, NormsMatchFp64) {
  for (const at::ScalarType dtype : kDtypes)
    for (const int64_t width : {7, 64}) {
      const Tensors inputs{normal({2, 5, width}, 1), normal({width}, 2), normal({width}, 3)};
      expect_as_good(
          "rms_norm", there([](const Tensors& t) { return rms_norm(t[0], t[1], 1e-5) + 0.0 * t[2]; }),
          [](const Tensors& t) { return reference::rms_norm(t[0], t[1], 1e-5, false) + 0.0 * t[2]; }, inputs,
          dtype);
      expect_as_good(
          "unit offset",
          there([](const Tensors& t) { return rms_norm(t[0], t[1], 1e-5, true) + 0.0 * t[2]; }),
          [](const Tensors& t) { return reference::rms_norm(t[0], t[1], 1e-5, true) + 0.0 * t[2]; }, inputs,
          dtype);
      expect_as_good(
          "layer_norm", there([](const Tensors& t) { return layer_norm(t[0], t[1], t[2], 1e-5); }),
          [](const Tensors& t) { return reference::layer_norm(t[0], t[1], t[2], 1e-5); }, inputs, dtype);
    }
}

// The residual stream's sum and its norm are one launch; the gradients of both arrive.
TEST(OnDevice, ASumAndItsNormAreOneLaunch) {
  const Tensors inputs{normal({2, 5, 64}, 1), normal({2, 5, 64}, 2), normal({64}, 3)};
  for (const at::ScalarType dtype : kDtypes)
    expect_as_good(
        "add_rms_norm", there([](const Tensors& t) {
          const AddedNorm added = add_rms_norm(t[0], t[1], t[2], 1e-5);
          return at::stack({added.sum_ND, added.y_ND});
        }),
        [](const Tensors& t) {
          const at::Tensor sum = t[0] + t[1];
          return at::stack({sum, reference::rms_norm(sum, t[2], 1e-5, false)});
        },
        inputs, dtype);
  Tensors leaves;
  for (const at::Tensor& x : inputs) leaves.push_back(x.to(fake_device(), at::kFloat).requires_grad_());
  const Watch watch;
  const AddedNorm added = add_rms_norm(leaves[0], leaves[1], leaves[2], 1e-5);
  EXPECT_EQ(watch.traffic().launches, 1);
  EXPECT_TRUE(watch.traffic().operators.empty());
}

TEST(OnDevice, GatesMatchFp64) {
  using Gated = at::Tensor (*)(const at::Tensor&, const at::Tensor&);
  const std::pair<Gated, Gated> gates[] = {
      {swiglu, reference::swiglu}, {geglu, reference::geglu}, {relu2glu, reference::relu2glu}};
  for (const at::ScalarType dtype : kDtypes) {
    const Tensors inputs{normal({11, 23}, 1, 3.0), normal({11, 23}, 2)};
    for (const auto& [ours, plain] : gates)
      expect_as_good(
          "gate", there([ours = ours](const Tensors& t) { return ours(t[0], t[1]); }),
          [plain = plain](const Tensors& t) { return plain(t[0], t[1]); }, inputs, dtype);
    expect_as_good(
        "gelu", there([](const Tensors& t) { return gelu_tanh(t[0]); }),
        [](const Tensors& t) { return reference::gelu_tanh(t[0]); }, {inputs[0]}, dtype);
  }
}

TEST(OnDevice, RopeMatchesFp64) {
  const at::Tensor frequencies = rope_frequencies(16, 1e4, {});
  const at::Tensor positions = at::arange(9, at::kLong).flip(0).expand({2, 9});
  for (const at::ScalarType dtype : kDtypes)
    expect_as_good(
        "rope", there([&](const Tensors& t) {
          const at::Device device = t[0].device();
          const auto [q, k] = rope(t[0], t[1], rope_tables(frequencies, 12, device), positions.to(device));
          return at::cat({q, k}, 2);
        }),
        [&](const Tensors& t) {
          const RopeTables tables = rope_tables(frequencies, 12);
          return at::cat({reference::rope(t[0], tables, positions), reference::rope(t[1], tables, positions)},
                         2);
        },
        {normal({2, 9, 3, 16}, 1), normal({2, 9, 1, 16}, 2)}, dtype);
}

// Queries and keys together, from the columns of a product, with nothing of LibTorch's beside it.
TEST(OnDevice, RopeIsOneLaunchEachWay) {
  const RopeTables tables = rope_tables(rope_frequencies(8, 1e4, {}), 9, fake_device());
  const at::Tensor positions = at::arange(9, at::kLong).expand({2, 9}).contiguous().to(fake_device()),
                   both = normal({2, 9, 40}, 1).to(fake_device(), at::kBFloat16),
                   ones = at::ones({2, 9, 4, 8}, both.options());
  const at::Tensor q = both.narrow(2, 0, 32).unflatten(2, {4, 8}).detach().requires_grad_(),
                   k = both.narrow(2, 32, 8).unflatten(2, {1, 8}).detach().requires_grad_();
  const Watch watch;
  const auto [y, z] = rope(q, k, tables, positions);
  EXPECT_EQ(watch.traffic().launches, 1);
  torch::autograd::grad({y, z}, {q, k}, {ones, ones.narrow(2, 0, 1)});
  EXPECT_EQ(watch.traffic().launches, 2);
  for (const auto& [name, times] : watch.traffic().operators) ADD_FAILURE() << name << ", " << times;
}

TEST(OnDevice, AnEmbeddingsGradientIsSummedInTokenOrder) {
  const at::Tensor ids = random_labels(40, 6, 3).view({4, 10}), dy = normal({4, 10, 12}, 4).to(at::kFloat);
  const at::Tensor device = embedding_backward(dy.to(fake_device()), ids.to(fake_device()), 6).cpu();
  EXPECT_LE(relative_error(device, embedding_backward(dy.to(at::kDouble), ids, 6)), 40 * 0x1p-24);
}

// --- losses on rows of logits

struct Problem {
  at::Tensor h_ND = normal({23, 12}, 1), weight_VD = normal({37, 12}, 2, 0.5),
             teacher_ND = normal({23, 9}, 3), teacher_UD = normal({33, 9}, 4, 0.5),
             labels_N = random_labels(23, 33, 5, 4), places_N = at::arange(100, 123, at::kLong);
};

// The sum, its parts, and the gradients of h and of the weight.
Tensors distilled(const Problem& p, const std::vector<LossTerm>& terms, const at::Device& device,
                  at::ScalarType dtype, double softcap) {
  const auto of = [&](const at::Tensor& x) { return x.to(device, dtype); };
  const at::Tensor h_ND = of(p.h_ND).requires_grad_(), weight_VD = of(p.weight_VD).requires_grad_();
  const TeacherSignal teacher{.heads = {{of(p.teacher_ND), {of(p.teacher_UD)}}}, .places_N = p.places_N};
  const LinearDistillResult result =
      linear_distill(h_ND, {weight_VD, softcap}, teacher, p.labels_N.to(device), terms, 8);
  (result.sum / 7.0).backward();
  Tensors out{result.sum.detach(), h_ND.grad(), weight_VD.grad()};
  for (const at::Tensor& part : result.parts) out.push_back(part);
  for (at::Tensor& x : out) x = x.cpu();
  return out;
}

// In fp64, from whole logits of the rows that count.
Tensors exact(const Problem& p, const std::vector<LossTerm>& terms, at::ScalarType dtype, double softcap) {
  const auto of = [&](const at::Tensor& x) { return x.to(dtype).to(at::kDouble); };
  const at::Tensor valid = (p.labels_N != kIgnoredLabel).nonzero().view({-1});
  const at::Tensor h = of(p.h_ND).index_select(0, valid), w = of(p.weight_VD);
  at::Tensor z = at::mm(h, w.t());
  if (softcap > 0) z = softcap * (z / softcap).tanh();
  const LogitRows rows{.student_CV = z,
                       .teacher_CV = at::mm(of(p.teacher_ND).index_select(0, valid), of(p.teacher_UD).t()),
                       .labels_C = p.labels_N.index_select(0, valid),
                       .places_C = p.places_N.index_select(0, valid),
                       .vocabulary = 33};
  at::Tensor gradient = at::zeros_like(z), sum = at::zeros({}, at::kDouble);
  Tensors parts;
  for (const LossTerm& term : terms) {
    parts.push_back(term.loss(rows, term.weight, gradient).to(at::kDouble));
    sum = sum + term.weight * parts.back();
  }
  if (softcap > 0) gradient = gradient * (1.0 - (z / softcap).square());
  gradient = gradient / 7.0;
  Tensors out{sum, at::zeros_like(of(p.h_ND)).index_copy(0, valid, at::mm(gradient, w)),
              at::mm(gradient.t(), h)};
  out.insert(out.end(), parts.begin(), parts.end());
  return out;
}

void expect_losses(const std::string& what, const std::vector<LossTerm>& terms, double softcap = 0) {
  const Problem p;
  for (const at::ScalarType dtype : kDtypes) {
    const Watch watch;
    const Tensors got = distilled(p, terms, fake_device(), dtype, softcap);
    EXPECT_EQ(watch.traffic().scalars + watch.traffic().shapes, 0) << what;
    const Tensors usual = distilled(p, terms, at::kCPU, dtype, softcap),
                  want = exact(p, terms, dtype, softcap);
    for (size_t i = 0; i < want.size(); ++i) {
      const double unit = usual[i].scalar_type() == at::kBFloat16 ? 0x1p-8 : 0x1p-23;
      const double allowed =
          2.0 * (worst_error(usual[i], want[i]) + unit * want[i].abs().max().item<double>());
      EXPECT_LE(worst_error(got[i], want[i]), allowed) << what << " " << toString(dtype) << " result " << i;
    }
  }
}

TEST(OnDevice, EveryLossOnRowsMatchesFp64) {
  for (const distill::LossSpec& spec : distill::losses()) {
    if (!spec.make) continue;
    distill::LossOptions options{.fn = spec.name, .temperature = 1.0, .k = 5, .draws = 6};
    if (std::count(spec.parameters.begin(), spec.parameters.end(), "temperature")) options.temperature = 2.0;
    expect_losses(spec.name, {{spec.make(options), 0.75}});
    expect_losses(spec.name + " beside cross-entropy",
                  {{spec.make(options), 0.75}, {cross_entropy_rows(), 0.25}});
    expect_losses(spec.name + " beside cross-entropy, capped",
                  {{cross_entropy_rows(), 0.25}, {spec.make(options), 0.75}}, 5.0);
  }
}

TEST(OnDevice, SeveralLossesOnRowsMatchFp64) {
  const LossTerm kl{forward_kl_rows(2.0), 0.5}, mse{logit_mse_rows(), 0.25},
      cross_entropy{cross_entropy_rows(), 0.25};
  expect_losses("two with a teacher", {kl, mse});
  expect_losses("two beside cross-entropy", {kl, cross_entropy, mse});
  expect_losses("three with a teacher", {kl, mse, cross_entropy, {forward_kl_rows(1.0), 0.25}});
  expect_losses("cross-entropy without weight", {kl, {cross_entropy_rows(), 0.0}});
  expect_losses("cross-entropy alone", {cross_entropy});
}

// One loss with a teacher or two, alone or beside cross-entropy, are one launch a chunk, and no chunk's logits or gradient is
// copied.
TEST(OnDevice, OneKernelReadsBothModelsBf16Logits) {
  const Problem p;
  const auto on = [](const at::Tensor& x) { return x.to(fake_device(), at::kBFloat16); };
  const at::Tensor h = on(p.h_ND).requires_grad_(), w = on(p.weight_VD).requires_grad_(),
                   teacher_h = on(p.teacher_ND), teacher_w = on(p.teacher_UD),
                   labels = p.labels_N.to(fake_device());
  const auto traffic = [&](const std::vector<LossTerm>& terms, int64_t chunk) {
    const Watch watch;
    linear_distill(h, {w}, {.heads = {{teacher_h, {teacher_w}}}}, labels, terms, chunk);
    return watch.traffic();
  };
  for (const RowLoss& loss : {forward_kl_rows(2.0), divergence_rows(Divergence::kReverseKl, 1.0),
                              divergence_rows(Divergence::kAdaptiveKl, 1.0), logit_mse_rows()})
    for (const std::vector<LossTerm>& terms :
         {std::vector<LossTerm>{{loss}},
          {{cross_entropy_rows(), 0.5}, {loss, 0.5}},
          {{loss, 0.5}, {divergence_rows(Divergence::kJsd, 1.5, 0.5), 0.25}},
          {{loss, 0.5}, {forward_kl_rows(1.0), 0.25}, {cross_entropy_rows(), 0.0}}}) {
      Traffic whole = traffic(terms, 23), chunks = traffic(terms, 8);
      EXPECT_EQ(whole.launches, 1);
      EXPECT_EQ(chunks.launches, 3);
      EXPECT_EQ(chunks.operators["aten::copy_"], whole.operators["aten::copy_"]) << "of sums";
      EXPECT_EQ(chunks.operators["aten::mm.out"], 3 * 3) << "logits of both, the states' gradient";
      EXPECT_EQ(chunks.operators["aten::mm.dtype_out"], 1);
      EXPECT_EQ(chunks.operators["aten::addmm.dtype_out"], 2);
      EXPECT_EQ(chunks.operators["aten::zero_"] + chunks.operators["aten::fill_.Scalar"],
                whole.operators["aten::zero_"] + whole.operators["aten::fill_.Scalar"])
          << "no gradient is cleared";
    }
}

// What products are given while one lives, of the thread.
class Factors {
 public:
  Factors() {
    seen().clear();
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(&note).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  }
  ~Factors() { at::removeCallback(handle_); }
  Factors(const Factors&) = delete;
  Factors& operator=(const Factors&) = delete;
  static Tensors& seen() {
    thread_local Tensors tensors;
    return tensors;
  }

 private:
  static std::unique_ptr<at::ObserverContext> note(const at::RecordFunction& call) {
    if (std::string(call.name()) == "aten::mm" || std::string(call.name()) == "aten::addmm")
      for (const c10::IValue& input : call.inputs())
        if (input.isTensor() && input.toTensor().defined() && !input.toTensor().is_cpu())
          seen().push_back(input.toTensor());
    return nullptr;
  }
  at::CallbackHandle handle_;
};

// An odd vocabulary, of which a device's logits and their gradients have rows that begin at whole runs all the same, whether
// losses read bf16 or f32 copies, in tiles or not: the three products of the student, and the teacher's.
TEST(OnDevice, ProductsOfAHeadHaveRowsThatBeginAtWholeRuns) {
  constexpr int64_t kOdd = 77, kRows = 20, kWidth = 64;
  const LossTerm kl{forward_kl_rows(2.0), 0.5}, mse{logit_mse_rows(), 0.25},
      third{divergence_rows(Divergence::kJsd, 1.5, 0.5), 0.25};
  for (const at::ScalarType dtype : kDtypes)
    for (const double softcap : {0.0, 5.0})
      for (const std::vector<LossTerm>& terms : {std::vector<LossTerm>{kl}, {kl, mse, third}}) {
        const auto on = [&](at::IntArrayRef shape, uint64_t seed) {
          return normal(shape, seed).to(fake_device(), dtype);
        };
        const at::Tensor h = on({kRows, kWidth}, 1).requires_grad_(),
                         w = on({kOdd, kWidth}, 2).requires_grad_(),
                         labels = at::arange(kRows).to(fake_device());
        const Factors factors;
        linear_distill(h, {w, softcap}, {.heads = {{on({kRows, kWidth}, 3), {on({kOdd, kWidth}, 4)}}}},
                       labels, terms, 8);
        linear_cross_entropy(h, {w, softcap}, labels, 8);
        int64_t logits = 0;
        for (const at::Tensor& x : Factors::seen()) {
          if (x.dim() != 2 || (x.size(0) != kOdd && x.size(1) != kOdd)) continue;
          const int64_t row = x.stride(1) == 1 ? x.stride(0) : x.stride(1);
          EXPECT_TRUE(row % 64 == 0 && std::min(x.stride(0), x.stride(1)) == 1)
              << x.sizes() << " " << x.strides() << " " << toString(dtype) << " " << softcap;
          ++logits;
        }
        EXPECT_GE(logits, 3 * (4 + 3)) << "factors and results with a side of V, in each of three chunks";
      }
}

// Of all losses that a recipe can name, each beside each: one launch a chunk. Some pairs of each have the values and
// gradients that the CPU makes of them; tests/cuda_emulation/row_pairs_test.cpp has those of all.
TEST(OnDevice, TwoLossesAreOneKernel) {
  std::vector<std::pair<std::string, LossTerm>> all;
  for (const distill::LossSpec& spec : distill::losses()) {
    if (!spec.make || !spec.needs_teacher()) continue;
    distill::LossOptions options{
        .fn = spec.name, .temperature = all.size() % 2 == 0 ? 1.0 : 2.0, .k = 5, .draws = 6};
    all.push_back({spec.name, {spec.make(options), 0.5}});
  }
  ASSERT_EQ(all.size(), 13u);
  const Problem p;
  for (size_t i = 0; i < all.size(); ++i)
    for (size_t j = i; j < all.size(); ++j) {
      const auto& [one, first] = all[i];
      const auto& [other, second] = all[j];
      std::vector<LossTerm> terms{first, second};
      if ((i + j) % 2 == 0) terms.insert(terms.begin() + 1, {cross_entropy_rows(), 0.25});
      const Watch watch;
      distilled(p, terms, fake_device(), at::kBFloat16, 0.0);
      EXPECT_EQ(watch.traffic().launches, 3) << one << " and " << other;
      if (i == j || j == i + 1 || j == i + 6) expect_losses(one + " and " + other, terms);
    }
}

TEST(OnDevice, CrossEntropyOfAHeadMatchesTheCpu) {
  const Problem p;
  for (const at::ScalarType dtype : kDtypes) {
    const auto on = [&](const at::Device& device, bool a_row) -> Tensors {
      const at::Tensor h = p.h_ND.to(device, dtype).requires_grad_(),
                       w = p.weight_VD.to(device, dtype).requires_grad_(), labels = p.labels_N.to(device);
      const at::Tensor out =
          a_row ? linear_token_losses(h, {w}, labels, 8) : linear_cross_entropy(h, {w}, labels, 8);
      out.sum().backward();
      return {out.detach().cpu(), h.grad().cpu(), w.grad().cpu()};
    };
    for (const bool a_row : {false, true}) {
      const Watch watch;
      const Tensors got = on(fake_device(), a_row);
      EXPECT_EQ(watch.traffic().scalars + watch.traffic().shapes, 0);
      const Tensors want = on(at::kCPU, a_row);
      // A softmax of 37 columns and products of up to 37 terms, each result rounded once to the dtype.
      const double unit = dtype == at::kFloat ? 0x1p-23 : 0x1p-7;
      EXPECT_LE(relative_error(got[0], want[0]), 40 * 0x1p-23);
      for (size_t i : {1, 2})
        EXPECT_LE(relative_error(got[i], want[i]), (dtype == at::kFloat ? 80 : 2) * unit);
    }
  }
}

// Over integers, and labels of probability 0, the weight's gradient is a sum that f32 holds and its chunks' sums in bf16
// are not: it is rounded once.
TEST(OnDevice, AWeightsGradientIsRoundedOnce) {
  const at::Tensor integers = (normal({512, 65}, 1) * 100).round().clamp(-127, 127);
  integers.select(1, 0).fill_(127);
  const at::Tensor weight = at::zeros({2, 65}, at::kBFloat16), sum = integers.sum(0);
  weight.select(1, 0).copy_(at::tensor({1.0, -1.0}));
  for (const double count : {1.0, 3.0}) {  // by which the caller divides
    const at::Tensor w = weight.to(fake_device()).requires_grad_(),
                     loss = linear_cross_entropy(integers.to(fake_device(), at::kBFloat16), w,
                                                 at::ones({512}, at::kLong).to(fake_device()), 64) /
                            count;
    loss.backward();
    const at::Tensor factor = at::ones({}) / count, whole = at::stack({sum, -sum}).to(at::kFloat);
    EXPECT_TRUE(same_bits(w.grad().cpu(), whole.mul(factor).to(at::kBFloat16))) << count;
  }
}

// --- updates

TEST(OnDevice, NormVerdictAndUpdateAreTheCpusBits) {
  const Tensors values{normal({300, 130}, 1).to(at::kFloat), normal({7}, 2).to(at::kFloat)};
  const auto on = [&](const at::Device& device) {
    std::vector<AdamwTensor> tensors;
    std::vector<BlockedGradient> gradients;
    for (const at::Tensor& x : values) {
      const at::Tensor p = x.to(device).clone(), g = (x * 0.1).sin().to(device);
      const RowBlocks blocks{0, x.size(0), 64};
      tensors.push_back({p, at::zeros_like(p), at::zeros_like(p), g, blocks, x.dim() > 1 ? 0.1 : 0.0});
      gradients.push_back({g, blocks});
    }
    const std::vector<double> squares = block_squares(gradients);
    EXPECT_EQ(squares.size(), 6u);
    const at::Tensor losses = at::ones({2}, at::TensorOptions(device).dtype(at::kDouble));
    const Watch watch;
    const at::Tensor verdict = judge(squares_of(gradients), losses, 1.0);
    for (int64_t t = 1; t <= 3; ++t)
      adamw(tensors, {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .t = t}, verdict);
    EXPECT_EQ(watch.traffic().host_reads(), 0);
    EXPECT_EQ(norm_of(squares), verdict.cpu()[0].item<double>());
    EXPECT_LT(verdict.cpu()[1].item<double>(), 1.0);
    Tensors out{at::tensor(squares, at::kDouble), verdict.cpu()};
    for (const AdamwTensor& x : tensors) out.insert(out.end(), {x.p.cpu(), x.m.cpu(), x.v.cpu()});
    return out;
  };
  const Tensors device = on(fake_device()), cpu = on(at::kCPU);
  for (size_t i = 0; i < cpu.size(); ++i) EXPECT_TRUE(same_bits(device[i], cpu[i])) << i;
}

// An update writes a copy beside p where one kernel does both: whole, dense, cast to bf16 or on a grid of groups.
TEST(OnDevice, AnUpdateWritesCopiesThatItsKernelCan) {
  const at::Tensor p = at::zeros({3, 64}, at::TensorOptions(fake_device())), bf16 = p.to(at::kBFloat16),
                   padded = at::zeros({3 * 64 + 1}, p.options()).narrow(0, 1, 3 * 64).view({3, 64});
  const FittedGrid groups{{Fit::kQ8_0, 32}, {RoundRule::kNearestAway, -127, 127}},
      large{{Fit::kInteger, 128, 7.5}, {RoundRule::kNearestEven, -8, 7}},
      rows{{Fit::kInteger, 0, 7.5}, {RoundRule::kNearestEven, -8, 7}};
  EXPECT_TRUE(writes_copy(p, {bf16}));
  EXPECT_TRUE(writes_copy(p, {bf16, groups}));
  EXPECT_TRUE(writes_copy(p, {p.clone(), groups}));
  EXPECT_FALSE(writes_copy(p, {})) << "none";
  EXPECT_FALSE(writes_copy(p, {p.clone()})) << "f32, which is the master itself";
  EXPECT_FALSE(writes_copy(p, {bf16, large})) << "rows of half a group";
  EXPECT_FALSE(writes_copy(p, {bf16, rows})) << "a row's scale";
  EXPECT_FALSE(writes_copy(p, {bf16.narrow(0, 0, 2), groups})) << "a part";
  EXPECT_FALSE(writes_copy(p, {bf16.view({64, 3}).t(), groups})) << "not dense";
  EXPECT_FALSE(writes_copy(padded, {bf16, groups})) << "between 16 bytes";
  EXPECT_FALSE(writes_copy(p, {padded, groups})) << "between 16 bytes";
  EXPECT_FALSE(writes_copy(p.cpu(), {bf16.cpu()})) << "on the CPU";
  const auto update = [&](const at::Tensor& like, const WorkingCopy& copy) {
    const at::Tensor zero = at::zeros_like(like);
    adamw({{zero, zero.clone(), zero.clone(), zero.clone(), {0, 3, 3}, 0.0, copy}},
          {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .t = 1});
  };
  update(p, {bf16, groups});
  EXPECT_THROW(update(p, {bf16, large}), ShapeError);
  EXPECT_THROW(update(p.cpu(), {bf16.cpu()}), ShapeError);
}

}  // namespace
}  // namespace retort::kernels
