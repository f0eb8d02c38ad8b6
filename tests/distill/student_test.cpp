#include "distill/student.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/random.h"
#include "models/family.h"
#include "models/weight_map.h"
#include "tests/testing.h"
#include "train/step.h"

namespace retort::distill {
namespace {

using models::Decoder;
using models::DecoderSpec;
using models::Parameter;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::relative_error;
using testing::same_bits;

DecoderSpec teacher_spec() {
  return {.vocabulary = 32,
          .context = 32,
          .layers = 3,
          .width = 16,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 4,
          .ffn_width = 24,
          .tie_embeddings = false};
}

std::unique_ptr<Decoder> random_model(const DecoderSpec& spec, uint64_t seed = 1) {
  auto model = std::make_unique<Decoder>(spec);
  models::initialise(model->parameters(), "normal", 0.2, seed);
  const at::NoGradGuard no_grad;
  for (Parameter& p : model->parameters().unique()) {
    if (p.master.dim() != 1) continue;
    at::Tensor noise = at::empty_like(p.master);
    Random(seed, "test/" + p.name).fill_normal(noise, 0.2);
    p.master.add_(noise);
  }
  return model;
}

at::Tensor tokens(int64_t rows, uint64_t sample = 0) {
  at::Tensor out = at::empty({rows, 12}, at::kLong);
  const Random random(2, "test/tokens", sample);
  for (int64_t i = 0; i < out.numel(); ++i)
    out.mutable_data_ptr<int64_t>()[i] = static_cast<int64_t>(random.below(static_cast<uint64_t>(i), 32));
  return out;
}

std::vector<models::TokenBlock> samples() { return {{tokens(4, 1), {}, {}}, {tokens(4, 2), {}, {}}}; }

at::Tensor logits(Decoder& model) {
  const at::NoGradGuard no_grad;
  return model.hidden({tokens(3), {}, {}}).matmul(model.head().weight_VD.t());
}

std::unique_ptr<Decoder> started(const DecoderSpec& spec, Decoder& teacher, const InitOptions& options) {
  auto student = std::make_unique<Decoder>(spec);
  start_student(*student, teacher, options,
                options.width == "first"
                    ? importance_by_order(teacher.spec())
                    : measure_importance(teacher, samples(), options.width == "principal"));
  return student;
}

}  // namespace

TEST(Student, OfTheTeachersShapeIsTheTeacher) {
  DecoderSpec shared = teacher_spec();
  shared.share_ffn = shared.tie_embeddings = true;
  DecoderSpec gpt2 = models::families().at("gpt2").defaults;
  gpt2.vocabulary = gpt2.context = 32;
  gpt2.layers = 3;
  gpt2.width = 16;
  gpt2.heads = gpt2.kv_heads = 4;
  gpt2.head_dim = 4;
  gpt2.ffn_width = 64;
  for (const DecoderSpec& spec : {teacher_spec(), shared, gpt2}) {
    const auto teacher = random_model(spec);
    for (const InitOptions& options : {InitOptions{}, InitOptions{.layers = {"first"}, .width = "first"},
                                       InitOptions{.layers = {"0", "1", "2"}}}) {
      const auto student = started(spec, *teacher, options);
      EXPECT_TRUE(same_bits(logits(*student), logits(*teacher))) << spec.family;
      for (const Parameter& p : teacher->parameters().unique())
        EXPECT_TRUE(same_bits(student->parameters().at(p.name).master, p.master)) << p.name;
    }
  }
}

// Every tensor of every architecture has a rule for how it is cut.
TEST(Student, CutsEveryFamily) {
  for (const models::Family& family : models::families()) {
    if (family.make) continue;  // no plain decoder
    DecoderSpec spec = family.defaults, narrow = spec;
    narrow.layers = spec.layers / 2;
    narrow.ffn_width = spec.ffn_width / 2;
    narrow.width = spec.width / 2;
    narrow.heads = spec.heads / 2;  // in some the heads make up the width
    narrow.kv_heads = spec.kv_heads / 2;
    const auto teacher = random_model(spec);
    Decoder same(spec), less(narrow);
    start_student(same, *teacher, {}, importance_by_order(spec));
    EXPECT_NO_THROW(start_student(less, *teacher, {}, importance_by_order(spec))) << family.name;
    for (const Parameter& p : teacher->parameters().unique())
      EXPECT_TRUE(same_bits(same.parameters().at(p.name).master, p.master)) << family.name << " " << p.name;
  }
}

// Neurons and key/value groups that do nothing go, the rest stays in order: the logits do not change.
TEST(Student, KeepsTheNeuronsAndGroupsThatMatter) {
  const auto teacher = random_model(teacher_spec());
  models::Parameters& p = teacher->parameters();
  for (int64_t n = 0; n < 3; ++n) {
    const at::NoGradGuard no_grad;
    for (int64_t f = 0; f < 24; ++f)
      if ((f + n) % 3 != 0) p.at(fmt::format("layers.{}.ffn.up.weight", n)).master[f].zero_();
    p.at(fmt::format("layers.{}.attn.v.weight", n)).master.narrow(0, n == 1 ? 0 : 4, 4).zero_();
  }
  DecoderSpec spec = teacher_spec();
  spec.ffn_width = 8;
  spec.heads = 2;
  spec.kv_heads = 1;
  const auto student = started(spec, *teacher, {});
  for (int64_t n = 0; n < 3; ++n) {
    const std::string up = fmt::format("layers.{}.ffn.up.weight", n),
                      q = fmt::format("layers.{}.attn.q.weight", n);
    const at::Tensor kept = at::arange((3 - n) % 3, 24, 3);
    EXPECT_TRUE(same_bits(student->parameters().at(up).master, p.at(up).master.index_select(0, kept))) << n;
    EXPECT_TRUE(same_bits(student->parameters().at(q).master, p.at(q).master.narrow(0, n == 1 ? 8 : 0, 8)))
        << n;
  }
  EXPECT_LT(relative_error(logits(*student), logits(*teacher)), 1e-5);
  EXPECT_GT(relative_error(logits(*started(spec, *teacher, {.width = "first"})), logits(*teacher)), 1e-2);
}

// The norms before the last products go with the heads and neurons that stay.
TEST(Student, CutsSubNormsWithWhatTheyMultiply) {
  DecoderSpec spec = teacher_spec();
  spec.family = "bitnet";
  spec.ffn = models::FfnKind::kRelu2glu;
  spec.sub_norms = true;
  const auto teacher = random_model(spec);
  Importance importance = importance_by_order(spec);
  importance.heads_H[1] = at::tensor({1.0, 2.0, 4.0, 3.0}, at::kDouble);
  importance.neurons_F[1] = at::arange(24, at::kDouble);
  DecoderSpec narrow = spec;
  narrow.heads = narrow.kv_heads = 2;
  narrow.width = 8;
  narrow.ffn_width = 16;
  Decoder student(narrow);
  start_student(student, *teacher, {}, importance);
  const auto ours = [&](const char* name) { return student.parameters().at(name).master; };
  const auto theirs = [&](const char* name) { return teacher->parameters().at(name).master; };
  EXPECT_TRUE(same_bits(ours("layers.1.ffn.sub_norm.weight"),
                        theirs("layers.1.ffn.sub_norm.weight").narrow(0, 8, 16)));
  EXPECT_TRUE(same_bits(ours("layers.0.ffn.sub_norm.weight"),
                        theirs("layers.0.ffn.sub_norm.weight").narrow(0, 0, 16)));
  EXPECT_TRUE(same_bits(ours("layers.1.attn.sub_norm.weight"),  // heads 1 and 2: the better of each group
                        theirs("layers.1.attn.sub_norm.weight").narrow(0, 4, 8)));
}

TEST(Student, KeepsTheChannelsThatMatter) {
  const auto teacher = random_model(teacher_spec());
  const at::Tensor planted = at::tensor({1, 2, 5, 7, 8, 11, 12, 15}, at::kLong);
  for (Parameter& p : teacher->parameters().unique()) {
    const at::NoGradGuard no_grad;
    if (p.role != models::Role::kNorm) continue;
    p.master.mul_(0.01);
    p.master.index_copy_(0, planted, at::full({8}, 1.0f));
  }
  DecoderSpec spec = teacher_spec();
  spec.width = 8;
  const auto student = started(spec, *teacher, {});
  const auto expect_cut = [&](const char* name, const at::Tensor& cut) {
    EXPECT_TRUE(same_bits(student->parameters().at(name).master, cut)) << name;
  };
  const auto theirs = [&](const char* name) { return teacher->parameters().at(name).master; };
  expect_cut("embed.weight", theirs("embed.weight").index_select(1, planted));
  expect_cut("lm_head.weight", theirs("lm_head.weight").index_select(1, planted));
  expect_cut("final_norm.weight", at::ones({8}));
  expect_cut("layers.1.attn.q.weight", theirs("layers.1.attn.q.weight").index_select(1, planted));
  expect_cut("layers.2.attn.o.weight", theirs("layers.2.attn.o.weight").index_select(0, planted));
  expect_cut("layers.0.ffn.down.weight", theirs("layers.0.ffn.down.weight").index_select(0, planted));
}

// Groups by the sum of their heads, then heads within a group.
TEST(Student, HeadsGoWithTheirGroup) {
  const auto teacher = random_model(teacher_spec());
  Importance importance = importance_by_order(teacher->spec());
  importance.heads_H[0] = at::tensor({9.0, 0.0, 4.0, 6.0}, at::kDouble);  // groups {0, 1} and {2, 3}
  DecoderSpec spec = teacher_spec();
  spec.heads = spec.kv_heads = 1;
  Decoder student(spec);
  start_student(student, *teacher, {}, importance);
  const auto rows = [&](const char* name) { return student.parameters().at(name).master; };
  const auto theirs = [&](const char* name) { return teacher->parameters().at(name).master; };
  EXPECT_TRUE(same_bits(rows("layers.0.attn.q.weight"), theirs("layers.0.attn.q.weight").narrow(0, 12, 4)));
  EXPECT_TRUE(same_bits(rows("layers.0.attn.k.weight"), theirs("layers.0.attn.k.weight").narrow(0, 4, 4)));
  EXPECT_TRUE(same_bits(rows("layers.0.attn.o.weight"),
                        theirs("layers.0.attn.o.weight").narrow(1, 12, 4).contiguous()));
}

TEST(Student, ImportanceIsTheNormOverSamplesOfTheMeanOverTokens) {
  const auto teacher = random_model(teacher_spec());
  at::Tensor square_F = at::zeros({24}, at::kDouble), square_H = at::zeros({4}, at::kDouble);
  Parameter& down = teacher->parameters().at("layers.1.ffn.down.weight");
  Parameter& o = teacher->parameters().at("layers.1.attn.o.weight");
  down.observer = [&](const at::Tensor& x) { square_F += x.to(at::kDouble).abs().mean(1).pow(2).sum(0); };
  o.observer = [&](const at::Tensor& x) {
    const at::Tensor length = x.to(at::kDouble).view({x.size(0), x.size(1), 4, 4}).pow(2).sum(-1).sqrt();
    square_H += length.mean(1).pow(2).sum(0);
  };
  {
    const at::NoGradGuard no_grad;
    for (const models::TokenBlock& block : samples()) teacher->hidden(block);
  }
  const Importance importance = measure_importance(*teacher, samples());
  EXPECT_LT(relative_error(importance.neurons_F[1], square_F.sqrt()), 1e-12);
  EXPECT_LT(relative_error(importance.heads_H[1], square_H.sqrt()), 1e-12);
  for (const Parameter& p : teacher->parameters().unique()) EXPECT_FALSE(p.observer) << p.name;
}

// Each use of a shared network is read after its own norm: the moments are those of a model in which every
// layer has a copy.
TEST(Student, MomentsOfASharedNetworkAreThoseOfItsCopies) {
  DecoderSpec spec = teacher_spec();
  spec.share_ffn = true;
  const auto shared = random_model(spec);
  Decoder copies(teacher_spec());
  const at::NoGradGuard no_grad;
  for (Parameter& p : copies.parameters().unique()) p.master.copy_(shared->parameters().at(p.name).master);
  const at::Tensor moments_DD = measure_importance(copies, samples(), true).moments_DD;
  EXPECT_LT(relative_error(measure_importance(*shared, samples(), true).moments_DD, moments_DD), 1e-12);
}

TEST(Student, LayersByRule) {
  EXPECT_THAT(layer_map(4, 12, {}), ElementsAre(2, 5, 8, 11));
  EXPECT_THAT(layer_map(3, 4, {}), ElementsAre(0, 2, 3));
  EXPECT_THAT(layer_map(3, 12, {.layers = {"first"}}), ElementsAre(0, 1, 2));
  EXPECT_THAT(layer_map(3, 12, {.layers = {"0", "11", "11"}}), ElementsAre(0, 11, 11));
  const auto teacher = random_model(teacher_spec());
  DecoderSpec spec = teacher_spec();
  spec.layers = 2;
  const auto student = started(spec, *teacher, {.layers = {"2", "0"}});
  EXPECT_TRUE(same_bits(student->parameters().at("layers.0.attn.k.weight").master,
                        teacher->parameters().at("layers.2.attn.k.weight").master));
}

// A shared network with adapters of full rank is every layer's own again.
TEST(Student, AdaptersTakeWhatSharingLoses) {
  const auto teacher = random_model(teacher_spec());
  DecoderSpec spec = teacher_spec();
  spec.share_ffn = true;
  const auto error = [&](int64_t rank) {
    spec.lora_rank = rank;
    return relative_error(logits(*started(spec, *teacher, {})), logits(*teacher));
  };
  const double none = error(0), some = error(8), full = error(16);
  EXPECT_LT(full, 1e-4);
  EXPECT_LT(some, 0.8 * none);
  EXPECT_GT(none, 1e-2);
}

// A rotation of the residual stream changes no logit; cut to half, the stream loses least.
TEST(Student, PrincipalComponentsKeepWhatTheTeacherComputes) {
  DecoderSpec biased = teacher_spec();
  biased.attention_bias = biased.ffn_bias = true;
  for (const DecoderSpec& spec : {teacher_spec(), biased}) {
    const auto teacher = random_model(spec);
    const auto student = started(spec, *teacher, {.width = "principal"});
    EXPECT_LT(relative_error(logits(*student), logits(*teacher)), 1e-5);
    EXPECT_GT(relative_error(student->parameters().at("embed.weight").master,
                             teacher->parameters().at("embed.weight").master),
              0.1);
  }
  DecoderSpec half = teacher_spec();
  half.width = 8;
  const auto teacher = random_model(teacher_spec());
  const at::Tensor truth = logits(*teacher);
  const auto error = [&](const char* width) {
    return (logits(*started(half, *teacher, {.width = width})) - truth).square().sum().item<double>();
  };
  EXPECT_LT(error("principal"), error("importance"));
  DecoderSpec layer_norm = models::families().at("gpt2").defaults;
  EXPECT_THROW(check_start(layer_norm, layer_norm, {.width = "principal"}), ConfigError);
}

TEST(Student, NamesWhatDoesNotFit) {
  struct Mistake {
    const char* text;
    std::function<void(DecoderSpec&, InitOptions&)> make;
  };
  const Mistake mistakes[] = {
      {"model.width must be at most the teacher's 16, got 20", [](auto& s, auto&) { s.width = 20; }},
      {"model.ffn_width must be at most the teacher's 24, got 32", [](auto& s, auto&) { s.ffn_width = 32; }},
      {"model.layers must be at most the teacher's 3, got 4", [](auto& s, auto&) { s.layers = 4; }},
      {"model.kv_heads must be at most the teacher's 2, got 4", [](auto& s, auto&) { s.kv_heads = 4; }},
      {"model.heads must be at most 2 for each key/value head, as in the teacher, got 3 for 1",
       [](auto& s, auto&) {
         s.heads = 3;
         s.kv_heads = 1;
       }},
      {"model.head_dim must be 4 as in", [](auto& s, auto&) { s.head_dim = 8; }},
      {"model.vocabulary must be 32 as in", [](auto& s, auto&) { s.vocabulary = 64; }},
      {"model.norm_eps must be 1e-05 as in", [](auto& s, auto&) { s.norm_eps = 1e-6; }},
      {"model.attention_bias must be false as in", [](auto& s, auto&) { s.attention_bias = true; }},
      {"model.init.layers must be first, uniform or a list of 3 of the teacher's layers, got 0, 1",
       [](auto&, auto& o) {
         o.layers = {"0", "1"};
       }},
      {"model.init.layers must name layers 0 to 2 of the teacher, got 3",
       [](auto&, auto& o) {
         o.layers = {"0", "1", "3"};
       }},
      {"got last", [](auto&, auto& o) { o.layers = {"last"}; }},
  };
  EXPECT_NO_THROW(check_start(teacher_spec(), teacher_spec(), {}));
  for (const Mistake& m : mistakes) {
    DecoderSpec spec = teacher_spec();
    InitOptions options;
    m.make(spec, options);
    try {
      check_start(spec, teacher_spec(), options);
      ADD_FAILURE() << "accepted: " << m.text;
    } catch (const ConfigError& e) {
      EXPECT_THAT(e.what(), HasSubstr(m.text));
    }
  }
}

namespace {

// Text that can be learned: the next token is 3 t + 1 of this one, and every fourth is drawn.
data::Batch text_batch(uint64_t number) {
  at::Tensor ids = at::empty({8, 33}, at::kLong);
  const Random random(3, "test/text", number);
  int64_t last = 0;
  for (int64_t i = 0; i < ids.numel(); ++i) {
    const auto draw = static_cast<uint64_t>(i);
    last = i % 4 == 0 ? static_cast<int64_t>(random.below(draw, 32)) : (3 * last + 1) % 32;
    ids.mutable_data_ptr<int64_t>()[i] = last;
  }
  data::Batch batch;
  batch.tokens_BT = ids.slice(1, 0, 32).contiguous();
  batch.labels_BT = ids.slice(1, 1).contiguous();
  return batch;
}

double loss_of(Decoder& model) {
  const at::NoGradGuard no_grad;
  const data::Batch batch = text_batch(1000);
  return (*train::make_cross_entropy())(model, batch).sum.item<double>() /
         static_cast<double>(batch.valid_labels());
}

}  // namespace

// Measured: random 3.46 (log 32 is 3.47), cut by importance 1.93, by order 2.00, to principal components 2.01,
// the teacher 1.40.
TEST(Student, StartsBelowRandomWeightsAndLowestByImportance) {
  DecoderSpec spec = teacher_spec();
  spec.width = 32;
  spec.heads = 8;
  spec.kv_heads = 4;
  spec.ffn_width = 64;
  auto teacher = std::make_unique<Decoder>(spec);
  models::initialise(teacher->parameters(), "gpt2", 0.08, 5);
  models::IdentityMap identity;
  models::bind_working(teacher->parameters(), identity, at::kFloat);
  const auto objective = train::make_cross_entropy();
  const auto optimizer = train::make_optimizer({.lr = 1e-2}, teacher->parameters());
  const auto comm = comm::make_self_comm();
  train::TrainStep step({*teacher, identity, *objective, *optimizer, *comm}, 1, 1.0);
  for (int64_t i = 0; i < 120; ++i) step.run(i, {text_batch(static_cast<uint64_t>(i))}, 1e-2);

  DecoderSpec small = spec;
  small.layers = 2;
  small.width = 24;
  small.heads = 6;
  small.kv_heads = 3;
  small.ffn_width = 48;
  Decoder random(small), student(small), first(small), principal(small);
  models::initialise(random.parameters(), "gpt2", 0.02, 5);
  std::vector<models::TokenBlock> text = {{text_batch(500).tokens_BT, {}, {}}};
  start_student(student, *teacher, {}, measure_importance(*teacher, text));
  start_student(principal, *teacher, {.width = "principal"}, measure_importance(*teacher, text, true));
  start_student(first, *teacher, {.width = "first"}, importance_by_order(teacher->spec()));
  const double taught = loss_of(*teacher), cut = loss_of(student), by_order = loss_of(first),
               projected = loss_of(principal), blind = loss_of(random);
  fmt::print(
      "loss: teacher {:.3f}, student cut by importance {:.3f}, by order {:.3f}, to principal components "
      "{:.3f}, random {:.3f}\n",
      taught, cut, by_order, projected, blind);
  EXPECT_LT(taught, 0.5 * blind) << "the teacher has learned";
  EXPECT_LT(cut, 0.9 * blind);
  EXPECT_LT(cut, by_order);
  EXPECT_LT(projected, 0.9 * blind);
}

}  // namespace retort::distill
