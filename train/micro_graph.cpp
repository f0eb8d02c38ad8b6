#include "train/micro_graph.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "data/on_device.h"

namespace retort::train {
namespace {

// Numbers of equal bits are equal, those that are no numbers too.
at::Tensor bits_of(const at::Tensor& x) {
  static constexpr at::ScalarType kOfBytes[] = {at::kByte, at::kShort, at::kInt, at::kLong};
  const auto* const found = std::ranges::find(kOfBytes, x.element_size(), [](at::ScalarType type) {
    return static_cast<int64_t>(c10::elementSize(type));
  });
  return x.contiguous().view({-1}).view(*found);
}

// The host reads once.
bool same_bits(const std::vector<std::pair<at::Tensor, at::Tensor>>& pairs) {
  std::vector<at::Tensor> other;
  for (const auto& [a, b] : pairs) {
    if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type()) return false;
    other.push_back(bits_of(a).ne(bits_of(b)).any());
  }
  return !at::stack(other).any().item<bool>();
}

bool same_bits(const std::vector<GradSync::Made>& got, const std::vector<GradSync::Made>& want,
               const at::Tensor& figures, const at::Tensor& want_figures) {
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs{{figures, want_figures}};
  if (got.size() != want.size()) return false;
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i].parameter != want[i].parameter) return false;
    pairs.emplace_back(got[i].gradient, want[i].gradient);
  }
  return same_bits(pairs);
}

}  // namespace

std::string not_repeatable(models::Model& model) {
  if (model.layer_stack() == nullptr) return "shapes in the model follow from the text";
  if (model.spec().rope_scaling.kind == "longrope") return "longrope asks how long the rows are";
  return "";
}

std::string not_repeatable(const std::string& objective, models::Model& model) {
  return objective.empty() ? not_repeatable(model) : objective;
}

MicroGraphs::MicroGraphs(const Trained& trained, GradSync& sync, Pass pass, kernels::CaptureGraph capture,
                         Log* log)
    : trained_(trained),
      sync_(sync),
      pass_(std::move(pass)),
      capture_(capture),
      log_(log),
      divisor_(at::empty({}, at::TensorOptions(trained.all().front()->working.device()).dtype(at::kDouble))) {
}

void MicroGraphs::begin_step(double divisor) {
  divisor_.fill_(divisor);
  if (capture_ == nullptr) return;
  std::vector<const void*> now = addresses();
  if (now != addresses_) discard();
  addresses_ = std::move(now);
}

uint64_t MicroGraphs::bytes() const {
  uint64_t sum = 0;
  for (const Shape& shape : shapes_)
    if (shape.graph) sum += shape.graph->bytes();
  return sum;
}

// Of all that a graph reads of the model. An objective's own teacher stays where it is.
std::vector<const void*> MicroGraphs::addresses() const {
  std::vector<const void*> out;
  for (const models::Parameter* p : trained_.all()) {
    out.push_back(p->working.unsafeGetTensorImpl());
    out.push_back(p->working.storage().data());
    out.push_back(p->codes.get());
  }
  return out;
}

at::Tensor MicroGraphs::run(int64_t index, const data::Batch& batch) {
  const bool packed = batch.document_BT.defined();  // attention takes the lengths of documents from the host
  if (capture_ == nullptr || packed || all_once_) return run_once(index, batch);
  Shape& shape = shape_of(batch);
  if (!std::exchange(shape.seen, true)) return run_once(index, batch);
  if (!shape.graph) return record(shape, index, batch);
  replay(shape, batch);
  sync_.add_micro_batch(index, shape.made);
  return shape.figures.clone();  // the next one's take their place
}

at::Tensor MicroGraphs::run_once(int64_t index, const data::Batch& batch) {
  sync_.begin_micro_batch(index);
  at::Tensor figures = pass_(batch, divisor_);
  sync_.end_micro_batch(index);
  return figures;
}

MicroGraphs::Key MicroGraphs::key_of(data::Batch batch) {
  Key key;
  for (const at::Tensor* x : data::read_by_models(batch)) {
    std::vector<int64_t>& one = key.emplace_back();
    if (!x->defined()) continue;
    one.assign(x->sizes().begin(), x->sizes().end());
    one.push_back(static_cast<int64_t>(x->scalar_type()));
  }
  return key;
}

MicroGraphs::Shape& MicroGraphs::shape_of(const data::Batch& batch) {
  Key key = key_of(batch);
  const auto found = std::ranges::find(shapes_, key, &Shape::key);
  if (found != shapes_.end()) {
    shapes_.splice(shapes_.begin(), shapes_, found);
    return shapes_.front();
  }
  shapes_.push_front({.key = std::move(key)});
  if (shapes_.size() > kMostShapes) shapes_.pop_back();
  return shapes_.front();
}

// What the step gets is the pass that ran as ever.
at::Tensor MicroGraphs::record(Shape& shape, int64_t index, const data::Batch& batch) {
  at::Tensor figures;
  const std::vector<GradSync::Made> made = sync_.made_by([&] { figures = pass_(batch, divisor_); });
  std::string trouble;
  try {
    capture(shape, batch);
    replay(shape, batch);
    const at::NoGradGuard no_grad;
    if (!same_bits(shape.made, made, shape.figures, figures))
      trouble = "a repeated micro-batch has other bits";
  } catch (const c10::Error& error) {
    trouble = error.what_without_backtrace();
  } catch (const std::exception& error) {
    trouble = error.what();
  }
  if (!trouble.empty()) give_up(trouble);
  sync_.add_micro_batch(index, made);
  return figures;
}

void MicroGraphs::capture(Shape& shape, const data::Batch& batch) {
  shape.inputs = batch;
  for (at::Tensor* x : data::read_by_models(shape.inputs))
    if (x->defined()) *x = x->clone();
  shape.graph = capture_(divisor_.device(), [&] {
    shape.made = sync_.made_by([&] { shape.figures = pass_(shape.inputs, divisor_); });
  });
}

void MicroGraphs::replay(Shape& shape, data::Batch batch) {
  const auto from = data::read_by_models(batch), to = data::read_by_models(shape.inputs);
  for (size_t i = 0; i < to.size(); ++i)
    if (to[i]->defined()) to[i]->copy_(*from[i], /*non_blocking=*/true);
  shape.graph->replay();
}

void MicroGraphs::give_up(const std::string& why) {
  capture_ = nullptr;
  discard();
  if (log_ != nullptr)
    log_->warn("no graph of a micro-batch can be had, training goes on without (train.graph): {}", why);
}

}  // namespace retort::train
