// Adapters against answers of peft 0.21 (../shared/data/finetune): logits, loss, every gradient, the merge, and
// the folder written back; tests/train/peft_losses_test.cpp has its losses. Then what a folder may not hold.
#include "models/peft_folder.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "formats/nf4.h"
#include "formats/safetensors.h"
#include "models/family.h"
#include "models/hf_folder.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using formats::Json;
using ::testing::HasSubstr;
using testing::relative_error;
using ::testing::ThrowsMessage;

// NF4 as bitsandbytes' CPU code makes it, of which the answers are: it looks the size of a block up among 2^16
// places in [-1, 1], each of which knows its nearest byte, and so does not always find the nearest of the size.
class TableNf4 final : public Codes {
 public:
  explicit TableNf4(const at::Tensor& x) : packed_(formats::pack_nf4(x)) {
    const at::Tensor sizes = x.reshape({-1, 64}).abs().amax(1) - packed_.offset;
    RETORT_ASSERT(packed_.groups.numel() == 1);
    const at::Tensor place = ((sizes / packed_.groups + 1.0) * 32767.5 + 0.5).floor() / 32767.5 - 1.0;
    const at::Tensor bytes = (place.unsqueeze(1) - formats::byte_map()).abs().argmin(1).to(at::kByte);
    differing_ = bytes.ne(packed_.sizes).sum().item<int64_t>();
    packed_.sizes = bytes;
  }
  at::Tensor values() const override { return formats::unpack_nf4(packed_); }
  uint64_t bytes() const override { return packed_.bytes(); }
  int64_t differing() const { return differing_; }

 private:
  formats::Nf4Tensor packed_;
  int64_t differing_ = 0;
};

class Peft : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    RETORT_NEEDS_TEST_DATA();
    folder_ = testing::test_data() / "finetune" / GetParam();
    if (!std::filesystem::exists(folder_)) GTEST_SKIP() << folder_ << " is not there";
    config_ = read_peft_config(folder_);
    if (GetParam() == "llama-qlora") config_.options.base = "nf4";
    const Path base = testing::test_data() / "models" / config_.base;
    model_ = load_peft(folder_, config_, load_hf_folder(base));
    if (GetParam() == "llama-qlora") take_the_tables_sizes(*load_hf_folder(base));
    IdentityMap identity;
    bind_working(model_->parameters(), identity, at::kFloat);
    answers_.emplace(folder_ / "golden.safetensors");
    facts_ = formats::read_json(folder_ / "golden.json");
    tokens_ = answers_->tensor("input_ids").clone();
  }

  void take_the_tables_sizes(const Model& base) {
    int64_t differing = 0;
    for (Parameter& p : model_->parameters().unique()) {
      if (!p.codes) continue;
      const auto codes = std::make_shared<TableNf4>(base.parameters().at(p.name).master);
      differing += codes->differing();
      p.keep_as(codes);
    }
    EXPECT_EQ(differing, 1);  // of 1,088 blocks
  }

  // The adapter's tensors, as a folder holds them.
  std::map<std::string, at::Tensor> written() const {
    const testing::TemporaryDirectory directory;
    save_peft(local_files(), directory / "out", *model_, config_);
    const formats::SafetensorsFile file(directory / "out" / "adapter_model.safetensors");
    std::map<std::string, at::Tensor> out;
    for (const auto& [name, entry] : file.entries()) out[name] = file.tensor(name).clone();
    return out;
  }

  Path folder_;
  PeftConfig config_;
  std::unique_ptr<Model> model_;
  std::optional<formats::SafetensorsFile> answers_;
  Json facts_;
  at::Tensor tokens_;
};

constexpr double kTolerance = 1e-4;

double difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST_P(Peft, Logits) {
  EXPECT_LT(difference(testing::logits(*model_, {tokens_}), answers_->tensor("logits")), kTolerance);
}

// Of a pair on both sides of a tie peft lists a gradient for each side, and ours is their sum.
at::Tensor expected_gradient(const formats::SafetensorsFile& answers, const std::string& name, bool tied) {
  const at::Tensor own = answers.tensor("grad." + name);
  const std::string embedding = "base_model.model.model.embed_tokens.lora_embedding_",
                    head = "base_model.model.lm_head.lora_";
  if (!tied) return own;
  if (name == embedding + "A") return own + answers.tensor("grad." + head + "B.weight").t();
  if (name == embedding + "B") return own + answers.tensor("grad." + head + "A.weight").t();
  if (name == head + "A.weight") return own + answers.tensor("grad." + embedding + "B").t();
  if (name == head + "B.weight") return own + answers.tensor("grad." + embedding + "A").t();
  return own;
}

TEST_P(Peft, LossAndEveryGradientOfTheAdapterAlone) {
  const at::Tensor loss = testing::next_token_loss(*model_, tokens_);
  EXPECT_LT(relative_error(loss.reshape(1), answers_->tensor("loss")), 1e-5);
  loss.backward();
  for (Parameter& p : model_->parameters().unique()) {
    EXPECT_EQ(p.working.grad().defined(), !p.borrowed) << p.name;
    if (p.borrowed) continue;
    const at::NoGradGuard no_grad;
    p.master = p.working.grad().clone();  // to be written under their names
  }
  size_t compared = 0;
  for (const auto& [name, gradient] : written()) {
    if (name.ends_with("base_layer.weight")) continue;
    EXPECT_LT(relative_error(gradient, expected_gradient(*answers_, name, config_.options.tied)), kTolerance)
        << name;
    ++compared;
  }
  const auto others = answers_->contains("merged_logits") ? 4 : 3;  // input_ids, logits, loss
  EXPECT_EQ(compared, answers_->entries().size() - others);
}

// A right merge gives the logits of the adapter; where peft's is right, its own too.
TEST_P(Peft, Merges) {
  IdentityMap identity;
  const auto merged = merge_adapters(*model_, identity);
  EXPECT_FALSE(merged->parameters().has_adapters());
  const at::Tensor logits = testing::logits(*merged, {tokens_});
  EXPECT_LT(difference(logits, answers_->tensor("logits")), kTolerance);
  if (answers_->contains("merged_logits")) {
    EXPECT_LT(difference(logits, answers_->tensor("merged_logits")), 1e-4);
  }
  const bool one_sided = GetParam() == "llama3-tied-embed";
  EXPECT_EQ(merged->spec().tie_embeddings, model_->spec().tie_embeddings && !one_sided);
}

TEST_P(Peft, IsWrittenAsItWasRead) {
  const formats::SafetensorsFile file(folder_ / "adapter_model.safetensors");
  const auto out = written();
  EXPECT_EQ(out.size(), file.entries().size());
  for (const auto& [name, tensor] : out) EXPECT_TRUE(testing::same_bits(tensor, file.tensor(name))) << name;
  const Json before = formats::read_json(folder_ / kPeftConfig);
  const Json after = peft_config_json(*model_, config_);
  for (const auto& [key, value] : after.items()) EXPECT_EQ(value, before.at(key)) << key;
}

INSTANTIATE_TEST_SUITE_P(Golden, Peft,
                         ::testing::Values("llama-lora", "llama-rslora", "llama-dora", "llama-pattern",
                                           "llama-layer1", "llama-head", "llama-embed", "llama3-tied-lora",
                                           "llama3-tied-embed", "llama3-tied-both", "gpt2-lora", "gpt2-dora",
                                           "phi3-lora", "phi3-dora", "qwen3-lora", "qwen3-rsdora",
                                           "gemma3-lora", "stories260K-lora", "llama-qlora"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// Of each option what reading the folder gives, with and without weights.
TEST(PeftFolder, IsKnownBeforeItIsWritten) {
  const testing::TemporaryDirectory directory;
  AdapterOptions named, all, pattern;
  named.modules = {"q_proj", "down_proj"}, named.rank = 4, named.dora = true;
  all.alpha = 6.5, all.rslora = true, all.exclude = {"o_proj"}, all.layers = {1};
  all.overrides = {{"v_proj", 2, 3.0}};
  pattern.modules = {}, pattern.pattern = ".*(k|v)_proj", pattern.whole = {"norm"};
  for (const AdapterOptions& options : {named, all, pattern}) {
    const auto model = adapt(testing::random_model(testing::tiny_llama(), 1), options, 3);
    save_peft(local_files(), directory / "adapter", *model, {options, "base"});
    const AdapterOptions read = read_peft_config(directory / "adapter").options;
    EXPECT_TRUE(kept_by_peft(*model, options) == read);
    const auto shape = adapt(make_model(testing::tiny_llama(), at::kMeta), options, 0);
    EXPECT_TRUE(kept_by_peft(*shape, options) == read);
    EXPECT_EQ(read == options, options == named || options == pattern);
  }
}

// ---- What is refused, of a folder that is ours and right but for one thing

class PeftRefuses : public ::testing::Test {
 protected:
  void SetUp() override {
    config_.options.modules = {"q_proj", "lm_head"};
    config_.base = "base";
    const auto model = adapt(base(), config_.options, 3);
    save_peft(local_files(), folder(), *model, config_);
    json_ = formats::read_json(folder() / kPeftConfig);
    const formats::SafetensorsFile file(folder() / kTensors);
    for (const auto& [name, entry] : file.entries()) tensors_.emplace_back(name, file.tensor(name).clone());
  }
  static std::unique_ptr<Model> base(uint64_t seed = 1) {
    return testing::random_model(testing::tiny_llama(), seed);
  }
  Path folder() const { return directory_ / "adapter"; }
  void load(std::unique_ptr<Model> to) const {
    load_peft(folder(), read_peft_config(folder()), std::move(to));
  }
  void expect(const std::string& text, uint64_t seed = 1) {
    write_durably(local_files(), folder() / kPeftConfig, json_.dump());
    formats::write_safetensors(local_files(), folder() / kTensors, tensors_);
    try {
      load(base(seed));
      ADD_FAILURE() << "was taken: " << text;
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), HasSubstr(text));
      EXPECT_THAT(error.what(), HasSubstr(folder().string() + "/adapter_"));
    }
  }

  static constexpr const char* kTensors = "adapter_model.safetensors";
  const std::string q0_ = "base_model.model.model.layers.0.self_attn.q_proj.lora_";
  testing::TemporaryDirectory directory_;
  PeftConfig config_;
  Json json_;
  formats::NamedTensors tensors_;
};

TEST_F(PeftRefuses, NothingOfARightFolder) { EXPECT_NO_THROW(load(base())); }

TEST_F(PeftRefuses, AKeyThatItDoesNotKnow) {
  json_["use_doras"] = true;
  expect("use_doras is true, which is not supported here; did you mean \"use_dora\"?");
  json_["use_doras"] = false;  // off: as if it were not there
  json_["bias"] = "all";
  expect("bias must be \"none\", got \"all\"");
  json_["bias"] = "none";
  json_["init_lora_weights"] = "pissa";
  expect("init_lora_weights must be true or false or \"gaussian\", got \"pissa\"");
  json_["init_lora_weights"] = true;
  json_["trainable_token_indices"] = {1, 2};
  expect("trainable_token_indices is [1,2], which is not supported here");
}

TEST_F(PeftRefuses, AValueOutOfItsRange) {
  json_["r"] = 1 << 20;
  expect("r must be a whole number in [1, 65536], got 1048576");
  json_["r"] = 8;
  json_["lora_alpha"] = -1;
  expect("lora_alpha must be a number above 0, got -1");
  json_["lora_alpha"] = 16;
  json_["target_modules"] = nullptr;
  expect("target_modules must be a list of modules, or a pattern, got nothing");
  json_["target_modules"] = "((a";
  expect("adapters.pattern must be a regular expression, got \"((a\"");
  json_["target_modules"] = "((a*)*)*b";  // for ever, with a matcher that tries all ways
  expect("adapters.pattern must choose a weight of the model that ");
}

TEST_F(PeftRefuses, AnAdapterOfAnotherShape) {
  json_["r"] = 4;
  expect(q0_ + "A.weight must have shape [4, 32] for this base and adapter_config.json, got [8, 32]");
  json_["r"] = 8;
  json_["target_modules"] = {"q_proj", "v_proj", "lm_head"};
  expect(
      "lacks base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight, which adapter_config.json "
      "names");
  json_["target_modules"] = {"q_proj", "lm_head"};
  tensors_.emplace_back(q0_ + "C.weight", at::zeros({2, 2}));
  expect("holds " + q0_ + "C.weight, which is no tensor that adapter_config.json names; did you mean");
}

TEST_F(PeftRefuses, AnAdapterOfAnotherBase) {
  expect(
      "base_model.model.lm_head.base_layer.weight is not the weight of this base: the adapter was made for "
      "another",
      2);
}

TEST_F(PeftRefuses, ToReplaceAnotherFolder) {
  std::filesystem::create_directory(directory_ / "mine");
  write_durably(local_files(), directory_ / "mine" / "notes.txt", "mine");
  const auto model = adapt(base(), config_.options, 3);
  EXPECT_THROW(save_peft(local_files(), directory_ / "mine", *model, config_), IoError);
  EXPECT_NO_THROW(save_peft(local_files(), folder(), *model, config_));
}

}  // namespace
}  // namespace retort::models
