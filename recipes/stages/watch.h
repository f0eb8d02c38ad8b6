// What a train stage looks at besides its validation text, at validations: described tasks, whose figures join the
// validation's, and completions of prompts, which go into the log and DIRECTORY/samples.jsonl, a line a prompt:
// {"step", "prompt", "text"}. Of the map's f32 values; training's bits do not change. Figures have the same bits for
// every number of ranks. A step that is done again after a kill has its lines once. A look that fails is a warning and
// training goes on, unless its figure chooses the checkpoint.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "eval/sampling.h"
#include "recipes/stage_context.h"
#include "recipes/task_files.h"
#include "train/owners.h"

namespace retort::recipes {

struct WatchOptions {
  std::vector<std::string> tasks, prompts;
  std::string data;
  int64_t documents = 0, shots = -1, every = 0;
  std::string best;
  eval::SamplingOptions sampling = {};  // its seed is run.seed
  void describe(Section& s);
};
using WatchSection = std::optional<WatchOptions>;

// Whether what the stage makes depends on its watch section: a task chooses the checkpoint, or when to stop.
bool watch_decides(const Stage& stage);
// What its tasks read.
std::vector<Input> watch_inputs(const WatchOptions& options);
// "TASK.METRIC" of its tasks that can be read.
std::vector<std::string> watched_figures(const WatchOptions& options);

class Watch {
 public:
  // `ends`: tokens that end a text; `reads`: the model's context. Prompts that it cannot continue are left out with a
  // warning. Collective. ConfigError, IoError for tasks that cannot be run.
  Watch(const StageContext& context, const WatchOptions& options, std::unique_ptr<data::Tokenizer> tokenizer,
        std::vector<int32_t> ends, int64_t reads, comm::Comm& comm, Log& log);
  // Whether a validation after so many of `steps` updates looks at it.
  bool due(int64_t done, int64_t steps) const;
  // Collective. {"TASK.METRIC": its value}.
  formats::Json figures(models::Model& model, models::WeightMap& map, const train::Owners& owners,
                        int64_t done);
  // Collective. Rank 0 completes the prompts.
  void sample(models::Model& model, models::WeightMap& map, const train::Owners& owners, int64_t done);
  bool higher_is_better(const std::string& figure) const;

 private:
  formats::Json answer(models::Model& model, models::WeightMap& map, const train::Owners& owners);
  void complete(models::Model& model, int64_t done);

  const StageContext& context_;
  WatchOptions options_;
  std::vector<DescribedTask> tasks_;
  std::unique_ptr<data::Tokenizer> tokenizer_;
  std::vector<int32_t> ends_;
  comm::Comm& comm_;
  Log& log_;
};

}  // namespace retort::recipes
