// A recipe's `train`: how long, how fast, and when things happen.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/section.h"
#include "train/guard.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace retort::train {

struct TrainOptions {
  int64_t steps = 1000;
  double epochs = 0.0;             // instead of steps; who makes the stream turns them into steps
  double clip_norm = 1.0;          // 0: no clipping
  std::string precision = "auto";  // auto | fp32 | bf16
  std::string init = "gpt2";
  double init_std = 0.0;
  double neftune = 0.0;  // EmbeddingNoise::alpha
  bool graph = true;     // train/micro_graph.h, on a device
  OptimizerOptions optimizer;
  ScheduleOptions schedule;
  int64_t log_every = 10;          // steps
  int64_t validate_every = 0;      // steps; 0: at the end only
  int64_t checkpoint_every = 100;  // steps
  int64_t keep_checkpoints = 2;
  std::string save = "async";  // of save_kinds()
  bool keep_best = false;
  int64_t patience = 0;
  int64_t max_skipped = 3;       // updates in a row before the run goes back, or stops (exit 77)
  int64_t max_failed_saves = 3;  // failed checkpoints in a row before the run stops (exit 74)
  std::optional<GuardOptions> guard;
  void describe(Section& s);
};

}  // namespace retort::train
