// What a quantized model is worth, beside its full precision: the tables that `retort quantize`, quantize
// stages and training on a grid end with.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "core/log.h"
#include "data/token_shards.h"
#include "eval/divergence.h"
#include "eval/perplexity.h"
#include "formats/json.h"
#include "quantize/post_training.h"
#include "quantize/report.h"
#include "recipes/stage_context.h"

namespace retort::recipes {

// The model as f32 values, without adapters or a grid: what post-training starts from. What was
// opened is replaced where it is anything else.
models::Model& make_plain(artifacts::OpenedModel& model);

// Windows of a block of the calibration text.
inline constexpr int64_t kCalibrationRows = 8;

// A way to put a model on grids after training.
struct PostTrainingJob {
  quantize::QuantizeOptions grids;
  quantize::PostTrainingOptions method;
  std::shared_ptr<const data::TokenShards> calibration;  // nullptr: none
  int64_t sequence = 0;                                  // tokens of a window of it
  std::optional<quantize::Importance> importance = {};
};

// Collective. Masters become values of the grids (quantize/post_training.h): rank 0 does the work and all
// have its numbers, since another machine's products may round otherwise. The map is rank 0's alone.
// Everything is checked before any work.
std::unique_ptr<quantize::CodesMap> put_on_grids(models::Model& model, const PostTrainingJob& job,
                                                 comm::Comm& comm, Log& log);

// The text that models are judged on.
struct JudgeText {
  std::shared_ptr<const data::TokenShards> shards;
  int64_t sequence = 0, limit = 0;
};

// One row of the model's table.
struct Judged {
  std::string name;
  double bits_per_weight = 32, packed_bytes = 0;  // of what is stored once
  std::optional<uint64_t> file_bytes = {};
  std::optional<eval::TextScore> score = {};
  std::optional<eval::Divergence> divergence = {};  // from full precision
};

// Collective. Both models' working weights are f32; without a text only the name and bits are filled in, and
// `reference` may be nullptr.
Judged judge(const std::string& name, models::Model* reference, models::Model& candidate,
             const std::vector<quantize::TensorReport>& tensors, const JudgeText& text, comm::Comm& comm);
// The full precision itself, for the first row.
Judged judge_reference(models::Model* reference, const JudgeText& text, comm::Comm& comm);
// Collective. What round to nearest and GPTQ make of `reference` on the job's grids, as rows; GPTQ where
// there is a calibration text, and the model is a stack of layers. `except`: the method that the job's own row shows.
std::vector<Judged> judge_baselines(models::Model& reference, PostTrainingJob job, const std::string& except,
                                    const JudgeText& text, comm::Comm& comm, Log& log);

// Collective. What training on a grid ended with: DIRECTORY/quantization.md, and bits_per_weight,
// packed_bytes, kl and agreement as figures. Full precision is the model that the stage started from, with
// round to nearest and GPTQ of it beside; of a new model it is the masters. `training`: what GPTQ is
// calibrated on, where it has a window. Without a validation text no models are compared.
formats::Json report_training(const StageContext& context, const models::Model& model,
                              quantize::PackingMap& map, std::shared_ptr<const data::TokenShards> training,
                              comm::Comm& comm, Log& log);

// Markdown: a row a tensor; a row a model.
std::string tensor_table(const std::vector<quantize::TensorReport>& tensors);
std::string model_table(const std::vector<Judged>& models);
// {"bits_per_weight", "packed_bytes", "kl", "agreement", and the score's figures}
formats::Json judged_json(const Judged& row, int64_t sequence);

}  // namespace retort::recipes
