// A teacher is a source of signals, and the objective asks nothing else of it: hidden states with a head
// (live), and later sparse labels (cached). Signals carry no gradient; a teacher is not in the optimizer or
// the checkpoint. One rank owns its teacher; one thread.
#pragma once

#include <memory>
#include <string>

#include "core/section.h"
#include "data/batch_stream.h"
#include "models/decoder.h"

namespace retort::distill {

struct TeacherSignal {
  at::Tensor hidden_ND;  // N = B T rows in the batch's order
  at::Tensor weight_VD;
  double softcap = 0.0;
};

class Teacher {
 public:
  virtual ~Teacher() = default;
  virtual TeacherSignal signal(const data::Batch& batch) = 0;
  virtual int64_t vocabulary() const = 0;
  virtual double flops_per_token(int64_t tokens) const = 0;  // forward only
};

// Names a model by its working weights, for caches: 16 hex digits. Take it while they are f32, so that the
// precision of a machine's products does not enter.
std::string fingerprint(const models::Parameters& parameters);

// A loaded model, no gradient. Its working weights may be bf16.
std::unique_ptr<Teacher> make_live_teacher(std::unique_ptr<models::Model> model);

}  // namespace retort::distill
