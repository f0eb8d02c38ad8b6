#include "distill/preference_loss.h"

#include <algorithm>
#include <cmath>

namespace retort::distill {

// Each in the file of its name.
PreferenceLoss dpo();
PreferenceLoss robust();
PreferenceLoss cdpo();
PreferenceLoss ipo();
PreferenceLoss dpo_norm();
PreferenceLoss hinge();
PreferenceLoss exo();
PreferenceLoss nca();
PreferenceLoss sppo();
PreferenceLoss apo_zero();
PreferenceLoss apo_down();
PreferenceLoss simpo();
PreferenceLoss orpo();
PreferenceLoss cpo();
PreferenceLoss kto();
PreferenceLoss apo_zero_rated();

const Registry<PreferenceLoss>& preference_losses() {
  static const Registry<PreferenceLoss> table(
      "preference loss", {dpo(), robust(), cdpo(), ipo(), dpo_norm(), hinge(), exo(), nca(), sppo(),
                          apo_zero(), apo_down(), simpo(), orpo(), cpo(), kto(), apo_zero_rated()});
  return table;
}

bool PreferenceLoss::takes(std::string_view parameter) const {
  return std::find(parameters.begin(), parameters.end(), parameter) != parameters.end();
}

namespace {

// "... (of robust, cdpo)"
std::string with_owners(const char* parameter, const char* doc) {
  std::vector<std::string> owners;
  for (const PreferenceLoss& loss : preference_losses())
    if (loss.takes(parameter)) owners.push_back(loss.name);
  return fmt::format("{} (of {})", doc, fmt::join(owners, ", "));
}

}  // namespace

// Documentation has no loss: every parameter is described then.
void PreferenceOptions::describe(Section& s) {
  s.field("loss", loss, "name of the loss", one_of(preference_losses().names()));
  s.field("beta", beta,
          "strength with which the model is held to its reference, or the factor of the margin; simpo wants "
          "2 to 10, dpo_norm about 2",
          above(0.0));
  const PreferenceLoss* row = preference_losses().find(loss);
  const auto field = [&](const char* name, double& value, const char* doc, const Rule<double>& rule) {
    if (row == nullptr || row->takes(name)) s.field(name, value, with_owners(name, doc), rule);
  };
  const Rule<double> below_half = {"in (0, .5)", [](double v) { return v > 0 && v < 0.5; }, {}};
  field("label_smoothing", label_smoothing, "share of pairs whose answers are taken to be exchanged",
        below_half);
  field("gamma", gamma, "margin that the chosen answer is to have", at_least(0.0));
  field("nll", nll,
        "weight of the chosen answer's mean -log p beside the loss, which keeps it likely; -1: 1 for orpo "
        "and cpo, 0 for the others",
        {"-1 or >= 0", [](double v) { return v == -1.0 || v >= 0.0; }, {}});
  field("desirable_weight", desirable_weight, "weight of answers that are called good", at_least(0.0));
  field("undesirable_weight", undesirable_weight, "weight of answers that are called bad", at_least(0.0));
  if (row == nullptr || row->asks_of_rows())
    s.field(
        "precompute", precompute,
        "compute what the reference says of each answer once, before the first step, and keep it beside the "
        "checkpoints: the reference is in memory only for that, and later epochs and restarts do not run it "
        "(not "
        "of kto, which asks about other pairs of prompt and answer in each epoch)");
}

double nll_weight(const PreferenceLoss& loss, const PreferenceOptions& options) {
  if (!loss.takes("nll")) return 0.0;
  return options.nll < 0.0 ? loss.nll : options.nll;
}

double logistic(double x) { return x >= 0 ? 1.0 / (1.0 + std::exp(-x)) : std::exp(x) / (1.0 + std::exp(x)); }
double log_logistic(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }
double logistic_slope(double x) { return logistic(x) * logistic(-x); }

PairValue on_margin(double value, double slope, double scale_chosen, double scale_rejected) {
  return {value, slope * scale_chosen, -slope * scale_rejected};
}

}  // namespace retort::distill
