// The weights of a checkpoint as they are asked for (models/stored_model.h): views of its mapped file.
#pragma once

#include "models/stored_model.h"
#include "train/checkpoint.h"

namespace retort::train {

// CheckpointError unless their names and shapes are the model's, but for what it borrows, of which `base` has the values.
models::ParameterValues checkpoint_values(const LoadedCheckpoint& checkpoint,
                                          const models::Parameters& parameters, models::ParameterValues base);

}  // namespace retort::train
