#include "distill/on_policy.h"

#include <algorithm>
#include <array>
#include <span>

#include "core/error.h"
#include "core/host_tensor.h"
#include "core/random.h"
#include "eval/generate.h"

namespace retort::distill {
namespace {

// What of a row is given: tokens [begin, begin + length), of a document that has a label.
struct Prompt {
  int64_t row, begin, length;
};

using Ids = std::span<const int64_t>;

Ids row_of(const at::Tensor& x_BT, int64_t row) { return host_values<const int64_t>(x_BT[row]); }

// Up to the first token that is learned, or as many tokens as the options say.
std::vector<Prompt> prompts_of(const data::Batch& batch, int64_t given) {
  std::vector<Prompt> out;
  const int64_t rows = batch.tokens_BT.size(0), tokens = batch.tokens_BT.size(1);
  for (int64_t row = 0; row < rows; ++row) {
    const Ids labels = row_of(batch.labels_BT, row);
    const Ids documents = batch.document_BT.defined() ? row_of(batch.document_BT, row) : Ids();
    for (int64_t begin = 0, end = 0; begin < tokens; begin = end) {
      for (end = begin + 1; end < tokens && (documents.empty() || documents[end] == documents[begin]);) ++end;
      const auto document = labels.subspan(begin, end - begin);
      const auto learned = std::ranges::find_if(document, [](int64_t id) { return id != data::kIgnored; });
      if (learned == document.end()) continue;
      out.push_back({row, begin, given > 0 ? std::min(given, end - begin) : learned - document.begin() + 1});
    }
  }
  return out;
}

std::vector<int32_t> ids_of(const data::Batch& batch, const Prompt& prompt) {
  const Ids ids = row_of(batch.tokens_BT, prompt.row).subspan(prompt.begin, prompt.length);
  return {ids.begin(), ids.end()};
}

// Documents of one row draw from streams of their own.
constexpr uint64_t kDocumentsOfARow = uint64_t{1} << 32;

// One prompt with its answer, and padding after it.
void fill_row(const Prompt& prompt, const std::vector<int32_t>& ids, const data::Batch& from, int64_t row,
              data::Batch& out) {
  std::vector<int64_t> tokens(ids.begin(), ids.end());
  const auto length = std::ssize(tokens);
  const at::Tensor text = at::tensor(tokens);
  out.tokens_BT[row].narrow(0, 0, length).copy_(text);
  const int64_t sampled = length - prompt.length;
  out.labels_BT[row].narrow(0, prompt.length - 1, sampled).copy_(text.narrow(0, prompt.length, sampled));
  const int64_t place = from.corpus_BT.defined() ? row_of(from.corpus_BT, prompt.row)[prompt.begin] : 0;
  out.corpus_BT[row].add_(place);
  if (from.source_B.defined()) out.source_B[row].copy_(from.source_B[prompt.row]);
  if (!from.samples.empty()) out.samples.push_back(from.samples[static_cast<size_t>(prompt.row)]);
}

class OnPolicy final : public train::Objective {
 public:
  OnPolicy(std::unique_ptr<train::Objective> distillation, const OnPolicyOptions& options, Sampling sampling)
      : distillation_(std::move(distillation)), options_(options), sampling_(std::move(sampling)) {}

  std::vector<data::Batch> prepare(models::Model& model, int64_t step,
                                   const std::vector<data::Batch>& batches) override {
    sampled_ = Random(sampling_.seed, "on_policy", static_cast<uint64_t>(step)).uniform(0) < options_.share;
    if (!sampled_) return batches;
    std::vector<data::Batch> out;
    for (const data::Batch& batch : batches)
      out.push_back(sample_answers(model, batch, step, options_, sampling_));
    return out;
  }
  void begin_step(int64_t step) override { distillation_->begin_step(step); }

  train::LossSum operator()(models::Model& model, const data::Batch& batch) override {
    train::LossSum out = (*distillation_)(model, batch);
    for (at::Tensor& figure : figures_of(batch)) out.parts.push_back(std::move(figure));
    return out;
  }

  std::vector<std::string> part_names() const override {
    std::vector<std::string> names = distillation_->part_names();
    for (const char* name : {"sampled", "answer_tokens", "cut_short"}) names.emplace_back(name);
    return names;
  }
  // Sums of labels, answers and answers without an end become shares and a mean length.
  std::vector<double> figures(std::vector<double> means) const override {
    const size_t own = means.size() - 3;
    const double labels = means[own], answers = means[own + 1], cut = means[own + 2];
    std::vector<double> out = distillation_->figures({means.begin(), means.end() - 3});
    out.insert(out.end(), {labels, labels / answers, cut / answers});
    return out;
  }
  train::Counted counted() const override { return distillation_->counted(); }
  models::Parameters* learned() override { return distillation_->learned(); }

 private:
  // Labels, answers, and answers without an end, of this step's own.
  std::array<at::Tensor, 3> figures_of(const data::Batch& batch) const {
    const at::Tensor none = at::zeros({}, batch.labels_BT.options().dtype(at::kDouble));
    if (!sampled_) return {none, none, none};
    const at::Tensor learned_BT = batch.labels_BT != data::kIgnored;
    const at::Tensor answers = learned_BT.any(1).sum();
    const at::Tensor ends = at::tensor(sampling_.ends, batch.labels_BT.options());
    return {learned_BT.sum(), answers, answers - at::isin(batch.labels_BT, ends).sum()};
  }

  std::unique_ptr<train::Objective> distillation_;
  OnPolicyOptions options_;
  Sampling sampling_;
  bool sampled_ = false;  // this step's answers
};

}  // namespace

void OnPolicyOptions::describe(Section& s) {
  s.field("share", share,
          "share of the steps whose answers the student writes; the others take the given ones",
          between(0.0, 1.0));
  s.field(
      "prompt", prompt,
      "number of tokens of a document that are given; 0: those before the first that is learned, of a text "
      "that says so",
      at_least(int64_t{0}));
  s.field("tokens", tokens, "number of tokens of an answer at most", at_least(int64_t{1}));
  s.field("temperature", temperature, "divisor of the student's logits when it draws", above(0.0));
}

data::Batch sample_answers(models::Model& model, const data::Batch& batch, int64_t step,
                           const OnPolicyOptions& options, const Sampling& sampling) {
  const std::vector<Prompt> prompts = prompts_of(batch, options.prompt);
  std::vector<std::vector<int32_t>> texts;
  eval::GenerateHooks hooks{.ends = sampling.ends, .step = static_cast<uint64_t>(step)};
  for (const Prompt& prompt : prompts) {
    texts.push_back(ids_of(batch, prompt));
    const auto row = static_cast<size_t>(prompt.row);
    const uint64_t sample = batch.samples.empty() ? row : static_cast<uint64_t>(batch.samples[row]);
    hooks.streams.push_back(sample * kDocumentsOfARow + static_cast<uint64_t>(prompt.begin));
  }
  const std::vector<eval::Continuation> answers = eval::generate(
      model, texts, {.tokens = options.tokens, .temperature = options.temperature, .seed = sampling.seed},
      hooks);

  size_t widest = 1;
  for (size_t i = 0; i < texts.size(); ++i) {
    texts[i].insert(texts[i].end(), answers[i].ids.begin(), answers[i].ids.end());
    widest = std::max(widest, texts[i].size());
  }
  const auto rows = std::max<int64_t>(1, std::ssize(texts)), width = static_cast<int64_t>(widest);
  data::Batch out;
  out.tokens_BT = at::zeros({rows, width}, at::kLong);
  out.labels_BT = at::full({rows, width}, data::kIgnored, at::kLong);
  out.corpus_BT = at::arange(width).expand({rows, width}).contiguous();
  out.source_B = at::zeros({rows}, at::kLong);
  for (size_t i = 0; i < texts.size(); ++i)
    fill_row(prompts[i], texts[i], batch, static_cast<int64_t>(i), out);
  return out;
}

int64_t answer_count(const data::Batch& batch, int64_t prompt) {
  return std::ssize(prompts_of(batch, prompt));
}

std::unique_ptr<train::Objective> make_on_policy(std::unique_ptr<train::Objective> distillation,
                                                 const OnPolicyOptions& options, Sampling sampling) {
  return std::make_unique<OnPolicy>(std::move(distillation), options, std::move(sampling));
}

}  // namespace retort::distill
