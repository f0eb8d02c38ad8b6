// Rows of bench_device: whole training steps in bf16 (train/step.h): forward, loss, backward, clip, AdamW, working copies.
// Each is checked first: the gradients of one row in bf16 beside those in f32 from the same weights, all as one vector, which
// is told apart by its length. Operations are those of plan/flops.h, where attention counts the full square.
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "bench/device_table.h"
#include "bench/paired.h"
#include "comm/comm.h"
#include "core/log.h"
#include "distill/objective.h"
#include "models/decoder.h"
#include "plan/flops.h"
#include "quantize/quantize_map.h"
#include "train/step.h"

namespace retort::bench {
namespace {

constexpr double kLr = 1e-4, kClip = 1.0;
// bf16's own error of a gradient, with room: that of GPT-2 small's shape is 0.9 % on a CPU, of a row of 128 tokens.
constexpr double kSame = 0x1p-4;

models::DecoderSpec gpt2(int64_t layers, int64_t width) {
  models::DecoderSpec s{
      .family = "gpt2", .vocabulary = 50257, .context = 1024, .layers = layers, .width = width};
  s.heads = s.kv_heads = width / 64, s.head_dim = 64, s.ffn_width = 4 * width;
  s.norm = models::NormKind::kLayer, s.ffn = models::FfnKind::kGelu;
  s.positions = models::PositionKind::kLearned;
  s.attention_bias = s.ffn_bias = true;
  return s;
}
models::DecoderSpec tiny_llama() {
  models::DecoderSpec s{.vocabulary = 32000, .context = 2048, .layers = 22, .width = 2048, .heads = 32};
  s.kv_heads = 4, s.head_dim = 64, s.ffn_width = 5632, s.tie_embeddings = false;
  return s;
}
// A small model of the same kind, for a machine without a GPU: two layers.
models::DecoderSpec stand_in(models::DecoderSpec s) {
  s.kv_heads = s.kv_heads == s.heads ? 4 : 2, s.heads = 4, s.head_dim = 16, s.width = 64, s.ffn_width = 96;
  s.layers = 2, s.vocabulary = 300, s.context = 16;
  return s;
}

// What a case is told beside its share of the products' rate.
enum class Judge {
  kCeiling,  // its own share: at least half
  kPlain,    // its rate is no less than 0.97 of the plain step's
  kFlops     // its time is at most 1.1 of what the plain step takes for as many operations
};
struct Case {
  std::string name;
  models::DecoderSpec student;
  int64_t rows;  // of the whole context
  std::optional<models::DecoderSpec> teacher;
  std::string grid;  // of the matrices; "": none
  bool graphs;
  Judge judge;
};
std::vector<Case> cases() {
  const models::DecoderSpec small = gpt2(12, 768), medium = gpt2(24, 1024), llama = tiny_llama();
  return {
      {"GPT-2 small, 124M", small, 32, {}, "", false, Judge::kCeiling},
      {"GPT-2 small, 124M, graphs", small, 32, {}, "", true, Judge::kCeiling},
      {"GPT-2 small on q4_0, graphs; peer: plain", small, 32, {}, "q4_0", true, Judge::kPlain},
      {"GPT-2 small taught by medium, 355M, graphs; peer: plain", small, 32, medium, "", true, Judge::kFlops},
      {"TinyLlama, 1.1B", llama, 8, {}, "", false, Judge::kCeiling},
      {"TinyLlama, 1.1B, graphs", llama, 8, {}, "", true, Judge::kCeiling}};
}

// Weights as training begins with, made where they are used, and biases that are not zero.
void place_weights(models::Model& model, const Place& place) {
  for (models::Parameter& p : model.parameters().unique()) {
    p.master = at::empty(p.shape, place.options(at::kFloat));
    p.role == models::Role::kNorm ? p.master.fill_(1.0 - p.offset) : p.master.normal_(0.0, 0.02);
    p.placement.device = place.device;
  }
}

// Keeps what an optimizer would be given, and updates nothing.
class Recorder final : public train::Optimizer {
 public:
  void step(const train::Trained&, const Tensors& gradients, double, const at::Tensor&,
            const std::vector<kernels::WorkingCopy>&) override {
    Tensors flat;
    for (const at::Tensor& g : gradients) flat.push_back(g.flatten());
    seen = at::cat(flat);
  }
  void left_out() override {}
  formats::NamedTensors state() const override { return {}; }
  std::vector<const models::Parameter*> state_parameters() const override { return {}; }
  void set_state(const std::map<std::string, at::Tensor>&) override {}
  at::Tensor seen;
};

class Training {
 public:
  Training(const Case& of, const Place& place) : place_(place), graphs_(of.graphs), model_(of.student) {
    place_weights(model_, place);
    if (of.grid.empty())
      map_ = std::make_unique<models::IdentityMap>();
    else
      map_ = std::make_unique<quantize::QuantizeMap>(quantize::QuantizeOptions{.weights = {of.grid}},
                                                     model_.parameters());
    objective_ = of.teacher ? taught_by(*of.teacher) : train::make_cross_entropy();
    const int64_t V = of.student.vocabulary, T = of.student.context;
    batch_ = {at::randint(V, {of.rows, T}, at::kLong), at::randint(V, {of.rows, T}, at::kLong), {}, {}, {}};
    student_operations_ = plan::flops_a_token(model_, T).total() * count_of(of.rows, T);
    operations_ = student_operations_;
    if (of.teacher)
      operations_ +=
          plan::forward_flops_a_token(models::Decoder(*of.teacher, at::kMeta), T) * count_of(of.rows, T);
  }

  // Leaves the model bound in bf16.
  double error() {
    const at::Tensor exact = gradients_in(at::kFloat), got = gradients_in(at::kBFloat16);
    return ((got - exact).norm() / exact.norm()).item<double>();
  }
  void bind(at::ScalarType dtype = at::kBFloat16) { models::bind_working(model_.parameters(), *map_, dtype); }
  // Ready to be timed, once it is bound: first steps are slower, and the third is the first that repeats a graph.
  void begin() {
    optimizer_ = train::make_optimizer({}, model_.parameters());
    step_.emplace(parts(*optimizer_, graphs_), 1, kClip);
    for (int i = 0; i < 3; ++i) step();
  }
  void step() {
    const at::AutoGradMode on(true);
    step_->run(number_++, {batch_}, kLr);
  }

  double operations() const { return operations_; }  // of a step, its teacher's too
  double student_operations() const { return student_operations_; }
  int64_t tokens() const { return batch_.tokens_BT.numel(); }
  bool has_graph() const { return step_->graph_bytes() > 0; }

 private:
  std::unique_ptr<train::Objective> taught_by(const models::DecoderSpec& spec) {
    auto teacher = std::make_unique<models::Decoder>(spec);
    place_weights(*teacher, place_);
    models::IdentityMap identity;
    models::bind_working(teacher->parameters(), identity, at::kBFloat16);
    return distill::make_distillation(
        distill::make_live_teacher(std::move(teacher)),
        {{.fn = "cross_entropy", .weight = 0.5}, {.fn = "forward_kl", .weight = 0.5}}, model_);
  }
  train::StepParts parts(train::Optimizer& optimizer, bool graphs) {
    return {.model = model_,
            .map = *map_,
            .objective = *objective_,
            .optimizer = optimizer,
            .comm = *comm_,
            .graphs = graphs,
            .log = &log_};
  }
  at::Tensor gradients_in(at::ScalarType dtype) {
    const at::AutoGradMode on(true);
    bind(dtype);
    const data::Batch row{batch_.tokens_BT.slice(0, 0, 1), batch_.labels_BT.slice(0, 0, 1), {}, {}, {}};
    Recorder recorder;
    train::TrainStep(parts(recorder, false), 1, kClip).run(0, {row}, kLr);
    return recorder.seen;
  }

  const Place& place_;
  bool graphs_;
  models::Decoder model_;
  data::Batch batch_;
  double operations_ = 0, student_operations_ = 0;
  int64_t number_ = 0;
  Log log_;
  std::unique_ptr<models::WeightMap> map_;
  std::unique_ptr<comm::Comm> comm_ = comm::make_self_comm();
  std::unique_ptr<train::Objective> objective_;
  std::unique_ptr<train::Optimizer> optimizer_;
  std::optional<train::TrainStep> step_;
};

// Steps of both in turns, in ms.
Timed time_steps(const Place& place, Training& ours, Training* plain) {
  const int pairs = place.pretends ? 1 : 9;
  const auto step = [](Training& training) { return [&training] { training.step(); }; };
  if (plain != nullptr) {
    const Paired times = time_pairs(step(ours), step(*plain), pairs);
    return {times.ours.wall_ms, times.peer.wall_ms};
  }
  std::vector<double> wall;
  for (int i = 0; i < pairs; ++i) wall.push_back(time_once(step(ours)).wall_ms);
  return {quartiles(wall).median};
}

Target target_of(const Case& of, const Training& training, const Timed& timed, double share) {
  if (of.judge == Judge::kCeiling) return {share, 0.5, true, "the product", true};
  if (of.judge == Judge::kPlain) return {1 / *timed.ratio(), 0.97, true, "the plain step's rate"};
  return {*timed.ratio() * training.student_operations() / training.operations(), 1.1, false,
          "the plain step's time an operation"};
}

void print_step(Table& table, Case of) {
  const Place& place = table.place();
  if (place.pretends) {
    of.name = "tiny stand-in for " + of.name;
    of.student = stand_in(of.student), of.rows = 2;
    if (of.teacher) of.teacher = stand_in(*of.teacher);
  }
  Training ours(of, place);
  const double error = ours.error();
  ours.begin();
  std::optional<Training> plain;
  if (of.judge != Judge::kCeiling) {
    Case peer = of;
    peer.teacher.reset(), peer.grid.clear();
    plain.emplace(peer, place).bind();
    plain->begin();
  }
  const Timed timed = time_steps(place, ours, plain ? &*plain : nullptr);
  const double rate = 1e3 * ours.operations() / timed.ours, share = rate / table.reached().product,
               tokens = 1e3 * static_cast<double>(ours.tokens()) / timed.ours;
  Line line{of.name,
            fmt::format("{} x {}", of.rows, of.student.context),
            error,
            kSame,
            {},
            timed.ours,
            fmt::format("{:.0f} TFLOP/s, {} tok/s", rate * 1e-12, format_rate(tokens)),
            share,
            timed.ratio(),
            target_of(of, ours, timed, share)};
  if (of.graphs && !place.device.is_cpu() && !ours.has_graph()) line.fault = "no graph";
  table.print(line);
}

}  // namespace

void print_steps(Table& table) {
  for (const Case& of : cases()) print_step(table, of);
}

}  // namespace retort::bench
