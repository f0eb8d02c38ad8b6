// The bytes of what a rank writes of a checkpoint, which train.save: async keeps a copy of in host memory (train/saver.h):
// masters and the optimizer's moments, of what ranks divide the rows that it owns, of what several have whole a part
// (models/written_rows.h). Pure functions.
#pragma once

#include "models/model.h"
#include "plan/owned_rows.h"

namespace retort::plan {

enum class Policy;
struct Batch;

struct SavedTensor {
  Rows rows;
  bool trained = true;
  bool matrix = false;   // in the working dtype
  bool grouped = false;  // whose working values ranks can divide
};

// All but what is borrowed, which checkpoints leave out.
std::vector<SavedTensor> saved_tensors(models::Model& model);
// The most that a rank writes. `copies`: matrices have working copies apart from their masters.
double saved_bytes(const std::vector<SavedTensor>& tensors, const Batch& batch, Policy policy, bool copies);

}  // namespace retort::plan
