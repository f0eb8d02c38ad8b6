// Losses on preferences, one file of distill/preferences/ and one row each: pure functions, in f64, of what
// the model says of whole answers. They know no tensors; distill/preference.h makes an objective of them.
//
//   l      sum of log p over an answer's n labels     m = l / n     h = l - (the reference's l)
//   pair   a chosen (c) and a rejected (r) answer to one prompt; D = h_c - h_r
//   rated  one answer, called good or bad
//
// Gradients are with respect to l. Sources: docs/preferences.md, where each formula has its paper.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/registry.h"
#include "core/section.h"

namespace retort::distill {

// What the model, and where there is one its reference, say of an answer.
struct Answer {
  double log_p = 0.0;
  int64_t tokens = 1;
  double reference = 0.0;  // its log_p
  double mean() const { return log_p / static_cast<double>(tokens); }
  double gain() const { return log_p - reference; }
  double mean_gain() const { return gain() / static_cast<double>(tokens); }
};

struct PreferenceOptions {
  std::string loss = {};  // a row of preference_losses()
  double beta = 0.1;
  // A recipe may write only those that the loss's row names.
  double label_smoothing = 0.1, gamma = 0.5, nll = -1.0;
  double desirable_weight = 1.0, undesirable_weight = 1.0;
  bool precompute = false;  // the reference's numbers are computed once and kept (distill/reference.h)
  void describe(Section& s);
};

struct PairValue {
  double value = 0.0, chosen = 0.0, rejected = 0.0;  // the loss, and its derivatives
};
struct RatedValue {
  double value = 0.0, derivative = 0.0;
};

struct PreferenceLoss {
  std::string name, formula;
  bool needs_reference = true;
  std::vector<std::string> parameters = {};  // beside beta
  double nll = 0.0;                          // the weight of -m_c beside the loss, unless the options say
  // One of the two.
  PairValue (*of_pair)(const Answer& chosen, const Answer& rejected, const PreferenceOptions&) = nullptr;
  RatedValue (*of_rated)(const Answer&, bool good, double baseline, const PreferenceOptions&) = nullptr;
  // Of the gains of answers to other prompts; nullptr: the baseline is 0 and none are asked for.
  double (*baseline)(std::span<const double> gains) = nullptr;
  double (*reward)(const Answer&, const PreferenceOptions&) = nullptr;  // what is logged; nullptr: beta h
  bool paired() const { return of_pair != nullptr; }
  bool takes(std::string_view parameter) const;
  // What it asks its reference about are the rows themselves, the same in every epoch.
  bool asks_of_rows() const { return needs_reference && baseline == nullptr; }
  double reward_of(const Answer& answer, const PreferenceOptions& o) const {
    return reward != nullptr ? reward(answer, o) : o.beta * answer.gain();
  }
};
const Registry<PreferenceLoss>& preference_losses();

// Weight of the chosen answer's -m beside the loss: the options', or the loss's own.
double nll_weight(const PreferenceLoss& loss, const PreferenceOptions& options);

// The logistic function, and log of it without overflow.
double logistic(double x);
double log_logistic(double x);
double logistic_slope(double x);  // its derivative

// Of a loss f(x) of x = scale_c l_c - scale_r l_r + a constant: the derivatives by f' = slope.
PairValue on_margin(double value, double slope, double scale_chosen, double scale_rejected);

}  // namespace retort::distill
