#include "distill/hidden_loss.h"

#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "train/objective.h"

namespace retort::distill {
namespace {

void check_layers(const char* key, const std::vector<int64_t>& layers, int64_t count) {
  for (const int64_t layer : layers)
    check<ConfigError>(layer >= 0 && layer < count, "distill.losses.{} must lie in [0, {}), got {}", key,
                       count, layer);
}

const models::Parameter& projection(const Sides& sides, uint64_t seed, size_t index, int64_t width_t) {
  const int64_t width_s = sides.student.width();
  models::Parameter& weight =
      sides.learned.add(fmt::format("{}{}.{}.weight", train::kLearnedPrefix, sides.name, index),
                        {width_t, width_s}, models::Role::kObjective);
  const at::NoGradGuard no_grad;
  Random(seed, "init/" + weight.name)
      .fill_normal(weight.master, 1.0 / std::sqrt(static_cast<double>(width_s)));
  return weight;
}

}  // namespace

std::vector<LayerPair> layer_pairs(const LossOptions& options, int64_t student_layers, int64_t teacher_layers,
                                   bool last) {
  check<ConfigError>(student_layers > 0, "[distill] {} needs a student with layers", options.fn);
  check_layers("layers", options.layers, student_layers);
  check_layers("teacher_layers", options.teacher_layers, teacher_layers);
  std::vector<int64_t> layers = options.layers;
  for (int64_t i = last ? student_layers - 1 : 0; options.layers.empty() && i < student_layers; ++i)
    layers.push_back(i);
  check<ConfigError>(
      options.teacher_layers.empty() || options.teacher_layers.size() == layers.size(),
      "distill.losses.teacher_layers must name {} layers, one for each of the student's, got {}",
      layers.size(), options.teacher_layers.size());
  std::vector<LayerPair> out;
  for (size_t i = 0; i < layers.size(); ++i) {
    const double share =
        static_cast<double>((layers[i] + 1) * teacher_layers) / static_cast<double>(student_layers);
    const int64_t by_depth = std::max<int64_t>(std::lround(share) - 1, 0);
    out.push_back({layers[i], options.teacher_layers.empty() ? by_depth : options.teacher_layers[i]});
  }
  return out;
}

void check_pairs(const LossOptions& options, const LayerShape& student, const LayerShape& teacher) {
  layer_pairs(options, student.count, teacher.count, false);
}

std::vector<PairLoss> projected_pairs(const LossOptions& options, const Sides& sides,
                                      const RowDistance& distance) {
  const LayerShape teacher = sides.teacher.layers();
  std::vector<PairLoss> out;
  for (const LayerPair& pair : layer_pairs(options, sides.student.layers(), teacher.count, false)) {
    const models::Parameter* weight = &projection(sides, options.seed, out.size(), teacher.width);
    out.push_back({pair.student, pair.teacher,
                   [=](const models::LayerTap& s, const models::LayerTap& t, const HiddenRows& rows) {
                     const at::Tensor valid_M = rows.valid_BT.flatten().nonzero().view({-1});
                     const auto picked = [&](const at::Tensor& h_BTD) {
                       return h_BTD.flatten(0, 1).index_select(0, valid_M).to(at::kFloat);
                     };
                     return distance(at::linear(picked(s.h_BTD), weight->working), picked(t.h_BTD)).sum();
                   }});
  }
  return out;
}

}  // namespace retort::distill
