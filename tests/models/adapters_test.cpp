#include "models/adapters.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/random.h"
#include "models/family.h"
#include "models/gguf_model.h"
#include "models/hf_folder.h"
#include "models/linear.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::relative_error;
using testing::same_bits;

// Interior sharing of the feed-forward network and the attention output, tied head.
DecoderSpec shared_spec(int64_t lora_rank) {
  DecoderSpec spec = testing::tiny_llama();
  spec.layers = 5;
  spec.share_ffn = spec.share_output = spec.tie_embeddings = true;
  spec.keep_first = spec.keep_last = 1;
  spec.lora_rank = lora_rank;
  return spec;
}

std::unique_ptr<Decoder> adapted_model() {
  auto model = testing::random_model(shared_spec(3));
  const at::NoGradGuard no_grad;
  for (Parameter& p : model->parameters().unique())
    if (p.role == Role::kLoraB) Random(4, p.name).fill_normal(p.master, 0.1);
  return model;
}

at::Tensor logits_of(Model& model) {
  const at::NoGradGuard no_grad;
  return testing::logits(model, {testing::random_tokens(2, 9, 96), {}, {}});
}

TEST(Adapters, EachUseInTheRangeHasItsOwn) {
  const Decoder model(shared_spec(3), at::kMeta);
  const Parameters& p = model.parameters();
  EXPECT_EQ(&p.at("layers.3.ffn.up.weight"), &p.at("layers.1.ffn.up.weight"));
  EXPECT_NE(&p.at("layers.0.ffn.up.weight"), &p.at("layers.1.ffn.up.weight"));
  EXPECT_NE(&p.at("layers.4.attn.o.weight"), &p.at("layers.1.attn.o.weight"));
  EXPECT_EQ(&p.at("layers.2.attn.o.weight"), &p.at("layers.1.attn.o.weight"));
  EXPECT_NE(&p.at("layers.3.ffn.up.lora_a.weight"), &p.at("layers.1.ffn.up.lora_a.weight"));
  EXPECT_FALSE(p.contains("layers.0.ffn.up.lora_a.weight"));
  EXPECT_FALSE(p.contains("layers.2.attn.o.lora_a.weight"));
  // Three uses of three matrices, rank (in + out) each.
  EXPECT_EQ(p.stored() - Decoder(shared_spec(0), at::kMeta).parameters().stored(), 3 * 3 * 3 * (32 + 48));
  EXPECT_EQ(p.expanded(), Decoder(shared_spec(0), at::kMeta).parameters().expanded());
}

TEST(Adapters, AddNothingUntilTheyAreTrained) {
  auto adapted = std::make_unique<Decoder>(shared_spec(3)), plain = std::make_unique<Decoder>(shared_spec(0));
  for (Decoder* model : {adapted.get(), plain.get()}) initialise(model->parameters(), "gpt2", 0.08, 1);
  EXPECT_TRUE(same_bits(logits_of(*adapted), logits_of(*plain)));
  EXPECT_GT(adapted->parameters().at("layers.2.ffn.up.lora_a.weight").master.abs().sum().item<float>(), 0.0f);
}

TEST(Adapters, MergedModelComputesTheSame) {
  const auto model = adapted_model();
  IdentityMap identity;
  const auto merged = merge_adapters(*model, identity);
  EXPECT_EQ(merged->parameters().stored(), model->parameters().expanded());
  EXPECT_EQ(merged->parameters().unique().size() + 1,  // the tied head
            Decoder(testing::tiny_llama(), at::kMeta).parameters().unique().size() + 3 * 9);
  EXPECT_LT(relative_error(logits_of(*merged), logits_of(*model)), 1e-5);
  EXPECT_GT(relative_error(logits_of(*merged), logits_of(*testing::random_model(shared_spec(0)))), 1e-2);
}

TEST(Adapters, MergeTakesTheMapsValues) {
  struct Rounding final : WeightMap {
    at::Tensor apply(const Parameter&, const at::Tensor& x) override { return (x * 8).round() / 8; }
    at::Tensor pull_back(const Parameter&, const at::Tensor& gradient) override { return gradient; }
  } map;
  const auto model = adapted_model();
  const auto merged = merge_adapters(*model, map);
  bind_working(model->parameters(), map, at::kFloat);
  EXPECT_LT(relative_error(logits_of(*merged), logits_of(*model)), 1e-5);
}

// Files of other software hold the merged layers, and only them.
TEST(Adapters, LeaveMerged) {
  const testing::TemporaryDirectory directory;
  const auto model = adapted_model();
  IdentityMap identity;
  const auto pack = [](const Parameter& p) { return formats::pack(formats::GgmlType::F32, p.master); };
  EXPECT_THROW(save_hf_folder(local_files(), directory / "hf", *model, identity, at::kFloat, {}),
               InternalError);
  EXPECT_THROW(save_gguf(local_files(), directory / "m.gguf", *model, pack, {}, "m"), InternalError);

  const auto merged = merge_adapters(*model, identity);
  save_hf_folder(local_files(), directory / "hf", *merged, identity, at::kFloat, {});
  save_gguf(local_files(), directory / "m.gguf", *merged, pack, {}, "m");
  EXPECT_TRUE(same_bits(logits_of(*load_hf_folder(directory / "hf")), logits_of(*merged)));
  EXPECT_TRUE(same_bits(logits_of(*load_gguf(directory / "m.gguf")), logits_of(*merged)));
}

// ---- Adapters that fine-tune a base

AdapterOptions on(std::vector<std::string> modules, int64_t rank = 3) {
  AdapterOptions options;
  options.modules = std::move(modules);
  options.rank = rank;
  return options;
}

std::vector<std::string> chosen(const DecoderSpec& spec, const AdapterOptions& options) {
  std::vector<std::string> out;
  const Decoder model(spec, at::kMeta);
  for (const AdaptedModule& module : adapted_modules(model, options))
    out.push_back(fmt::format("{} {}", module.name, module.shape.rank));
  return out;
}

TEST(Adapters, ModulesAreChosenByTheNamesOfAFolder) {
  const DecoderSpec llama = testing::tiny_llama(), gpt2 = testing::tiny_gpt2();
  EXPECT_THAT(chosen(llama, on({"v_proj", "layers.1.mlp.up_proj"})),
              ElementsAre("model.layers.0.self_attn.v_proj 3", "model.layers.1.self_attn.v_proj 3",
                          "model.layers.1.mlp.up_proj 3"));
  EXPECT_EQ(chosen(llama, on({"all-linear"})).size(), 2u * 7);  // no tables
  AdapterOptions options = on({"c_proj"});  // of attention and of the feed-forward network
  options.layers = {1};
  EXPECT_THAT(chosen(gpt2, options),
              ElementsAre("transformer.h.1.attn.c_proj 3", "transformer.h.1.mlp.c_proj 3"));
  options.exclude = {"mlp.c_proj"};
  EXPECT_THAT(chosen(gpt2, options), ElementsAre("transformer.h.1.attn.c_proj 3"));
  options = {};
  options.pattern = ".*\\.(k|v)_proj";
  options.overrides = {{"v_proj", 5, 0.0}, {"layers\\.1\\..*", 6, 0.0}};
  EXPECT_THAT(chosen(llama, options),
              ElementsAre("model.layers.0.self_attn.k_proj 8", "model.layers.0.self_attn.v_proj 5",
                          "model.layers.1.self_attn.k_proj 6", "model.layers.1.self_attn.v_proj 5"));
}

TEST(Adapters, AModelOfOurOwnHasItsOwnNames) {
  DecoderSpec spec = families().at("spacebyte").defaults;
  spec.layers = 2;
  const auto model = make_model(spec, at::kMeta);
  const auto modules = adapted_modules(*model, on({"core.layers.1.attn.q"}));
  ASSERT_EQ(modules.size(), 1u);
  EXPECT_EQ(modules[0].uses, std::vector<std::string>{"core.layers.1.attn.q.weight"});
}

TEST(Adapters, SayWhichEntryNamesNothing) {
  const auto error = [](const AdapterOptions& options, const DecoderSpec& spec = testing::tiny_llama()) {
    try {
      adapt(testing::random_model(spec), options, 1);
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("none");
  };
  EXPECT_EQ(error(on({"q_prj"})),
            "adapters.modules \"q_prj\" names no part of the model; did you mean \"q_proj\"?");
  AdapterOptions options = on({"q_proj"});
  options.whole = {"nrm"};
  EXPECT_EQ(error(options), "adapters.whole \"nrm\" names no part of the model; did you mean \"norm\"?");
  options = on({"q_proj"});
  options.layers = {7};
  EXPECT_EQ(
      error(options),
      "adapters.modules must choose a weight of the model that adapters.layers, exclude and whole leave to "
      "adapters, and chooses none");
  options = on({"wte"});
  options.dora = options.tied = true;
  EXPECT_EQ(error(options, testing::tiny_gpt2()),
            "adapters.dora has lengths for one side of a tie, and adapters.tied makes one adapter of both");
}

// A file of others may say more than its model has; who trains means what is written.
TEST(Adapters, ChoicesThatMeetNoWeightAreTold) {
  const Decoder model(testing::tiny_llama(), at::kMeta);
  const auto error = [&](const AdapterOptions& options) {
    try {
      check_choices(model, options);
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("none");
  };
  AdapterOptions options = on({"q_proj", "v_proj"});
  options.exclude = {"layers.0.self_attn.q_proj"};
  options.overrides = {{"v_proj", 5, 0.0}, {"layers\\.1\\..*", 6, 0.0}};
  EXPECT_EQ(error(options), "none");
  options.exclude = {"k_proj"};
  EXPECT_EQ(chosen(testing::tiny_llama(), options).size(), 4u) << "it is a part of the model";
  EXPECT_THAT(error(options),
              HasSubstr("adapters.exclude \"k_proj\" names none of the weights that modules choose"));
  options.exclude = {"all-linear"};
  EXPECT_THAT(error(options), HasSubstr("adapters.exclude \"all-linear\" names none of the weights"));
  options.exclude.clear();
  options.overrides.push_back({"v_prj", 2, 0.0});
  EXPECT_EQ(error(options),
            "adapters.overrides \"v_prj\" matches none of the weights that modules choose; did you mean "
            "\"v_proj\"?");
}

TEST(Adapters, LeaveTheBaseFrozenAndUnchanged) {
  for (const bool dora : {false, true})
    for (const DecoderSpec& spec : testing::tiny_families()) {
      auto base = testing::random_model(spec);
      const at::Tensor before = logits_of(*base);
      AdapterOptions options = on({"all-linear"});
      options.dora = dora;
      const auto model = adapt(std::move(base), options, 5);
      const at::Tensor after = logits_of(*model);  // a bias is added apart from the product with DoRA
      EXPECT_TRUE(dora ? relative_error(after, before) < 1e-6 : same_bits(after, before)) << spec.family;
      for (const Parameter& p : model->parameters().unique()) {
        EXPECT_EQ(p.borrowed, !is_adapter(p.role)) << p.name;
        EXPECT_EQ(p.working.requires_grad(), is_adapter(p.role)) << p.name;
      }
    }
}

TEST(Adapters, BeginAsPeftDoesWhateverTheOrder) {
  const auto all = adapt(testing::random_model(testing::tiny_llama()), on({"all-linear", "embed_tokens"}), 5);
  const auto one = adapt(testing::random_model(testing::tiny_llama()), on({"down_proj"}), 5);
  const std::string down = "layers.1.ffn.down.lora_a.weight";
  const at::Tensor& a = all->parameters().at(down).master;
  EXPECT_TRUE(same_bits(a, one->parameters().at(down).master));
  const double bound = 1.0 / std::sqrt(48.0);  // U(-bound, bound) has the deviation bound / sqrt(3)
  EXPECT_LE(a.abs().max().item<double>(), bound);
  EXPECT_NEAR(a.std().item<double>(), bound / std::sqrt(3.0), 0.1 * bound);
  EXPECT_NEAR(all->parameters().at("embed.lora_a.weight").master.std().item<double>(), 1.0, 0.3);
  EXPECT_EQ(all->parameters().at("embed.lora_b.weight").master.abs().max().item<float>(), 0.0f);
}

// One storage and two uses: each use learns its own, from the gradients of its own place.
TEST(Adapters, EachUseOfASharedWeightHasItsOwn) {
  auto model = adapt(testing::random_model(shared_spec(0)), on({"up_proj"}), 5);
  const Parameters& p = model->parameters();
  EXPECT_EQ(&p.at("layers.3.ffn.up.weight"), &p.at("layers.1.ffn.up.weight"));
  EXPECT_NE(&p.at("layers.3.ffn.up.lora_a.weight"), &p.at("layers.1.ffn.up.lora_a.weight"));
  testing::next_token_loss(*model, testing::random_tokens(2, 9, 96)).backward();
  EXPECT_FALSE(same_bits(p.at("layers.3.ffn.up.lora_b.weight").working.grad(),
                         p.at("layers.1.ffn.up.lora_b.weight").working.grad()));
}

TEST(Adapters, PartsOfAFusedWeightShareA) {
  const auto model = adapt(testing::random_model(testing::tiny_gpt2()), on({"c_attn"}), 5);
  const Parameters& p = model->parameters();
  EXPECT_EQ(&p.at("layers.1.attn.v.lora_a.weight"), &p.at("layers.1.attn.q.lora_a.weight"));
  EXPECT_NE(&p.at("layers.1.attn.v.lora_b.weight"), &p.at("layers.1.attn.q.lora_b.weight"));
  EXPECT_EQ(p.at("layers.1.attn.q.lora_a.weight").uses.size(), 3u);
}

TEST(Adapters, StayF32OverABf16Base) {
  const auto model = adapt(testing::random_model(testing::tiny_llama()), on({"all-linear"}), 5);
  IdentityMap identity;
  bind_working(model->parameters(), identity, at::kBFloat16);
  for (const Parameter& p : model->parameters().unique())
    EXPECT_EQ(p.working.scalar_type(), p.shape.size() == 2 && p.borrowed ? at::kBFloat16 : at::kFloat)
        << p.name;
  testing::next_token_loss(*model, testing::random_tokens(2, 9, 96)).backward();
  EXPECT_EQ(model->parameters().at("layers.0.attn.q.lora_b.weight").working.grad().scalar_type(), at::kFloat);
}

TEST(Adapters, LengthsAreThoseOfTheDenseSum) {
  const auto random = [](at::IntArrayRef shape, const char* name) {
    at::Tensor out = at::empty(shape);
    Random(4, name).fill_normal(out, 0.3);
    return out;
  };
  const at::Tensor w = random({40, 24}, "w"), a = random({4, 24}, "a"), b = random({40, 4}, "b");
  const at::Tensor dense = w.to(at::kDouble) + 1.7 * b.to(at::kDouble).matmul(a.to(at::kDouble));
  const at::Tensor exact = dense.square().sum(1).sqrt();
  const at::Tensor plain = (w + 1.7 * b.matmul(a)).square().sum(1).sqrt();
  EXPECT_LT(relative_error(joined_lengths(w, {a, b, {}, 1.7}), exact),
            std::max(2 * relative_error(plain, exact), 8 * 0x1p-24));
}

// A head that is trained whole must not move the embedding with it.
TEST(Adapters, AHalfThatIsTrainedWholeUnties) {
  DecoderSpec spec = testing::tiny_llama();
  spec.tie_embeddings = true;
  AdapterOptions options = on({"q_proj"});
  options.whole = {"lm_head"};
  auto base = testing::random_model(spec);
  const at::Tensor before = logits_of(*base);
  const auto model = adapt(std::move(base), options, 5);
  EXPECT_FALSE(model->spec().tie_embeddings);
  EXPECT_TRUE(same_bits(logits_of(*model), before));
  EXPECT_TRUE(model->parameters().at("embed.weight").borrowed);
  EXPECT_FALSE(model->parameters().at("lm_head.weight").borrowed);
}

// Rows after the tokenizer's ids stay out of the logits, learn nothing of B, and count for no merge.
TEST(Adapters, ATablesPaddingStaysOut) {
  for (const bool dora : {false, true}) {
    AdapterOptions options = on({"q_proj", "embed_tokens", "lm_head"});
    options.dora = dora;
    auto base = testing::random_model(testing::tiny_llama());
    base->set_tokens(90);
    const auto model = adapt(std::move(base), options, 5);
    testing::next_token_loss(*model, testing::random_tokens(2, 9, 90)).backward();
    for (const Parameter& p : model->parameters().unique()) {
      if (p.shape[0] != 96 || p.borrowed) continue;
      const at::Tensor g = p.working.grad();
      EXPECT_EQ(g.narrow(0, 90, 6).abs().max().item<float>(), 0.0f) << p.name;
      EXPECT_GT(g.narrow(0, 0, 90).abs().max().item<float>(), 0.0f) << p.name;
    }
    for (Parameter& p : model->parameters().unique()) {
      const at::NoGradGuard no_grad;
      if (is_adapter(p.role)) p.master.add_(0.05);
    }
    IdentityMap identity;
    const auto merged = merge_adapters(*model, identity);
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = testing::random_tokens(2, 9, 90), after = testing::logits(*merged, {tokens});
    EXPECT_EQ(after.size(2), 90);
    EXPECT_LT(relative_error(after, testing::logits(*model, {tokens})), 1e-5);
  }
}

// e(x) = m / |columns of E + s B A| (E + s B A)[x], the lengths constants: peft's DoraEmbeddingLayer.
TEST(Adapters, OfAnEmbeddingDoraHasTheLengthsOfItsColumns) {
  DecoderSpec spec = testing::tiny_llama();
  for (const bool tied_base : {false, true}) {
    spec.tie_embeddings = tied_base;
    AdapterOptions options = on({"embed_tokens", "q_proj"});
    options.dora = true;
    auto base = testing::random_model(spec);
    const at::Tensor before = logits_of(*base);
    const auto model = adapt(std::move(base), options, 5);
    Parameters& parameters = model->parameters();
    const LowRank& adapter = parameters.adapter("embed.weight");
    const at::Tensor e = parameters.at("embed.weight").master.to(at::kDouble);
    EXPECT_EQ(adapter.magnitude->shape, std::vector<int64_t>{spec.width});
    EXPECT_LT(relative_error(adapter.magnitude->master, e.norm(2, 0)), 1e-6);
    EXPECT_LT(relative_error(logits_of(*model), before), 1e-5) << "the base as it was";
    {
      const at::NoGradGuard no_grad;
      for (const Parameter* p : {adapter.a, adapter.b, adapter.magnitude}) {
        Parameter& own = parameters.at(p->name);
        Random(7, p->name).fill_normal(own.master, 1.0);
      }
    }
    IdentityMap identity;
    refresh_working(parameters, identity);
    const auto leaf = [](const Parameter* p) { return p->master.detach().to(at::kDouble).requires_grad_(); };
    const at::Tensor a = leaf(adapter.a), b = leaf(adapter.b), m = leaf(adapter.magnitude);
    const at::Tensor sum = e + at::mm(b, a) * adapter.scale;
    const at::Tensor table = sum * (m / sum.detach().norm(2, 0));
    const at::Tensor ids = testing::random_tokens(2, 9, spec.vocabulary);
    const at::Tensor rows = look_up(parameters.at("embed.weight"), ids, adapter);
    EXPECT_LT(relative_error(rows, table.index({ids})), 1e-5);
    const at::Tensor gradient = at::cos(at::arange(rows.numel())).view_as(rows);
    rows.backward(gradient);
    table.index({ids}).backward(gradient.to(at::kDouble));
    EXPECT_LT(relative_error(adapter.a->working.grad(), a.grad()), 1e-5);
    EXPECT_LT(relative_error(adapter.b->working.grad(), b.grad()), 1e-5);
    EXPECT_LT(relative_error(adapter.magnitude->working.grad(), m.grad()), 1e-5);
    const auto merged = merge_adapters(*model, identity);
    EXPECT_FALSE(merged->spec().tie_embeddings) << "the head keeps the base's table";
    EXPECT_LT(relative_error(merged->parameters().at("embed.weight").master, table), 1e-5);
    EXPECT_LT(relative_error(logits_of(*merged), logits_of(*model)), 1e-5);
  }
}

TEST(Adapters, ACopyHasTheSameOnes) {
  DecoderSpec spec = testing::tiny_gpt2();
  AdapterOptions options = on({"all-linear", "wte", "lm_head"});
  options.tied = true;
  const auto model = adapt(testing::random_model(spec), options, 5);
  const auto copy = same_shape(*model);
  ASSERT_EQ(copy->parameters().unique().size(), model->parameters().unique().size());
  for (const Parameter& p : model->parameters().unique()) {
    Parameter& own = copy->parameters().at(p.name);
    EXPECT_EQ(own.uses, p.uses);
    EXPECT_EQ(own.borrowed, p.borrowed);
    EXPECT_EQ(own.master.is_alias_of(p.master), p.borrowed) << p.name;
    const at::NoGradGuard no_grad;
    own.master.copy_(p.master);
    if (is_adapter(p.role)) own.master.add_(0.1), model->parameters().at(p.name).master.add_(0.1);
  }
  EXPECT_TRUE(same_bits(logits_of(*copy), logits_of(*model)));
}

TEST(Adapters, ABaseIsKnownByItsWeightsWhateverItShares) {
  const auto shared = testing::random_model(shared_spec(0));
  IdentityMap identity;
  EXPECT_EQ(weights_digest(shared->parameters()),
            weights_digest(merge_adapters(*shared, identity)->parameters()));

  const auto a = testing::random_model(testing::tiny_llama()),
             b = testing::random_model(testing::tiny_llama());
  EXPECT_EQ(weights_digest(a->parameters()), weights_digest(b->parameters()));
  b->parameters().at("layers.1.ffn.up.weight").master[3][5].add_(1e-3);
  EXPECT_NE(weights_digest(a->parameters()), weights_digest(b->parameters()));
}

}  // namespace
}  // namespace retort::models
