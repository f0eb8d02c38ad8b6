// The `distill` section of a recipe: teachers and losses. A teacher is
//   live     a MODEL that runs beside the student
//   self     the student's own start, in full precision
//   cached   labels of a capture stage; `model`, when it is named, must be the one that was captured
// Values; any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "distill/loss.h"
#include "distill/on_policy.h"

namespace retort::recipes {

struct TeacherOptions {
  std::string kind = "live", model = {}, precision = "auto", bridge = "none";
  std::vector<std::string> cache = {};
  void describe(Section& s);
};

// One of several: their distributions are mixed.
struct MixedTeacher {
  TeacherOptions teacher = {};
  double weight = 1.0;
  std::vector<double> source_weights = {};  // of each source of data.train, instead of weight
  void describe(Section& s);
};

struct DistillOptions {
  TeacherOptions teacher;
  std::vector<MixedTeacher> teachers;  // instead of teacher
  std::vector<distill::LossOptions> losses;
  std::optional<distill::OnPolicyOptions> on_policy;  // absent: the given answers alone
  std::vector<TeacherOptions> all_teachers() const;
  void describe(Section& s);
};

using DistillSection = std::optional<DistillOptions>;  // absent: cross-entropy

}  // namespace retort::recipes
