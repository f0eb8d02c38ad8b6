#include "distill/student.h"

#include <ATen/core/grad_mode.h>

#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "core/error.h"
#include "models/spec_json.h"

namespace retort::distill {
namespace {

using models::DecoderSpec;
using models::Model;
using models::Parameter;

std::string in_layer(int64_t n, std::string_view rest) { return fmt::format("layers.{}.{}", n, rest); }

// sum over samples of (mean over tokens of |x|)^2, for each of the last dimension's parts.
struct Score {
  at::Tensor squares;

  void add(const at::Tensor& x_BTN) {
    const at::Tensor mean_BN = x_BTN.to(at::kDouble).abs().mean(1);
    const at::Tensor sum_N = mean_BN.square().sum(0);
    squares = squares.defined() ? squares + sum_N : sum_N;
  }
  at::Tensor value() const { return squares.sqrt(); }
};

// Listens to the inputs of a model's linear layers while it exists. A shared weight has one score.
class Probe {
 public:
  using View = std::function<at::Tensor(const at::Tensor&)>;
  explicit Probe(Model& model) : model_(model) {}
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;
  ~Probe() {
    for (Parameter& p : model_.parameters().unique()) p.observer = nullptr;
  }

  // `view`: what the score sees of each input [B, T, in]; without one, all of it. A weight that layers share
  // takes a view for each of them, in their order.
  void listen(const std::string& weight, View view = {}) {
    Parameter& p = model_.parameters().at(weight);
    Ear& ear = ears_[p.name];
    ear.views.push_back(std::move(view));
    p.observer = [&ear](const at::Tensor& x) {
      const View& now = ear.views[ear.heard++ % ear.views.size()];
      ear.score.add(now ? now(x) : x);
    };
  }
  at::Tensor value(const std::string& weight) const {
    return ears_.at(model_.parameters().at(weight).name).score.value();
  }

 private:
  struct Ear {
    Score score;
    std::vector<View> views;  // of the layers that run the weight
    size_t heard = 0;
  };
  Model& model_;
  std::map<std::string, Ear> ears_;
};

// The numbers of the `count` best, rising.
at::Tensor best(const at::Tensor& scores, int64_t count) {
  const at::Tensor order = at::argsort(scores, /*stable=*/true, /*dim=*/0, /*descending=*/true);
  return std::get<0>(order.slice(0, 0, count).sort());
}

// The dimensions along which tensors are cut.
enum class Axis { kWhole, kChannels, kQueries, kKeys, kNeurons };

// Rows and columns of the tensors below a module's name.
std::pair<Axis, Axis> axes_of(std::string_view module) {
  static const std::map<std::string, std::pair<Axis, Axis>, std::less<>> table = {
      {"embed", {Axis::kWhole, Axis::kChannels}},        {"positions", {Axis::kWhole, Axis::kChannels}},
      {"lm_head", {Axis::kWhole, Axis::kChannels}},      {"final_norm", {Axis::kChannels, Axis::kWhole}},
      {"attn_norm", {Axis::kChannels, Axis::kWhole}},    {"attn_post_norm", {Axis::kChannels, Axis::kWhole}},
      {"ffn_norm", {Axis::kChannels, Axis::kWhole}},     {"ffn_post_norm", {Axis::kChannels, Axis::kWhole}},
      {"attn.q_norm", {Axis::kWhole, Axis::kWhole}},     {"attn.k_norm", {Axis::kWhole, Axis::kWhole}},
      {"attn.sub_norm", {Axis::kQueries, Axis::kWhole}}, {"ffn.sub_norm", {Axis::kNeurons, Axis::kWhole}},
      {"attn.q", {Axis::kQueries, Axis::kChannels}},     {"attn.k", {Axis::kKeys, Axis::kChannels}},
      {"attn.v", {Axis::kKeys, Axis::kChannels}},        {"attn.o", {Axis::kChannels, Axis::kQueries}},
      {"ffn.gate", {Axis::kNeurons, Axis::kChannels}},   {"ffn.up", {Axis::kNeurons, Axis::kChannels}},
      {"ffn.down", {Axis::kChannels, Axis::kNeurons}}};
  const auto found = table.find(module);
  check<InternalError>(found != table.end(), "[init] there is no rule for cutting {}", module);
  return found->second;
}

// The parts that are kept along each axis, in one of the teacher's layers.
using Kept = std::map<Axis, at::Tensor>;

Kept kept_in(const DecoderSpec& student, const DecoderSpec& teacher, const Importance& importance,
             int64_t layer) {
  const auto t = static_cast<size_t>(layer);
  const at::Tensor heads_GJ = importance.heads_H[t].view({teacher.kv_heads, -1});  // J heads a group
  const at::Tensor groups = best(heads_GJ.sum(1), student.kv_heads);
  std::vector<at::Tensor> heads;
  for (int64_t i = 0; i < groups.numel(); ++i) {
    const int64_t g = groups[i].item<int64_t>();
    heads.push_back(best(heads_GJ[g], student.heads / student.kv_heads) + g * heads_GJ.size(1));
  }
  const auto rows_of = [&](const at::Tensor& parts) {
    const int64_t K = teacher.head_dim;
    return (parts.unsqueeze(1) * K + at::arange(K, at::kLong)).flatten();
  };
  return {{Axis::kChannels, best(importance.channels_D, student.width)},
          {Axis::kQueries, rows_of(at::cat(heads))},
          {Axis::kKeys, rows_of(groups)},
          {Axis::kNeurons, best(importance.neurons_F[t], student.ffn_width)}};
}

// The factor by which a norm multiplies.
at::Tensor gain_D(const Model& model, const std::string& norm) {
  const Parameter& p = model.parameters().at(norm);
  return p.working.detach().to(at::kDouble) + p.offset;
}

// The teacher's tensors, with the residual stream on the E principal components of its D channels.
class Projection {
 public:
  Projection(const Model& teacher, const Importance& importance, int64_t width, bool tied)
      : teacher_(teacher), tied_(tied) {
    const int64_t D = importance.moments_DD.size(0);
    basis_DE_ = std::get<1>(at::linalg_eigh(importance.moments_DD)).narrow(1, D - width, width).flip(1);
    length_ = std::sqrt(static_cast<double>(D) / static_cast<double>(width));  // a mean over fewer channels
  }

  // `norm`: the norm whose output the tensor reads, or "".
  at::Tensor columns(const at::Tensor& values, const std::string& norm) const {
    const at::Tensor wide = values.to(at::kDouble);
    return (norm.empty() ? wide : wide * gain_D(teacher_, norm)).matmul(basis_DE_).to(at::kFloat);
  }
  at::Tensor rows(const at::Tensor& values) const {
    return basis_DE_.t().matmul(values.to(at::kDouble)).to(at::kFloat);
  }
  // A norm's weights are folded into the tensors that read it. A tied head, which is the embedding, cannot
  // take them; there the diagonal of the projected weights remains in the norm.
  at::Tensor norm(const std::string& name) const {
    const at::Tensor gain_E = name == "final_norm.weight" && tied_
                                  ? basis_DE_.square().t().matmul(gain_D(teacher_, name))
                                  : at::ones({basis_DE_.size(1)}, at::kDouble);
    return (gain_E * length_ - teacher_.parameters().at(name).offset).to(at::kFloat);
  }

 private:
  const Model& teacher_;
  bool tied_;
  at::Tensor basis_DE_;
  double length_ = 1.0;
};

class Start {
 public:
  Start(Model& student, const Model& teacher, const InitOptions& options, const Importance& importance)
      : student_(student),
        teacher_(teacher),
        layers_(layer_map(student.spec().layers, teacher.spec().layers, options)) {
    for (int64_t t = 0; t < teacher.spec().layers; ++t)
      kept_.push_back(kept_in(student.spec(), teacher.spec(), importance, t));
    if (options.width == "principal")
      projection_.emplace(teacher, importance, student.spec().width, student.spec().tie_embeddings);
  }

  void run() {
    for (Parameter& p : student_.parameters().unique())
      if (!models::is_adapter(p.role)) p.master.copy_(teachers(p.name));
    for (Parameter& p : student_.parameters().unique())
      if (p.role == models::Role::kLoraA) fit_adapter(p);
  }

 private:
  // The teacher's tensor for one of the student's names, cut to the student's size.
  at::Tensor teachers(const std::string& name) const {
    int64_t layer = 0;
    std::string rest = name, theirs = name;
    if (name.starts_with("layers.")) {
      const size_t dot = name.find('.', 7);
      rest = name.substr(dot + 1);
      layer = layers_[static_cast<size_t>(std::stoll(name.substr(7, dot - 7)))];
      theirs = in_layer(layer, rest);
    }
    const Kept& kept = kept_[static_cast<size_t>(layer)];
    const std::string module = rest.substr(0, rest.rfind('.'));
    const auto [rows, columns] = axes_of(module);
    at::Tensor values = teacher_.parameters().at(theirs).working.detach();
    if (projection_ && rows == Axis::kChannels && module.ends_with("norm"))
      values = projection_->norm(theirs);
    else if (projection_ && rows == Axis::kChannels)
      values = projection_->rows(values);
    else if (rows != Axis::kWhole)
      values = values.index_select(0, kept.at(rows));
    if (projection_ && columns == Axis::kChannels && values.dim() == 2)
      values = projection_->columns(values, norm_before(module, layer));
    else if (columns != Axis::kWhole && values.dim() == 2)
      values = values.index_select(1, kept.at(columns));
    const at::Tensor& own = student_.parameters().at(name).master;
    values = values.narrow(0, 0, own.size(0));  // of learned positions, the first
    RETORT_ASSERT(values.sizes() == own.sizes());
    return values;
  }

  static std::string norm_before(std::string_view module, int64_t layer) {
    if (module == "lm_head") return "final_norm.weight";
    if (module.starts_with("attn.")) return in_layer(layer, "attn_norm.weight");
    if (module.starts_with("ffn.")) return in_layer(layer, "ffn_norm.weight");
    return "";
  }

  // B A becomes the nearest product of its rank to the teacher's layer less the shared weight.
  void fit_adapter(Parameter& a) {
    const std::string module = a.name.substr(0, a.name.rfind(".lora_a."));
    Parameter& b = student_.parameters().at(module + ".lora_b.weight");
    const at::Tensor difference =
        teachers(module + ".weight") - student_.parameters().at(module + ".weight").master;
    const auto [u, s, vh] = at::linalg_svd(difference, /*full_matrices=*/false);
    const int64_t rank = a.shape[0];
    const at::Tensor root = s.slice(0, 0, rank).sqrt();
    a.master.copy_(root.unsqueeze(1) * vh.slice(0, 0, rank));
    b.master.copy_(u.slice(1, 0, rank) * root);
  }

  Model& student_;
  const Model& teacher_;
  std::vector<int64_t> layers_;
  std::vector<Kept> kept_;  // of each of the teacher's layers
  std::optional<Projection> projection_;
};

// Everything but sizes and sharing must be as in the teacher.
void check_choices(const DecoderSpec& student, const DecoderSpec& teacher) {
  static const std::set<std::string> free = {
      "family",    "context",    "layers",    "width",        "heads",          "kv_heads", "ffn_width",
      "share_ffn", "keep_first", "keep_last", "share_output", "tie_embeddings", "repeat",   "lora_rank"};
  const formats::Json own = models::to_json(student), theirs = models::to_json(teacher);
  for (const auto& [key, value] : own.items())
    check<ConfigError>(free.contains(key) || value == theirs.at(key),
                       "model.{} must be {} as in the model that init.from names, got {}", key,
                       theirs.at(key).dump(), value.dump());
}

bool is_word(const std::vector<std::string>& layers) {
  return layers.size() == 1 && (layers[0] == "first" || layers[0] == "uniform");
}

void check_layers(int64_t student, int64_t teacher, const std::vector<std::string>& layers) {
  if (is_word(layers))
    return check<ConfigError>(student <= teacher, "model.layers must be at most the teacher's {}, got {}",
                              teacher, student);
  check<ConfigError>(
      std::ssize(layers) == student,
      "model.init.layers must be first, uniform or a list of {} of the teacher's layers, got {}", student,
      fmt::join(layers, ", "));
  for (const std::string& layer : layers) {
    int64_t n = -1;
    const auto [end, error] = std::from_chars(layer.data(), layer.data() + layer.size(), n);
    check<ConfigError>(error == std::errc() && end == layer.data() + layer.size() && n >= 0 && n < teacher,
                       "model.init.layers must name layers 0 to {} of the teacher, got {}", teacher - 1,
                       layer);
  }
}

}  // namespace

void InitOptions::describe(Section& s) {
  s.field("from", from,
          "model from whose weights the student is cut: teacher (distill.teacher.model) or a MODEL");
  s.field("layers", layers, "layers to keep: first, uniform, or a list of their numbers from 0");
  s.field(
      "width", width,
      "channels, heads and neurons to keep: by importance, measured on data.train; the first; principal: by "
      "importance, with the residual stream's principal components in place of its channels",
      one_of({"importance", "first", "principal"}));
  s.field("samples", samples, "rows on which importance is measured", at_least<int64_t>(1));
}

Importance measure_importance(Model& teacher, const std::vector<models::TokenBlock>& samples, bool moments) {
  const at::NoGradGuard no_grad;
  const DecoderSpec& spec = teacher.spec();
  check<ConfigError>(!samples.empty(), "[init] importance needs samples, got none");
  Importance out;
  if (moments) out.moments_DD = at::zeros({spec.width, spec.width}, at::kDouble);
  const auto add_moments = [&](const at::Tensor& x_BTD, const std::string& norm) {
    const at::Tensor gain = gain_D(teacher, norm);
    const at::Tensor x_ND = (x_BTD.to(at::kDouble) / gain).masked_fill_(gain.eq(0), 0.0).flatten(0, 1);
    out.moments_DD.addmm_(x_ND.t(), x_ND);
  };
  Probe probe(teacher);
  const auto stream = [&](const std::string& norm) -> Probe::View {
    if (!moments) return {};
    return [&add_moments, norm](const at::Tensor& x) { return add_moments(x, norm), x; };
  };
  const auto heads = [&](const at::Tensor& x) {
    return at::norm(x.to(at::kDouble).view({x.size(0), x.size(1), spec.heads, spec.head_dim}), 2, {-1});
  };
  for (int64_t n = 0; n < spec.layers; ++n) {
    probe.listen(in_layer(n, "attn.q.weight"), stream(in_layer(n, "attn_norm.weight")));
    probe.listen(in_layer(n, "attn.o.weight"), heads);
    probe.listen(in_layer(n, "ffn.up.weight"), stream(in_layer(n, "ffn_norm.weight")));
    probe.listen(in_layer(n, "ffn.down.weight"));
  }
  Score last;
  for (const models::TokenBlock& block : samples) {
    const at::Tensor h_BTD = teacher.hidden(block);
    last.add(h_BTD);
    if (moments) add_moments(h_BTD, "final_norm.weight");
  }

  out.channels_D = last.value();
  for (int64_t n = 0; n < spec.layers; ++n) {
    out.channels_D += probe.value(in_layer(n, "attn.q.weight")) + probe.value(in_layer(n, "ffn.up.weight"));
    out.heads_H.push_back(probe.value(in_layer(n, "attn.o.weight")));
    out.neurons_F.push_back(probe.value(in_layer(n, "ffn.down.weight")));
  }
  return out;
}

Importance importance_by_order(const DecoderSpec& teacher) {
  const auto falling = [](int64_t size) { return at::arange(size, 0, -1, at::kDouble); };
  const auto layers = static_cast<size_t>(teacher.layers);
  return {.channels_D = falling(teacher.width),
          .heads_H = std::vector<at::Tensor>(layers, falling(teacher.heads)),
          .neurons_F = std::vector<at::Tensor>(layers, falling(teacher.ffn_width))};
}

void check_start(const DecoderSpec& student, const DecoderSpec& teacher, const InitOptions& options) {
  check<ConfigError>(!student.patch && !teacher.patch,
                     "model.init must be left out: a byte-patch model is cut from none, and none from it");
  check_choices(student, teacher);
  const auto at_most = [](const char* key, int64_t own, int64_t theirs) {
    check<ConfigError>(own <= theirs, "model.{} must be at most the teacher's {}, got {}", key, theirs, own);
  };
  at_most("width", student.width, teacher.width);
  at_most("ffn_width", student.ffn_width, teacher.ffn_width);
  at_most("kv_heads", student.kv_heads, teacher.kv_heads);
  check<ConfigError>(
      student.heads / student.kv_heads <= teacher.heads / teacher.kv_heads,
      "model.heads must be at most {} for each key/value head, as in the teacher, got {} for {}",
      teacher.heads / teacher.kv_heads, student.heads, student.kv_heads);
  if (student.positions == models::PositionKind::kLearned)
    at_most("context", student.context, teacher.context);
  check<ConfigError>(
      options.width != "principal" ||
          (teacher.norm != models::NormKind::kLayer && !teacher.post_norms && !teacher.scale_embeddings),
      "model.init.width must be importance or first for this teacher: principal needs RMS norms, only before "
      "attention and feed-forward network, and embeddings that are not scaled");
  check_layers(student.layers, teacher.layers, options.layers);
}

std::vector<int64_t> layer_map(int64_t student_layers, int64_t teacher_layers, const InitOptions& options) {
  std::vector<int64_t> out;
  for (int64_t i = 0; i < student_layers; ++i) {
    if (!is_word(options.layers))
      out.push_back(std::stoll(options.layers[static_cast<size_t>(i)]));
    else if (options.layers[0] == "first")
      out.push_back(i);
    else  // the last layer of each of student_layers equal runs
      out.push_back(((i + 1) * teacher_layers * 2 + student_layers) / (2 * student_layers) - 1);
  }
  return out;
}

void start_student(Model& student, const Model& teacher, const InitOptions& options,
                   const Importance& importance) {
  check_start(student.spec(), teacher.spec(), options);
  RETORT_ASSERT(!teacher.parameters().has_adapters());
  const at::NoGradGuard no_grad;
  Start(student, teacher, options, importance).run();
}

}  // namespace retort::distill
