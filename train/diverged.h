// Whether a run has come to numbers. What ends with weights or a validation loss that are not finite is no
// model, though a guard of steps (train/guard.h) need not have ended it: the updates that made it so were of
// finite gradients, and fewer than max_skipped steps were left after them.
#pragma once

#include <cstdint>

#include "comm/comm.h"
#include "train/train_options.h"
#include "train/trained.h"

namespace retort::train {

// Collective, the same on every rank: NonFiniteError that names the step, what is not finite and what may be
// changed. `validation_loss`: 0 where there is none. Frozen weights are as they came, and not looked at.
void refuse_diverged(const Trained& trained, double validation_loss, int64_t step,
                     const TrainOptions& options, comm::Comm& comm);

}  // namespace retort::train
