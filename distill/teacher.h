// A teacher is a source of signals, and the objective asks nothing else of it: hidden states with their heads
// (live, one or a mixture), or sparse labels (cached). Signals carry no gradient; a teacher is not in the
// optimizer or the checkpoint. One rank owns its teacher; one thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/section.h"
#include "data/batch_stream.h"
#include "distill/teacher_cache.h"
#include "kernels/linear_loss.h"
#include "models/decoder.h"

namespace retort::distill {

// kernels/linear_loss.h; N = B T rows in the batch's order.
using TeacherSignal = kernels::TeacherSignal;

// What a teacher's signals hold, which losses must fit.
struct SignalKind {
  std::string name = "dense";  // heads; "sampled", "top_k": labels (distill/teacher_cache.h)
  int64_t size = 0;            // draws, or k
  double temperature = 1.0;    // that labels were made at
};

// Layers whose states can be compared with a student's; none for most teachers.
struct LayerShape {
  int64_t count = 0, width = 0;
};

class Teacher {
 public:
  virtual ~Teacher() = default;
  virtual TeacherSignal signal(const data::Batch& batch) = 0;
  virtual SignalKind kind() const { return {}; }
  virtual LayerShape layers() const { return {}; }
  // From now on signal() fills these in, of layers below layers().count; the last batch's are taps().
  virtual void tap(std::vector<models::LayerTap> /*wanted*/) {}
  virtual std::vector<models::LayerTap> taps() const { return {}; }
  virtual int64_t vocabulary() const = 0;  // padding included
};

// Names a model by its working weights, for caches: 16 hex digits. Take it while they are f32, so that the
// precision of a machine's products does not enter.
std::string fingerprint(const models::Parameters& parameters);

// A loaded model, no gradient. Its working weights, which must be finite (NonFiniteError), may be bf16;
// masters that are other tensors are let go. Rows longer than its context are read in windows of it: what
// comes first in a window has little before it.
std::unique_ptr<Teacher> make_live_teacher(std::unique_ptr<models::Model> model);

// The labels of caches, one for each source of the batches, which the caller has checked against their text.
std::unique_ptr<Teacher> make_cached_teacher(std::vector<std::shared_ptr<const TeacherCache>> caches);

// A live teacher's share of a mixture: one weight, or one for each source of the batches.
struct Share {
  std::unique_ptr<Teacher> teacher;
  std::vector<double> weights;
};
std::unique_ptr<Teacher> make_mixed_teacher(std::vector<Share> shares);

}  // namespace retort::distill
