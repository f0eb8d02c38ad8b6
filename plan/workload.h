// What a rank's memory depends on, as numbers: the model's counts, what a token keeps, the batch. Made from models that
// hold no values. Pure functions; any thread.
#pragma once

#include <vector>

#include "kernels/chunk_rows.h"
#include "models/model.h"
#include "plan/backward_pass.h"
#include "plan/gathered.h"
#include "plan/parameter_count.h"
#include "plan/saved_copy.h"

namespace retort::plan {

struct Batch {
  int64_t rows = 1, sequence = 1;  // of a micro-batch
  int64_t micro_batches = 1;       // of a rank in a step
  int64_t ranks = 1;
  int64_t replicas = 1;                                // groups of ranks
  int64_t shards() const { return ranks / replicas; }  // ranks that divide
  bool documents = false;                              // isolated
  int64_t tokens() const { return rows * sequence; }
};

struct Head {
  double width = 0, columns = 0;  // D and V, without padding
  double rows = 0;                // of the matrix, padding included
  bool trained = true;
  bool tied = false;
  bool softcap = false;
};

struct TeacherLoad {
  double weights = 0;  // bytes
  double width = 0, columns = 0;
  bool bf16 = false;
  bool softcap = false;
  double forward = 0;      // bytes a token of its forward pass
  Gathered gathered = {};  // where ranks divide its weights
};

struct Workload {
  ParameterCount parameters;
  Gathered gathered = {};  // nothing: parallel.shard: parameters is not for this model
  BackwardPass pass = {};
  std::vector<SavedTensor> saved = {};
  Head head;
  Batch batch;
  std::vector<TeacherLoad> teachers;  // live ones
  bool bf16 = false;
  bool on_device = false;     // its kernels make the loss: of one kind, alone or beside cross-entropy
  bool on_grid = false;       // working weights are values of a grid, not the masters
  bool distills = false;      // the loss compares with a teacher, live or cached
  double labels = 0;          // of a cache, a token
  bool validates = false;     // judged beside the step, in f32
  bool starts_whole = false;  // before ranks divide its weights
  bool copies_saves = false;  // to the memory that is planned
  bool saves_midway = false;  // and steps go on beside the copy
  bool graph = false;         // of micro-batches (train/micro_graph.h), unless weights are gathered
  double kept = 0;            // bytes of activations a token
  double backward = 0;        // bytes a token on top of them
  double forward = 0;         // bytes a token of a pass without gradients
  double tables = 0;          // bytes of rotary tables
  double element() const { return bf16 ? 2.0 : 4.0; }
};

struct Precision {
  bool bf16 = false, on_grid = false, rounded_inputs = false;
  std::string base = "f32";  // of a frozen base: a row of models/frozen_codes.h
};

// `model` may be on at::kMeta; with its adapters and scales, as it is trained. No teachers yet.
Workload workload_of(models::Model& model, const Batch& batch, const Precision& precision);
TeacherLoad teacher_of(const models::Model& teacher, bool bf16);

// The logits that the loss makes.
kernels::LogitShape logits_of(const Workload& work);

}  // namespace retort::plan
