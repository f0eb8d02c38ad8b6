// Whole models against answers of transformers 5.17 (../shared/data/models/tiny): logits, loss, every
// gradient, ten AdamW steps and a greedy continuation. A new family adds its folder here; one that is not
// there is skipped aloud.
// tests/clients/golden_check.py runs it on models of other seeds, widths and depths ($RETORT_TEST_DATA).
#include "formats/json.h"
#include "formats/safetensors.h"
#include "models/family.h"
#include "models/hf_folder.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using testing::relative_error;

class Golden : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    RETORT_NEEDS_TEST_DATA();
    folder_ = testing::test_data() / "models" / "tiny" / GetParam();
    if (!std::filesystem::exists(folder_)) GTEST_SKIP() << folder_ << " is not there";
    model_ = load_hf_folder(folder_);
    answers_.emplace(folder_ / "golden.safetensors");
    facts_ = formats::read_json(folder_ / "golden.json");
    tokens_ = answers_->tensor("input_ids").clone();
  }

  // Our gradients as the foreign tensor that fuses and transposes them.
  std::map<std::string, at::Tensor> foreign_gradients() const {
    std::map<std::string, at::Tensor> out;
    const Parameters& parameters = model_->parameters();
    for (const ForeignTensor& t : families().at(model_->spec().family).hf_tensors(model_->spec())) {
      if (parameters.is_tied_head(t.parameter)) continue;
      const at::Tensor gradient = parameters.at(t.parameter).working.grad();
      const at::Tensor theirs = t.transposed ? gradient.t() : gradient;
      const int64_t rows = t.transposed ? 1 : 0;
      out[t.name] = out.contains(t.name) ? at::cat({out[t.name], theirs}, rows) : theirs;
    }
    return out;
  }

  Path folder_;
  std::unique_ptr<Decoder> model_;
  std::optional<formats::SafetensorsFile> answers_;
  formats::Json facts_;
  at::Tensor tokens_;
};

TEST_P(Golden, Logits) {
  const at::Tensor ours = testing::logits(*model_, {tokens_, {}, {}});
  EXPECT_LT(relative_error(ours, answers_->tensor("logits")), 1e-5);
}

TEST_P(Golden, LossAndEveryGradient) {
  const at::Tensor loss = testing::next_token_loss(*model_, tokens_);
  EXPECT_LT(relative_error(loss.reshape(1), answers_->tensor("loss")), 1e-5);
  loss.backward();
  size_t compared = 0;
  for (const auto& [name, gradient] : foreign_gradients()) {
    EXPECT_LT(relative_error(gradient, answers_->tensor("grad." + name)), 1e-4) << name;
    ++compared;
  }
  EXPECT_EQ(compared, answers_->entries().size() - 3);  // input_ids, logits, loss
}

// LibTorch's order of AdamW, decay on all parameters.
TEST_P(Golden, TenAdamWLosses) {
  const formats::Json& hp = facts_["adamw"];
  const double lr = hp["lr"], b1 = hp["betas"][0], b2 = hp["betas"][1], eps = hp["eps"],
               decay = hp["weight_decay"];
  std::map<std::string, at::Tensor> m, v;
  Parameters& parameters = model_->parameters();
  for (int t = 1; t <= 10; ++t) {
    for (Parameter& p : parameters.unique()) p.working.mutable_grad().reset();
    const at::Tensor loss = testing::next_token_loss(*model_, tokens_);
    EXPECT_NEAR(loss.item<double>() / facts_["losses"][static_cast<size_t>(t - 1)].get<double>(), 1.0, 1e-4)
        << t;
    loss.backward();
    const at::NoGradGuard no_grad;
    for (Parameter& p : parameters.unique()) {
      const at::Tensor g = p.working.grad();
      if (t == 1) m[p.name] = at::zeros_like(g), v[p.name] = at::zeros_like(g);
      m[p.name].mul_(b1).add_(g, 1 - b1);
      v[p.name].mul_(b2).addcmul_(g, g, 1 - b2);
      const at::Tensor root = v[p.name].sqrt() / std::sqrt(1 - std::pow(b2, t)) + eps;
      p.master.mul_(1 - lr * decay).sub_(m[p.name] / (1 - std::pow(b1, t)) / root * lr);
    }
  }
}

TEST_P(Golden, GreedyContinuation) {
  const auto expected = facts_["greedy"].get<std::vector<int64_t>>();
  const std::vector<int64_t> prompt(expected.begin(), expected.begin() + 8);
  EXPECT_EQ(testing::continue_greedily(*model_, prompt, 16), expected);
}

// What bf16 products do to a model's numbers has the size of what rounding its weights to bf16 does: each
// product rounds its weight, its input and its result by at most 2^-9. So three such errors, added, bound it.
TEST_P(Golden, Bf16StaysWithinItsOwnRounding) {
  const at::Tensor exact = answers_->tensor("logits");
  const auto error = [&](const at::Tensor& logits_BTV) {
    return ((logits_BTV - exact).norm() / exact.norm()).item<double>();
  };
  const at::NoGradGuard no_grad;
  const auto rounded = load_hf_folder(folder_);
  for (Parameter& p : rounded->parameters().unique())
    if (p.master.dim() == 2) p.master.copy_(p.master.to(at::kBFloat16));
  const double weights = error(testing::logits(*rounded, {tokens_, {}, {}}));
  IdentityMap identity;
  bind_working(model_->parameters(), identity, at::kBFloat16);
  const double products = error(testing::logits(*model_, {tokens_, {}, {}}));
  EXPECT_GT(products, 0.5 * weights);  // it is bf16 that was measured
  EXPECT_LT(products, 3 * weights);
}

INSTANTIATE_TEST_SUITE_P(Tiny, Golden,
                         ::testing::Values("gpt2", "llama", "llama3-tied", "phi3", "phi3-longrope", "qwen2",
                                           "qwen3", "gemma3", "bitnet"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace retort::models
