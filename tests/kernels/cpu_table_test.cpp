// The loops of every table that this machine can run, held to the fp64 oracle one by one; processors_test.cpp has the public
// operations on each.
#include "kernels/cpu/table.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/cpu.h"
#include "kernels/cpu/elements.h"
#include "kernels/gate.h"
#include "kernels/reference.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels::cpu {
namespace {

using namespace retort::testing;

// Every loop here is a few dozen roundings deep; the public tests compute sharper bounds.
constexpr double kTolerance = 32 * 0x1p-24;

void expect_close(const char* table, const char* what, const at::Tensor& got, const at::Tensor& exact) {
  EXPECT_LE(relative_error(got, exact), kTolerance) << table << " " << what;
}

at::Tensor single(at::IntArrayRef shape, uint64_t seed, double std = 1.0) {
  return normal(shape, seed, std).to(at::kFloat);
}

TEST(CpuTable, NamesWhatItRuns) {
  ASSERT_FALSE(all_cpu_tables().empty());
  EXPECT_STREQ(all_cpu_tables().front()->name, "avx2");
  EXPECT_STREQ(cpu_table().name, cpu_features().avx512 ? "avx512" : "avx2");
}

TEST(CpuTable, NormalisesOnEveryInstructionSet) {
  const at::Tensor x = single({9, 77}, 1), w = single({77}, 2), dy = single({9, 77}, 3),
                   residual = single({9, 77}, 4), dsum = single({9, 77}, 5);
  const Outcome exact = run(
      [&](const Tensors& t) {
        return (reference::rms_norm(t[0], t[1], 1e-5, false) * dy.to(t[0].scalar_type())).sum();
      },
      {x, w}, at::kDouble);
  const Outcome with_residual = run(
      [&](const Tensors& t) {
        const at::Tensor sum = t[0] + t[1];
        return (reference::rms_norm(sum, t[2], 1e-5, false) * dy.to(t[0].scalar_type())).sum() +
               (sum * dsum.to(t[0].scalar_type())).sum();
      },
      {x, residual, w}, at::kDouble);
  for (const Table* table : all_cpu_tables()) {
    at::Tensor y = at::empty_like(x), rstd = at::empty({9}), dx = at::empty_like(x), dw = at::zeros({77});
    table->f32.rms_norm(read<float>(x), nullptr, read<float>(w), nullptr, write<float>(y), write<float>(rstd),
                        9, 77, 1e-5f);
    table->f32.rms_norm_backward(read<float>(dy), read<float>(x), read<float>(w), read<float>(rstd), nullptr,
                                 write<float>(dx), write<float>(dw), 9, 77);
    expect_close(table->name, "rms_norm", (y * dy).to(at::kDouble).sum(), exact.value);
    expect_close(table->name, "dx", dx, exact.gradients[0]);
    expect_close(table->name, "dw", dw, exact.gradients[1]);

    at::Tensor sum = at::empty_like(x);
    table->f32.rms_norm(read<float>(x), read<float>(residual), read<float>(w), write<float>(sum),
                        write<float>(y), write<float>(rstd), 9, 77, 1e-5f);
    table->f32.rms_norm_backward(read<float>(dy), read<float>(sum), read<float>(w), read<float>(rstd),
                                 read<float>(dsum), write<float>(dx), write<float>(dw.zero_()), 9, 77);
    expect_close(table->name, "residual", ((y * dy) + (sum * dsum)).to(at::kDouble).sum(),
                 with_residual.value);
    expect_close(table->name, "dx and dsum", dx, with_residual.gradients[0]);
    expect_close(table->name, "dw with a residual", dw, with_residual.gradients[2]);
  }
}

TEST(CpuTable, NormalisesLayersOnEveryInstructionSet) {
  const at::Tensor x = single({9, 77}, 1), w = single({77}, 2), b = single({77}, 3), dy = single({9, 77}, 4);
  const Outcome exact = run(
      [&](const Tensors& t) {
        return (reference::layer_norm(t[0], t[1], t[2], 1e-5) * dy.to(t[0].scalar_type())).sum();
      },
      {x, w, b}, at::kDouble);
  for (const Table* table : all_cpu_tables()) {
    at::Tensor y = at::empty_like(x), mean = at::empty({9}), rstd = at::empty({9}), dx = at::empty_like(x),
               dw = at::zeros({77}), db = at::zeros({77});
    table->f32.layer_norm(read<float>(x), read<float>(w), read<float>(b), write<float>(y), write<float>(mean),
                          write<float>(rstd), 9, 77, 1e-5f);
    table->f32.layer_norm_backward(read<float>(dy), read<float>(x), read<float>(w), read<float>(mean),
                                   read<float>(rstd), write<float>(dx), write<float>(dw), write<float>(db), 9,
                                   77);
    expect_close(table->name, "layer_norm", (y * dy).to(at::kDouble).sum(), exact.value);
    expect_close(table->name, "dx", dx, exact.gradients[0]);
    expect_close(table->name, "dw", dw, exact.gradients[1]);
    expect_close(table->name, "db", db, exact.gradients[2]);
  }
}

TEST(CpuTable, GatesOnEveryInstructionSet) {
  const at::Tensor a = single({203}, 1, 3.0), u = single({203}, 2), dy = normal({203}, 99).to(at::kFloat);
  for (const Gate gate : {Gate::kSilu, Gate::kGeluTanh, Gate::kRelu2}) {
    const Outcome exact = run(
        [&](const Tensors& t) {
          return gate == Gate::kSilu       ? reference::swiglu(t[0], t[1])
                 : gate == Gate::kGeluTanh ? reference::geglu(t[0], t[1])
                                           : reference::relu2glu(t[0], t[1]);
        },
        {a, u}, at::kDouble);
    for (const Table* table : all_cpu_tables()) {
      at::Tensor y = at::empty_like(a), da = at::empty_like(a), du = at::empty_like(a);
      table->f32.gate(gate, read<float>(a), read<float>(u), write<float>(y), 203);
      table->f32.gate_backward(gate, read<float>(dy), read<float>(a), read<float>(u), write<float>(da),
                               write<float>(du), 203);
      expect_close(table->name, "gate", y, exact.value);
      expect_close(table->name, "da", da, exact.gradients[0]);
      expect_close(table->name, "du", du, exact.gradients[1]);
    }
  }
}

TEST(CpuTable, RotatesOnEveryInstructionSet) {
  const RopeTables angles = rope_tables(rope_frequencies(38, 10000.0, {}), 20);
  const at::Tensor x = single({1, 7, 3, 38}, 1), positions = random_labels(7, 20, 2);
  const at::Tensor exact = reference::rope(x.to(at::kDouble), angles, positions.view({1, 7}));
  for (const Table* table : all_cpu_tables()) {
    at::Tensor y = at::empty_like(x), back = at::empty_like(x);
    const float *cos = read<float>(angles.cos_PK), *sin = read<float>(angles.sin_PK);
    table->f32.rope(read<float>(x), cos, sin, read<int64_t>(positions), write<float>(y), 7, 3, 19, 1.0f);
    table->f32.rope(read<float>(y), cos, sin, read<int64_t>(positions), write<float>(back), 7, 3, 19, -1.0f);
    expect_close(table->name, "rope", y, exact);
    expect_close(table->name, "there and back", back, x);
  }
}

TEST(CpuTable, LosesOnEveryInstructionSet) {
  const int64_t rows = 5, v = 333;
  const at::Tensor z = single({rows, v}, 1, 4.0), teacher = single({rows, v}, 2, 4.0),
                   labels = random_labels(rows, v, 3);
  const Outcome ce =
      run([&](const Tensors& t) { return reference::cross_entropy(t[0], labels); }, {z}, at::kDouble);
  const Outcome kl = run(
      [&](const Tensors& t) {
        return reference::forward_kl(t[0], teacher.to(t[0].scalar_type()), labels, 2.0);
      },
      {z}, at::kDouble);
  for (const Table* table : all_cpu_tables()) {
    at::Tensor loss = at::empty({rows}, at::kDouble), in_place = z.clone(), added = at::zeros_like(z);
    table->f32.cross_entropy(write<float>(in_place), read<int64_t>(labels), write<double>(loss), rows, v,
                             true);
    expect_close(table->name, "cross_entropy", loss.sum(), ce.value);
    expect_close(table->name, "its gradient", in_place, ce.gradients[0]);
    table->cross_entropy_add(read<float>(z), read<int64_t>(labels), write<double>(loss), write<float>(added),
                             3.0f, rows, v);
    expect_close(table->name, "cross_entropy_add", added, ce.gradients[0] * 3.0);
    at::Tensor scratch = at::empty({2 * v}), gradient = at::zeros_like(z);
    table->forward_kl({.temperature = 2.0f, .rows = rows, .vocabulary = v, .student_stride = v},
                      read<float>(z), read<float>(teacher), write<double>(loss), write<float>(gradient),
                      write<float>(scratch));
    expect_close(table->name, "forward_kl", loss.sum(), kl.value);
    expect_close(table->name, "its gradient", gradient, kl.gradients[0]);
  }
}

// The exponential: softmax over {0, x} gives a gradient of 1 / (1 + e^-x) for every x.
TEST(CpuTable, ExponentialHoldsOverItsWholeRange) {
  for (const Table* table : all_cpu_tables())
    for (double x = -86.0; x <= 0.0; x += 0.37) {
      at::Tensor z = at::tensor({0.0f, static_cast<float>(x)}).view({1, 2}),
                 loss = at::empty({1}, at::kDouble);
      const double e = std::exp(z[0][1].item<double>());
      table->f32.cross_entropy(write<float>(z), read<int64_t>(at::zeros({1}, at::kLong)), write<double>(loss),
                               1, 2, true);
      EXPECT_NEAR(z[0][1].item<double>() / (e / (1 + e)), 1.0, 4 * 0x1p-24) << table->name << " " << x;
    }
}

TEST(CpuTable, AttendsOnEveryInstructionSet) {
  const AttentionShape shape{2, 70, 90, 4, 2, 20, 50, 0.25f, nullptr};
  const at::Tensor q = single({2, 70, 4, 20}, 1), k = single({2, 90, 2, 20}, 2),
                   v = single({2, 90, 2, 20}, 3);
  const Outcome exact = run(
      [&](const Tensors& t) {
        return reference::attention(t[0], t[1], t[2], {50, {}}, 0.25);
      },
      {q, k, v}, at::kDouble);
  const at::Tensor dy = normal(q.sizes(), 99).to(at::kFloat);
  for (const Table* table : all_cpu_tables()) {
    at::Tensor y = at::empty_like(q), lse = at::empty({2, 4, 70}), dq = at::empty_like(q),
               dk = at::empty_like(k), dv = at::empty_like(v);
    // Lanes of a block beyond its last query keep what they find there.
    at::Tensor scratch = at::full(
        {std::max(table->attention_scratch(shape, false), table->attention_scratch(shape, true))}, NAN);
    for (int64_t i = 0; i < 2 * 4; ++i)
      table->f32.attention(shape, read<float>(q), read<float>(k), read<float>(v), write<float>(y),
                           write<float>(lse), i / 4, i % 4, write<float>(scratch));
    for (int64_t i = 0; i < 2 * 2; ++i)
      table->f32.attention_backward(shape, read<float>(dy), read<float>(q), read<float>(k), read<float>(v),
                                    read<float>(y), read<float>(lse), write<float>(dq), write<float>(dk),
                                    write<float>(dv), i / 2, i % 2, write<float>(scratch));
    expect_close(table->name, "attention", y, exact.value);
    expect_close(table->name, "dq", dq, exact.gradients[0]);
    expect_close(table->name, "dk", dk, exact.gradients[1]);
    expect_close(table->name, "dv", dv, exact.gradients[2]);
  }
}

template <class T>
constexpr at::ScalarType kDtype = std::is_same_v<T, float> ? at::kFloat : at::kBFloat16;

// Everything that a table's loops of T make of inputs that bf16 holds exactly.
template <class T>
Tensors made_by(const Table& table) {
  const ElementLoops<T>& loops = table.of<T>();
  const auto in = [](at::IntArrayRef shape, uint64_t seed) {
    return normal(shape, seed).to(at::kBFloat16).to(kDtype<T>);
  };
  const auto like = [](const at::Tensor& x) { return at::empty_like(x); };
  Tensors out;
  const auto add = [&](std::initializer_list<at::Tensor> tensors) { out.insert(out.end(), tensors); };

  const at::Tensor x = in({9, 77}, 1), dy = in({9, 77}, 2), w = single({77}, 3), b = single({77}, 4);
  at::Tensor y = like(x), mean = at::empty({9}), rstd = at::empty({9}), dx = like(x), dw = at::zeros({77}),
             db = at::zeros({77});
  loops.rms_norm(read<T>(x), nullptr, read<float>(w), nullptr, write<T>(y), write<float>(rstd), 9, 77, 1e-5f);
  loops.rms_norm_backward(read<T>(dy), read<T>(x), read<float>(w), read<float>(rstd), nullptr, write<T>(dx),
                          write<float>(dw), 9, 77);
  add({y.clone(), rstd.clone(), dx.clone(), dw.clone()});
  dw.zero_();
  loops.layer_norm(read<T>(x), read<float>(w), read<float>(b), write<T>(y), write<float>(mean),
                   write<float>(rstd), 9, 77, 1e-5f);
  loops.layer_norm_backward(read<T>(dy), read<T>(x), read<float>(w), read<float>(mean), read<float>(rstd),
                            write<T>(dx), write<float>(dw), write<float>(db), 9, 77);
  add({y, mean, rstd, dx, dw, db});

  const at::Tensor a = in({203}, 5), u = in({203}, 6), dg = in({203}, 7);
  for (const Gate gate : {Gate::kSilu, Gate::kGeluTanh, Gate::kRelu2}) {
    at::Tensor g = like(a), alone = like(a), da = like(a), du = like(a);
    loops.gate(gate, read<T>(a), read<T>(u), write<T>(g), 203);
    loops.gate(gate, read<T>(a), nullptr, write<T>(alone), 203);
    loops.gate_backward(gate, read<T>(dg), read<T>(a), read<T>(u), write<T>(da), write<T>(du), 203);
    add({g, alone, da, du});
  }

  const RopeTables angles = rope_tables(rope_frequencies(38, 10000.0, {}), 20);
  const at::Tensor turned = in({7, 3, 38}, 8), positions = random_labels(7, 20, 2);
  at::Tensor rotated = like(turned);
  loops.rope(read<T>(turned), read<float>(angles.cos_PK), read<float>(angles.sin_PK),
             read<int64_t>(positions), write<T>(rotated), 7, 3, 19, 1.0f);
  at::Tensor z = in({5, 333}, 9), loss = at::empty({5}, at::kDouble);
  loops.cross_entropy(write<T>(z), read<int64_t>(random_labels(5, 333, 3)), write<double>(loss), 5, 333,
                      true);
  add({rotated, z, loss});

  const AttentionShape shape{2, 70, 90, 4, 2, 20, 50, 0.25f, nullptr};
  const at::Tensor q = in({2, 70, 4, 20}, 10), k = in({2, 90, 2, 20}, 11), v = in({2, 90, 2, 20}, 12),
                   dh = in({2, 70, 4, 20}, 13);
  at::Tensor h = like(q), lse = at::empty({2, 4, 70}), dq = like(q), dk = like(k), dv = like(v);
  at::Tensor scratch =
      at::full({std::max(table.attention_scratch(shape, false), table.attention_scratch(shape, true))}, NAN);
  for (int64_t i = 0; i < 2 * 4; ++i)
    loops.attention(shape, read<T>(q), read<T>(k), read<T>(v), write<T>(h), write<float>(lse), i / 4, i % 4,
                    write<float>(scratch));
  const at::Tensor kept = h.to(at::kBFloat16).to(h.scalar_type());  // backward reads the rounded one
  for (int64_t i = 0; i < 2 * 2; ++i)
    loops.attention_backward(shape, read<T>(dh), read<T>(q), read<T>(k), read<T>(v), read<T>(kept),
                             read<float>(lse), write<T>(dq), write<T>(dk), write<T>(dv), i / 2, i % 2,
                             write<float>(scratch));
  const at::Tensor rows = single({5, 100}, 14), weights = in({33, 100}, 15);
  at::Tensor thin = at::empty({5, 33});
  loops.thin_product(read<float>(rows), read<T>(weights), write<float>(thin), 5, 100, 33, 33);
  add({h, lse, dq, dk, dv, thin});
  return out;
}

// bf16 elements are widened, and what is written is rounded once: half a unit, and what sums in another order differ.
TEST(CpuTable, RoundsOnceOnEveryInstructionSet) {
  for (const Table* table : all_cpu_tables()) {
    const Tensors wide = made_by<float>(*table), rounded = made_by<Bf16>(*table);
    ASSERT_EQ(rounded.size(), wide.size());
    for (size_t i = 0; i < wide.size(); ++i) {
      const at::Tensor exact = wide[i].to(at::kDouble), error = (rounded[i].to(at::kDouble) - exact).abs();
      const double half_unit = rounded[i].scalar_type() == at::kBFloat16 ? 0x1p-8 : 0.0;
      const at::Tensor bound = exact.abs() * half_unit + exact.abs().max() * kTolerance;
      EXPECT_TRUE((error <= bound).all().item<bool>()) << table->name << " result " << i;
    }
  }
}

}  // namespace
}  // namespace retort::kernels::cpu
