#include "quantize/calibration.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "core/host_tensor.h"

namespace retort::quantize {
namespace {

using models::Parameter;

// Observers that go with the object.
class Observers {
 public:
  Observers() = default;
  ~Observers() {
    for (Parameter* p : watched_) p->observer = nullptr;
  }
  Observers(const Observers&) = delete;
  Observers& operator=(const Observers&) = delete;
  void watch(Parameter& p, std::function<void(const at::Tensor&)> observer) {
    p.observer = std::move(observer);
    watched_.push_back(&p);
  }

 private:
  std::vector<Parameter*> watched_;
};

void add_outer_products(InputGroup& group, const at::Tensor& x) {
  const at::Tensor x_NI = x.reshape({-1, x.size(-1)});
  group.second_moment_II += at::matmul(x_NI.t(), x_NI);  // f32 of a block, summed in f64
  group.tokens += x_NI.size(0);
}

}  // namespace

Calibration::Calibration(models::Model& model, std::vector<models::TokenBlock> blocks)
    : model_(model), stack_(model.layer_stack()), blocks_(std::move(blocks)) {
  check<ConfigError>(stack_ != nullptr,
                     "[calibration] goes layer by layer, and a {} model is no stack of layers",
                     model.spec().family);
  check<DataError>(!blocks_.empty(), "[calibration] needs at least one block of tokens");
  const at::NoGradGuard no_grad;
  discover();
  for (const models::TokenBlock& block : blocks_) streams_BTD_.push_back(stack_->embed(block));
}

// Runs one token through all layers and writes down who reads what.
void Calibration::discover() {
  struct Reading {
    int64_t layer;
    at::Tensor input;  // kept, so that no later one can lie at its address
    Parameter* matrix;
  };
  std::vector<Reading> readings;
  int64_t layer = 0;
  Observers observers;
  for (Parameter& p : model_.parameters().unique())
    if (p.role == models::Role::kMatrix)
      observers.watch(p, [&, matrix = &p](const at::Tensor& x) { readings.push_back({layer, x, matrix}); });
  models::TokenBlock token = blocks_.front();
  for (at::Tensor* part : {&token.tokens_BT, &token.positions_BT, &token.document_BT})
    if (part->defined()) *part = part->narrow(0, 0, 1).narrow(1, 0, 1);
  at::Tensor x_BTD = stack_->embed(token);
  for (; layer < model_.layers(); ++layer) x_BTD = stack_->run_layer(layer, x_BTD, token);

  std::map<Parameter*, size_t> group_of;
  for (size_t i = 0; i < readings.size(); ++i) {
    const Reading& reading = readings[i];
    if (const auto known = group_of.find(reading.matrix); known != group_of.end()) {
      uses_[known->second].last = reading.layer;
      continue;
    }
    const bool joins = i > 0 && readings[i - 1].input.is_same(reading.input) &&
                       readings[i - 1].layer == reading.layer &&
                       uses_[group_of.at(readings[i - 1].matrix)].first == reading.layer;
    if (!joins) uses_.push_back({reading.layer, reading.layer, {}});
    const size_t group = joins ? group_of.at(readings[i - 1].matrix) : uses_.size() - 1;
    uses_[group].matrices.push_back(reading.matrix);
    group_of[reading.matrix] = group;
  }
}

std::vector<InputGroup> Calibration::collect(int64_t layer) {
  const at::NoGradGuard no_grad;
  std::vector<InputGroup> groups;
  int64_t last = layer;
  for (const Use& use : uses_) {
    if (use.first != layer) continue;
    const int64_t in = use.matrices.front()->shape[1];
    groups.push_back({use.matrices, at::zeros({in, in}, at::kDouble), 0});
    last = std::max(last, use.last);
  }
  if (groups.empty()) return groups;  // runs only what earlier layers own
  Observers observers;
  for (InputGroup& group : groups)
    observers.watch(*group.matrices.front(), [&group](const at::Tensor& x) { add_outer_products(group, x); });
  for (size_t b = 0; b < blocks_.size(); ++b) {
    at::Tensor x_BTD = streams_BTD_[b];
    for (int64_t n = layer; n <= last; ++n) x_BTD = stack_->run_layer(n, x_BTD, blocks_[b]);
  }
  return groups;
}

void Calibration::advance(int64_t layer) {
  const at::NoGradGuard no_grad;
  for (size_t b = 0; b < blocks_.size(); ++b)
    streams_BTD_[b] = stack_->run_layer(layer, streams_BTD_[b], blocks_[b]);
}

int64_t Calibration::tokens() const {
  int64_t total = 0;
  for (const models::TokenBlock& block : blocks_) total += block.tokens_BT.numel();
  return total;
}

std::vector<models::TokenBlock> calibration_blocks(const data::TokenShards& text, int64_t vocabulary,
                                                   int64_t tokens, int64_t sequence, int64_t rows) {
  text.check_rows(vocabulary, "[calibration]");
  check<DataError>(text.size() >= sequence,
                   "[calibration] the text must hold at least one window of {} tokens, got {} tokens",
                   sequence, text.size());
  const int64_t available = text.size() / sequence;
  const int64_t windows = std::clamp<int64_t>(tokens / sequence, 1, available);
  std::vector<models::TokenBlock> blocks;
  for (int64_t first = 0; first < windows; first += rows) {
    const at::Tensor tokens_BT = at::empty({std::min(rows, windows - first), sequence}, at::kLong);
    for (int64_t row = 0; row < tokens_BT.size(0); ++row)  // spread over the whole text
      text.read((first + row) * available / windows * sequence, host_values<int64_t>(tokens_BT[row]));
    blocks.push_back({tokens_BT, {}, {}});
  }
  return blocks;
}

}  // namespace retort::quantize
