// What counts of an answered document, how documents become one number, and its standard error, as
// lm-evaluation-harness has it (docs/evaluation.md, "Metrics"). Metrics and aggregations are rows. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/registry.h"
#include "eval/log_likelihood.h"

namespace retort::eval {

// What a metric says of one document: a value, and its weight or a second one where the aggregation takes two.
struct Score {
  double value = 0, other = 0;
  bool operator==(const Score&) const = default;
};

// An answered document, as far as metrics look.
struct Answered {
  std::vector<LogLikelihood> answers = {};  // of each choice; or one
  std::vector<std::string> choices = {};    // without the delimiter
  size_t gold = 0;                          // the right choice
  int64_t words = 0, bytes = 0;             // of a rolling text
  bool matches = false;                     // of what was generated
};

struct Metric {
  std::string name, aggregation;
  std::vector<std::string> output_types;
  Score (*of)(const Answered& document);
  bool serves(const std::string& output_type) const;
};
const Registry<Metric>& metrics();

enum class ErrorKind { kMean, kBootstrap, kNone };

struct Aggregation {
  std::string name;
  double (*of)(std::span<const Score> scores);
  ErrorKind error;
};
const Registry<Aggregation>& aggregations();

// NaN where there is none. `resamples`: of a bootstrap; 0: no errors at all.
double standard_error(const Aggregation& aggregation, std::span<const Score> scores, int64_t resamples);

}  // namespace retort::eval
