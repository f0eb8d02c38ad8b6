// A student that starts as its teacher: layers are chosen by a rule, and widths are cut to the most important
// channels, heads and neurons (Minitron, Muralidharan et al. 2024, arXiv 2407.14679, section 2), or the
// residual stream is projected onto its principal components (SliceGPT, Ashkboos et al. 2024, arXiv
// 2401.15024). docs/distillation.md, "A student that begins as its teacher", says how. No gradient is needed,
// only the teacher's activations on some samples. D width, H heads, F ffn_width. One thread. Throws
// ConfigError naming the key of a size that does not fit.
#pragma once

#include <string>
#include <vector>

#include "core/section.h"
#include "models/model.h"

namespace retort::distill {

struct InitOptions {
  std::string from = "teacher";                   // distill.teacher.model, or a MODEL
  std::vector<std::string> layers = {"uniform"};  // first, uniform, or numbers of the teacher's layers
  std::string width = "importance";               // importance, first, principal
  int64_t samples = 64;                           // rows of data.train on which importance is measured
  void describe(Section& s);
};

// The importance of the teacher's parts, f64.
struct Importance {
  at::Tensor channels_D;
  at::Tensor moments_DD = {};  // of the stream as norms scale it, before their weights: for `principal`
  std::vector<at::Tensor> heads_H, neurons_F;  // of each executed layer
};

// Runs the teacher over each block of tokens; a row is a sample. `moments`: fill in moments_DD.
Importance measure_importance(models::Model& teacher, const std::vector<models::TokenBlock>& samples,
                              bool moments = false);
// The first of everything is the most important.
Importance importance_by_order(const models::DecoderSpec& teacher);

// ConfigError "model.KEY must ..." for a student that cannot be cut from this teacher.
void check_start(const models::DecoderSpec& student, const models::DecoderSpec& teacher,
                 const InitOptions& options);
// For each of the student's layers the teacher's executed layer that it starts from. Options are checked.
std::vector<int64_t> layer_map(int64_t student_layers, int64_t teacher_layers, const InitOptions& options);
// Sets every master of the student from the teacher's working weights (f32). The adapters of a teacher must
// be merged before (models/adapters.h).
void start_student(models::Model& student, const models::Model& teacher, const InitOptions& options,
                   const Importance& importance);

}  // namespace retort::distill
