#include "distill/objective.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "distill/hidden_loss.h"

namespace retort::distill {
namespace {

// One loss of the list: on rows of logits or on pairs of layers.
struct Term {
  std::string name;
  LossOptions options;
  kernels::RowLoss on_rows = {};
  std::vector<PairLoss> on_layers = {};
};

// The layers that any pair names, each once.
std::vector<int64_t> layers_of(const std::vector<Term>& terms, int64_t PairLoss::*side) {
  std::vector<int64_t> out;
  for (const Term& term : terms)
    for (const PairLoss& pair : term.on_layers)
      if (std::find(out.begin(), out.end(), pair.*side) == out.end()) out.push_back(pair.*side);
  return out;
}

const models::LayerTap& tap_of(const std::vector<models::LayerTap>& taps, int64_t layer) {
  const auto found =
      std::find_if(taps.begin(), taps.end(), [&](const auto& tap) { return tap.layer == layer; });
  RETORT_ASSERT(found != taps.end() && found->h_BTD.defined());
  return *found;
}

// A finite sum proves finite values without a tensor of their size. A sum that is not finite may be an
// overflow. On the CPU only: elsewhere the check would wait for the device, where the loss is not finite
// then.
void check_finite(const at::Tensor& hidden_ND, const data::Batch& batch) {
  if (!hidden_ND.is_cpu()) return;
  if (std::isfinite(hidden_ND.sum().item<double>())) return;
  const at::Tensor sick_N = at::isfinite(hidden_ND).all(1).logical_not();
  if (!sick_N.any().item<bool>()) return;
  const int64_t row = at::argmax(sick_N.to(at::kInt)).item<int64_t>(), tokens = batch.tokens_BT.size(1);
  const std::string place =
      batch.corpus_BT.defined()
          ? fmt::format("token {} of the text", batch.corpus_BT.flatten()[row].item<int64_t>())
          : fmt::format("row {}, token {}", row / tokens, row % tokens);
  fail<NonFiniteError>(
      "[distill] the teacher's hidden states are not finite at {}: its weights or precision are wrong; the "
      "student's checkpoints so far, if any, are whole",
      place);
}

class Distillation final : public train::Objective {
 public:
  Distillation(std::unique_ptr<Teacher> teacher, std::vector<Term> terms,
               std::unique_ptr<models::Parameters> learned, const train::EmbeddingNoise& noise)
      : teacher_(std::move(teacher)),
        terms_(std::move(terms)),
        learned_(std::move(learned)),
        noise_(noise),
        student_layers_(layers_of(terms_, &PairLoss::student)),
        teacher_layers_(layers_of(terms_, &PairLoss::teacher)) {}

  void begin_step(int64_t step) override { step_ = step; }

  train::LossSum operator()(models::Model& model, const data::Batch& batch) override {
    const TeacherSignal teacher = teacher_ ? ask(model, batch) : TeacherSignal{};
    std::vector<models::LayerTap> taps;
    for (const int64_t layer : student_layers_) taps.push_back({.layer = layer});
    const at::Tensor h_BTD = model.hidden({.tokens_BT = batch.tokens_BT,
                                           .positions_BT = batch.positions_BT,
                                           .document_BT = batch.document_BT,
                                           .taps = taps.empty() ? nullptr : &taps,
                                           .noise_BTD = noise_(batch, model.width())});
    const train::LossSum rows = on_rows(model, h_BTD, teacher.rows, batch);
    train::LossSum out{rows.sum, {}};
    const HiddenRows valid{batch.labels_BT != kernels::kIgnoredLabel, batch.document_BT};
    size_t next = 0;
    for (const Term& term : terms_) {
      if (term.on_rows) {
        out.parts.push_back(rows.parts[next++]);
        continue;
      }
      const at::Tensor sum = on_layers(term, taps, teacher.taps, valid);
      out.sum = out.sum.defined() ? out.sum + term.options.weight_at(step_) * sum
                                  : term.options.weight_at(step_) * sum;
      out.parts.push_back(sum.detach());
    }
    return out;
  }

  std::string not_repeatable() const override {
    std::vector<LossOptions> all;
    for (const Term& term : terms_) all.push_back(term.options);
    const std::string why = distill::not_repeatable(all, noise_);
    return why.empty() && teacher_ ? teacher_->not_repeatable() : why;
  }

  std::vector<std::string> part_names() const override {
    std::vector<std::string> names;
    for (const Term& term : terms_) names.push_back(term.name);
    return names;
  }

  models::Parameters* learned() override { return learned_.get(); }

 private:
  // The losses on logits, in the order of the list; an undefined sum when there are none.
  train::LossSum on_rows(const models::Model& model, const at::Tensor& h_BTD,
                         const kernels::TeacherSignal& teacher, const data::Batch& batch) const {
    std::vector<kernels::LossTerm> terms;
    for (const Term& term : terms_)
      if (term.on_rows) terms.push_back({term.on_rows, term.options.weight_at(step_)});
    if (terms.empty()) return {};
    kernels::LinearDistillResult result =
        kernels::linear_distill(h_BTD.flatten(0, 1), model.head(), teacher, batch.labels_BT.flatten(), terms);
    return {std::move(result.sum), std::move(result.parts)};
  }

  static at::Tensor on_layers(const Term& term, const std::vector<models::LayerTap>& of_student,
                              const std::vector<models::LayerTap>& of_teacher, const HiddenRows& rows) {
    at::Tensor sum;
    for (const PairLoss& pair : term.on_layers) {
      const at::Tensor of_pair =
          pair.sum(tap_of(of_student, pair.student), tap_of(of_teacher, pair.teacher), rows);
      sum = sum.defined() ? sum + of_pair : of_pair;
    }
    return sum / static_cast<double>(term.on_layers.size());
  }

  TeacherSignal ask(const models::Model& student, const data::Batch& batch) {
    TeacherSignal signal = teacher_->signal(batch, teacher_layers_);
    kernels::TeacherSignal& rows = signal.rows;
    for (const kernels::TeacherHead& head : rows.heads) check_finite(head.hidden_ND, batch);
    if (rows.vocabulary == 0) rows.vocabulary = teacher_->vocabulary();
    rows.vocabulary = std::min(rows.vocabulary, student.tokens());
    if (!rows.places_N.defined() && batch.corpus_BT.defined()) rows.places_N = batch.corpus_BT.flatten();
    return signal;
  }

  std::unique_ptr<Teacher> teacher_;  // nullptr: no loss needs one
  std::vector<Term> terms_;
  std::unique_ptr<models::Parameters> learned_;  // the terms' projections
  train::EmbeddingNoise noise_;                  // of the student
  std::vector<int64_t> student_layers_, teacher_layers_;
  int64_t step_ = 0;
};

// A cache's labels have one temperature, and one number of draws or ids.
std::string label_misfit(const LossSpec& spec, const LossOptions& loss, const SignalKind& kind) {
  if (loss.temperature != kind.temperature)
    return fmt::format("temperature must be that of the teacher's labels, {}, got {}", kind.temperature,
                       loss.temperature);
  if (spec.reads == Reads::kDraws && loss.draws != 0 && loss.draws != kind.size)
    return fmt::format("draws must be the cache's {} or 0, got {}", kind.size, loss.draws);
  if (spec.reads == Reads::kTop && loss.k > kind.size)
    return fmt::format("k must be at most the cache's {}, got {}", kind.size, loss.k);
  return "";
}

void check_teacher(const LossSpec& spec, const LossOptions& loss, const Teacher* teacher) {
  if (!spec.needs_teacher()) return;
  check<ConfigError>(teacher != nullptr, "[distill] {} needs a teacher, and there is none", spec.name);
  const std::string misfit = signal_misfit(loss, teacher->kind(), teacher->layers().count);
  check<ConfigError>(misfit.empty(), "[distill] {}", misfit);
}

}  // namespace

std::string signal_misfit(const LossOptions& loss, const SignalKind& kind, int64_t layers) {
  const LossSpec& spec = losses().at(loss.fn);
  const bool dense = kind.name == "dense";
  switch (spec.reads) {
    case Reads::kNothing:
      return "";
    case Reads::kDistribution:
      return dense ? ""
                   : fmt::format("{} needs the teacher's whole distribution, got {} labels", spec.name,
                                 kind.name);
    case Reads::kDraws:
      if (!dense && kind.name != "sampled")
        return fmt::format("{} needs sampled labels, got {}", spec.name, kind.name);
      break;
    case Reads::kTop:
      if (!dense && kind.name != "top_k")
        return fmt::format("{} needs top_k labels, got {}", spec.name, kind.name);
      break;
    case Reads::kLayers:
      return layers > 0 ? "" : fmt::format("{} needs a single live teacher with layers", spec.name);
  }
  const std::string misfit = dense ? "" : label_misfit(spec, loss, kind);
  return misfit.empty() ? "" : fmt::format("{}: {}", spec.name, misfit);
}

std::string not_repeatable(const std::vector<LossOptions>& all, const train::EmbeddingNoise& noise) {
  for (const LossOptions& loss : all) {
    const Reads reads = losses().at(loss.fn).reads;
    if (reads == Reads::kLayers) return loss.fn + " looks at hidden states";
    if (reads == Reads::kDraws) return loss.fn + " draws on the host";
    if (loss.schedule) return "the weight of " + loss.fn + " follows the step";
  }
  return noise.not_repeatable();
}

std::unique_ptr<train::Objective> make_distillation(std::unique_ptr<Teacher> teacher,
                                                    const std::vector<LossOptions>& options,
                                                    const models::Model& student, uint64_t seed,
                                                    const train::EmbeddingNoise& noise) {
  check<ConfigError>(!options.empty(), "[distill] losses must not be empty; known: {}",
                     fmt::join(losses().names(), ", "));
  std::vector<Term> terms;
  auto learned = std::make_unique<models::Parameters>();
  std::map<std::string, int> uses;
  bool needs_teacher = false;
  for (const LossOptions& loss : options) {
    const LossSpec& spec = losses().at(loss.fn);
    check_teacher(spec, loss, teacher.get());
    if (loss.schedule) loss.schedule->check();
    needs_teacher = needs_teacher || spec.needs_teacher();
    const int use = ++uses[spec.name];
    LossOptions seeded = loss;
    seeded.seed = seed;
    Term term{use == 1 ? spec.name : fmt::format("{}_{}", spec.name, use), seeded};
    if (spec.make)
      term.on_rows = spec.make(seeded);
    else
      term.on_layers = spec.make_hidden(seeded, {student, *teacher, *learned, term.name});
    terms.push_back(std::move(term));
  }
  if (!needs_teacher) teacher.reset();
  return std::make_unique<Distillation>(std::move(teacher), std::move(terms), std::move(learned), noise);
}

}  // namespace retort::distill
