#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "core/registry.h"
#include "models/decoder.h"
#include "models/initial_values.h"

namespace retort::models {
namespace {

struct Initialiser {
  std::string name;
  double (*deviation)(const Parameter& p, double std);
};

const Registry<Initialiser>& initialisers() {
  static const Registry<Initialiser> table(
      "initialiser",
      {{"gpt2",  // Radford et al. 2019, section 2.3: two sums a layer join the residual stream
        [](const Parameter& p, double std) {
          return p.residual_depth > 0 ? std / std::sqrt(2.0 * static_cast<double>(p.residual_depth)) : std;
        }},
       {"normal", [](const Parameter&, double std) { return std; }}});
  return table;
}

}  // namespace

std::vector<std::string> initialiser_names() { return initialisers().names(); }

namespace {

double deviation_of(const Parameters& parameters, double std) {
  const auto width = static_cast<double>(parameters.at("embed.weight").shape[1]);
  return std == 0.0 ? std::sqrt(1.0 / (3.0 * width)) : std;
}

void fill(const Parameter& p, at::Tensor& values, const Initialiser& initialiser, double std, uint64_t seed) {
  if (p.role == Role::kScale) return;  // its grid's to fit
  if (p.role == Role::kNorm) {
    values.fill_(1.0 - p.offset);
  } else if (p.role == Role::kBias || p.role == Role::kLoraB) {  // a new adapter adds nothing
    values.zero_();
  } else {
    const Random random(seed, "init/" + p.name);
    random.fill_normal(values, initialiser.deviation(p, std));
  }
}

}  // namespace

void initialise(Parameters& parameters, const std::string& kind, double std, uint64_t seed) {
  const Initialiser& initialiser = initialisers().at(kind);
  const double deviation = deviation_of(parameters, std);
  const at::NoGradGuard no_grad;
  for (Parameter& p : parameters.unique()) fill(p, p.master, initialiser, deviation, seed);
}

at::Tensor initial_values(const Parameters& parameters, const Parameter& p, const std::string& kind,
                          double std, uint64_t seed) {
  const at::NoGradGuard no_grad;
  at::Tensor values = at::empty(p.shape, at::kFloat);
  fill(p, values, initialisers().at(kind), deviation_of(parameters, std), seed);
  return values;
}

}  // namespace retort::models
