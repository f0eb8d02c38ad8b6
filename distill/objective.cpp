#include "distill/objective.h"

#include <algorithm>
#include <map>

namespace retort::distill {
namespace {

class Distillation final : public train::Objective {
 public:
  Distillation(std::unique_ptr<Teacher> teacher, std::vector<std::string> names,
               std::vector<kernels::LossTerm> terms)
      : teacher_(std::move(teacher)), names_(std::move(names)), terms_(std::move(terms)) {}

  train::LossSum operator()(models::Model& model, const data::Batch& batch) override {
    const TeacherSignal teacher = teacher_ ? ask(model, batch) : TeacherSignal{};
    const at::Tensor h_BTD = model.hidden({batch.tokens_BT, batch.positions_BT, batch.document_BT});
    const models::Head head = model.head();
    kernels::LinearDistillResult result =
        kernels::linear_distill(h_BTD.flatten(0, 1), head.weight_VD, teacher, batch.labels_BT.flatten(),
                                terms_, {.softcap = head.softcap});
    return {std::move(result.sum), std::move(result.parts)};
  }

  std::vector<std::string> part_names() const override { return names_; }
  double extra_flops_per_token(int64_t tokens) const override {
    return teacher_ ? teacher_->flops_per_token(tokens) : 0.0;
  }

 private:
  TeacherSignal ask(const models::Model& student, const data::Batch& batch) {
    TeacherSignal signal = teacher_->signal(batch);
    if (signal.vocabulary == 0) signal.vocabulary = std::min(teacher_->vocabulary(), student.vocabulary());
    if (!signal.places_N.defined() && batch.corpus_BT.defined()) signal.places_N = batch.corpus_BT.flatten();
    // Later a sick teacher is caught by the step's guard; here it can still be told from a sick student.
    if (!seen_finite_) {
      for (const kernels::TeacherHead& head : signal.heads)
        check<NonFiniteError>(
            at::isfinite(head.hidden_ND).all().item<bool>(),
            "[distill] the teacher's hidden states are not finite: its weights or precision are wrong");
      seen_finite_ = true;
    }
    return signal;
  }

  std::unique_ptr<Teacher> teacher_;  // null: no loss needs one
  std::vector<std::string> names_;
  std::vector<kernels::LossTerm> terms_;
  bool seen_finite_ = false;
};

}  // namespace

std::unique_ptr<train::Objective> make_distillation(std::unique_ptr<Teacher> teacher,
                                                    const std::vector<LossOptions>& options) {
  check<ConfigError>(!options.empty(), "[distill] losses must not be empty; known: {}",
                     fmt::join(losses().names(), ", "));
  std::vector<std::string> names;
  std::vector<kernels::LossTerm> terms;
  std::map<std::string, int> uses;
  bool needs_teacher = false;
  for (const LossOptions& loss : options) {
    const LossSpec& spec = losses().at(loss.fn);
    check<ConfigError>(teacher != nullptr || !spec.needs_teacher,
                       "[distill] {} needs a teacher, and there is none", spec.name);
    needs_teacher = needs_teacher || spec.needs_teacher;
    const int use = ++uses[spec.name];
    names.push_back(use == 1 ? spec.name : fmt::format("{}_{}", spec.name, use));
    terms.push_back({spec.make(loss), loss.weight});
  }
  if (!needs_teacher) teacher.reset();
  return std::make_unique<Distillation>(std::move(teacher), std::move(names), std::move(terms));
}

}  // namespace retort::distill
