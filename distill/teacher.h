// A teacher is a source of signals about a batch, and objectives ask nothing else of it: hidden states with
// their heads (from a live model, or a mixture of several), or a few labels a token (from a cache). Signals
// carry no gradient. Neither the optimizer nor a checkpoint holds anything of a teacher. Each rank has its
// own; one thread uses it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/section.h"
#include "data/batch_stream.h"
#include "distill/teacher_cache.h"
#include "kernels/linear_loss.h"
#include "models/model.h"

namespace retort::distill {

struct TeacherSignal {
  kernels::TeacherSignal rows = {};         // N = B T rows in the batch's order
  std::vector<models::LayerTap> taps = {};  // of the layers that were asked for, in that order
};

// What a teacher's signals hold, which the losses must fit.
struct SignalKind {
  std::string name = "dense";  // heads; "sampled", "top_k": labels (distill/teacher_cache.h)
  int64_t size = 0;            // draws, or k
  double temperature = 1.0;    // at which the labels were made
  bool operator==(const SignalKind&) const = default;
};

// Layers whose states can be compared with a student's; most teachers have none to show.
struct LayerShape {
  int64_t count = 0, width = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
};
LayerShape layer_shape(const models::DecoderSpec& spec);  // no layers of a byte-patch model

class Teacher {
 public:
  virtual ~Teacher() = default;
  // `layers`: whose states to add, each below layers().count.
  virtual TeacherSignal signal(const data::Batch& batch, const std::vector<int64_t>& layers) = 0;
  virtual SignalKind kind() const { return {}; }
  virtual LayerShape layers() const { return {}; }
  // Whether ranks divide its weights, so that all of them must ask it as often.
  virtual bool asked_together() const { return false; }
  // As Objective::not_repeatable() (train/objective.h).
  virtual std::string not_repeatable() const { return "the teacher's labels or weights come from the host"; }
  virtual int64_t vocabulary() const = 0;  // columns of its distributions, without padding
};

// Why a teacher of this context cannot show layers for rows of so many tokens; "" when it can.
std::string row_misfit(int64_t context, int64_t tokens);

// A name for a model's working weights, for caches: 16 hex digits. Take it while the weights are f32, so that
// it does not depend on the precision of a machine's products.
std::string fingerprint(const models::Parameters& parameters);

// A loaded model. Its working weights may be bf16 and must be finite (NonFiniteError); masters that are other
// tensors are freed. Rows longer than its context are read in windows, whose first tokens see little before
// them.
std::unique_ptr<Teacher> make_live_teacher(std::unique_ptr<models::Model> model);

// The labels of caches, one for each source of the batches. The caller has checked that each cache is of its
// source's text.
std::unique_ptr<Teacher> make_cached_teacher(std::vector<std::shared_ptr<const TeacherCache>> caches);

// A live teacher's share of a mixture: one weight, or one for each source of the batches.
struct Share {
  std::unique_ptr<Teacher> teacher;
  std::vector<double> weights;
};
std::unique_ptr<Teacher> make_mixed_teacher(std::vector<Share> shares);

}  // namespace retort::distill
