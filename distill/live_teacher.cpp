// A loaded model run beside the student. Its body runs whole and without gradient, so that each layer's
// activations go as the next are made; what stays is the last hidden state, and the head is applied chunk by
// chunk inside the loss.
#include "core/digest.h"
#include "core/error.h"
#include "core/file.h"
#include "core/shape.h"
#include "distill/teacher.h"

namespace retort::distill {
namespace {

class LiveTeacher final : public Teacher {
 public:
  explicit LiveTeacher(std::unique_ptr<models::Model> model) : model_(std::move(model)) {}

  TeacherSignal signal(const data::Batch& batch) override {
    const int64_t tokens = batch.tokens_BT.size(1);
    check<ConfigError>(tokens <= model_->context(),
                       "[distill] the teacher reads at most {} tokens, got a batch of sequences of {}",
                       model_->context(), tokens);
    const at::NoGradGuard no_grad;
    const at::Tensor h_BTD = model_->hidden(
        {batch.tokens_BT, batch.positions_BT, batch.document_BT, taps_.empty() ? nullptr : &taps_});
    const models::Head head = model_->head();
    return {.heads = {{h_BTD.flatten(0, 1), head.weight_VD.detach(), head.softcap}}};
  }

  LayerShape layers() const override { return {model_->layers(), model_->width()}; }
  void tap(std::vector<models::LayerTap> wanted) override { taps_ = std::move(wanted); }
  std::vector<models::LayerTap> taps() const override { return taps_; }
  int64_t vocabulary() const override { return model_->vocabulary(); }
  // A model counts forward and backward: 1 and 2 parts of 3.
  double flops_per_token(int64_t tokens) const override { return model_->flops_per_token(tokens) / 3.0; }

 private:
  std::unique_ptr<models::Model> model_;
  std::vector<models::LayerTap> taps_;
};

}  // namespace

std::string fingerprint(const models::Parameters& parameters) {
  Digest digest;
  for (const models::Parameter& p : parameters.unique()) {
    const at::Tensor values = p.working.detach().contiguous();
    digest.add(as_bytes(fmt::format("{}{}", p.name, format_shape(values.sizes()))));
    digest.add({static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
  }
  return hex(digest.value());
}

std::unique_ptr<Teacher> make_live_teacher(std::unique_ptr<models::Model> model) {
  return std::make_unique<LiveTeacher>(std::move(model));
}

}  // namespace retort::distill
