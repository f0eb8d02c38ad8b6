// A loaded model that runs beside the student. Its body runs without gradient, so that each layer's
// activations are freed as the next layer's are made. The last hidden state remains, and the loss applies the
// head to it chunk by chunk.
#include "core/digest.h"
#include "core/error.h"
#include "core/file.h"
#include "core/host_tensor.h"
#include "core/shape.h"
#include "distill/divided_teacher.h"
#include "train/micro_graph.h"

namespace retort::distill {
namespace {

// Tokens [begin, begin + tokens) of every row, as rows of their own. Positions count from the first token of
// the document that the window holds.
models::TokenBlock window(const data::Batch& batch, int64_t begin, int64_t tokens) {
  const auto cut = [&](const at::Tensor& x_BT) {
    return x_BT.defined() ? x_BT.narrow(1, begin, tokens).contiguous() : at::Tensor();
  };
  models::TokenBlock out{cut(batch.tokens_BT), cut(batch.positions_BT), cut(batch.document_BT)};
  if (out.positions_BT.defined())
    out.positions_BT = at::minimum(out.positions_BT, at::arange(tokens, out.positions_BT.options()));
  return out;
}

class LiveTeacher final : public Teacher {
 public:
  LiveTeacher(std::shared_ptr<models::Model> model, bool divided)
      : model_(std::move(model)), divided_(divided) {}

  TeacherSignal signal(const data::Batch& batch, const std::vector<int64_t>& layers) override {
    const at::NoGradGuard no_grad;
    const int64_t tokens = batch.tokens_BT.size(1), context = model_->context();
    const std::string misfit = layers.empty() ? "" : row_misfit(context, tokens);
    check<ConfigError>(misfit.empty(), "[distill] {}", misfit);
    TeacherSignal out;
    for (const int64_t layer : layers) out.taps.push_back({.layer = layer});
    std::vector<at::Tensor> parts;
    for (int64_t begin = 0; begin < tokens; begin += context) {
      models::TokenBlock block = window(batch, begin, std::min(context, tokens - begin));
      if (!layers.empty()) block.taps = &out.taps;
      parts.push_back(model_->hidden(block));
    }
    const at::Tensor h_ND = (parts.size() == 1 ? parts.front() : at::cat(parts, 1)).flatten(0, 1);
    const models::Head head = model_->head();
    out.rows.heads = {{h_ND, {head.weight_VD.detach(), head.softcap}}};
    return out;
  }

  LayerShape layers() const override { return layer_shape(model_->spec()); }
  int64_t vocabulary() const override { return model_->tokens(); }
  bool asked_together() const override { return divided_; }
  std::string not_repeatable() const override {
    return divided_ ? "ranks divide the teacher's weights" : train::not_repeatable(*model_);
  }

 private:
  std::shared_ptr<models::Model> model_;
  bool divided_;
};

}  // namespace

LayerShape layer_shape(const models::DecoderSpec& spec) {
  if (spec.patch) return {};
  return {spec.layers, spec.width, spec.heads, spec.kv_heads, spec.head_dim};
}

std::string row_misfit(int64_t context, int64_t tokens) {
  if (tokens <= context) return "";
  return fmt::format(
      "losses on layers need a teacher that reads a row as a whole: its context is {} tokens, a row has {}",
      context, tokens);
}

std::string fingerprint(const models::Parameters& parameters) {
  Digest digest;
  for (const models::Parameter& p : parameters.unique()) {
    const at::Tensor values = p.working.detach().cpu().contiguous();
    digest.add(as_bytes(fmt::format("{}{}", p.name, format_shape(values.sizes()))));
    digest.add(host_bytes(values));
  }
  return hex(digest.value());
}

std::unique_ptr<Teacher> make_live_teacher(std::unique_ptr<models::Model> model) {
  for (models::Parameter& p : model->parameters().unique()) {
    check<NonFiniteError>(
        p.role == models::Role::kScale ||  // a scale has no value before its first step on the grid
            at::isfinite(p.working.detach()).all().item<bool>(),
        "[distill] the teacher's weights must be finite, {} is not", p.name);
    p.freeze();
    p.master = p.working.detach();  // nothing trains it, so a master of its own is freed
  }
  return std::make_unique<LiveTeacher>(std::move(model), false);
}

std::unique_ptr<Teacher> make_divided_teacher(std::shared_ptr<train::DividedModel> model) {
  models::Model& teacher = model->model();
  return std::make_unique<LiveTeacher>(std::shared_ptr<models::Model>(std::move(model), &teacher), true);
}

}  // namespace retort::distill
