#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "core/registry.h"
#include "models/decoder.h"

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

void initialise(Parameters& parameters, const std::string& kind, double std, uint64_t seed) {
  const Initialiser& initialiser = initialisers().at(kind);
  const auto width = static_cast<double>(parameters.at("embed.weight").shape[1]);
  if (std == 0.0) std = std::sqrt(1.0 / (3.0 * width));
  const at::NoGradGuard no_grad;
  for (Parameter& p : parameters.unique()) {
    if (p.role == Role::kScale) continue;  // its grid's to fit
    if (p.role == Role::kNorm) {
      p.master.fill_(1.0 - p.offset);
    } else if (p.role == Role::kBias || p.role == Role::kLoraB) {  // a new adapter adds nothing
      p.master.zero_();
    } else {
      const Random random(seed, "init/" + p.name);
      random.fill_normal(p.master, initialiser.deviation(p, std));
    }
  }
}

}  // namespace retort::models
