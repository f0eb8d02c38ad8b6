// A student that starts from its teacher: layers by a rule, widths by slicing (Minitron, Muralidharan et al.
// 2024, arXiv 2407.14679, section 2). No gradient is needed, only the teacher's activations on some samples:
//
//   importance of a part x = sqrt(sum over samples of (mean over tokens of |x|)^2)
//     channel of the residual stream   x: the outputs of all norms, summed; one choice for all layers
//     attention head                   x: the length of its output; key/value groups are kept whole by their
//                                      heads' sum, and in each group its best heads
//     feed-forward neuron              x: what ffn.down reads; each layer its own choice
//
// What is kept stays in the teacher's order, so a student of the teacher's own shape is the teacher bit for
// bit. Instead of channels the residual stream's principal components can be kept (SliceGPT, Ashkboos et al.
// 2024, arXiv 2401.15024): embeddings and whatever writes to the stream are projected onto them, whatever
// reads it from them, with the norm's weights folded in. RMS norms see only lengths, which the components
// keep, so with all of them the student computes what its teacher does. A tensor that layers share starts as
// the layer of its first use has it; low-rank adapters start as the best approximation of what each use's own
// layer differs by (truncated SVD, as in Bae et al. 2024, arXiv 2410.20672). D width, H heads, G kv heads, K
// head_dim, F ffn_width. One thread. Throws ConfigError naming the key of a size that does not fit.
#pragma once

#include <string>
#include <vector>

#include "core/section.h"
#include "models/model.h"

namespace retort::distill {

struct InitOptions {
  std::string from = "teacher";                   // distill.teacher.model, or a MODEL
  std::vector<std::string> layers = {"uniform"};  // first, uniform, or the teacher's layers by number
  std::string width = "importance";               // importance, first, principal
  int64_t samples = 64;                           // rows of data.train that importance is measured on
  void describe(Section& s);
};

// The teacher's parts, f64: the higher, the sooner kept.
struct Importance {
  at::Tensor channels_D;
  at::Tensor moments_DD = {};  // of the stream as norms scale it, before their weights; for `principal`
  std::vector<at::Tensor> heads_H, neurons_F;  // of each executed layer
};

// Runs the teacher over each block of tokens; a row is a sample.
Importance measure_importance(models::Model& teacher, const std::vector<models::TokenBlock>& samples,
                              bool moments = false);
// Keeps the first of everything.
Importance importance_by_order(const models::DecoderSpec& teacher);

// ConfigError "model.KEY must ..." for a student that cannot be cut from this teacher.
void check_start(const models::DecoderSpec& student, const models::DecoderSpec& teacher,
                 const InitOptions& options);
// The teacher's layer, of the executed ones, that each of the student's starts from. Checked options.
std::vector<int64_t> layer_map(int64_t student_layers, int64_t teacher_layers, const InitOptions& options);
// Sets every master of the student from the teacher's working weights (f32). A teacher with adapters is
// merged first (models/adapters.h).
void start_student(models::Model& student, const models::Model& teacher, const InitOptions& options,
                   const Importance& importance);

}  // namespace retort::distill
