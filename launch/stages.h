// The kinds of stage, one function and one row each. A body runs on every rank of `comm`, writes below
// `directory`, and returns what result.json keeps; figures that the report knows are
//   stored, expanded (parameters), file_bytes, bits_per_byte, tokens, seconds
// tokens and seconds count the stages that the model comes from too: what it took to get there.
#pragma once

#include <atomic>
#include <optional>
#include <string>

#include "comm/comm.h"
#include "core/file.h"
#include "core/log.h"
#include "core/registry.h"
#include "data/token_shards.h"
#include "formats/json.h"
#include "kernels/cpu_tuning.h"
#include "launch/model_address.h"
#include "recipes/recipe.h"

namespace retort::launch {

struct StageContext {
  const recipes::Recipe& recipe;
  const recipes::Stage& stage;
  Path run;              // the run's directory
  Path directory;        // the stage's
  std::string identity;  // the stage as text, without what may differ between equal runs: checkpoints keep it
  comm::Comm& comm;
  int64_t threads;  // of this process
  const kernels::CpuTuning& tuning;
  FileSystem& files;
  Log& log;
  const std::atomic<bool>& stop;
  Path resume_from;  // a checkpoint that this training stage continues when it has none of its own; or ""
};

struct StageOutcome {
  formats::Json result;
  bool preempted = false;
};

struct StageBody {
  std::string name;     // of recipes::stage_kinds()
  bool continues;       // finds its own earlier work in its directory
  std::string product;  // a file in the directory that is printed when the stage is done or skipped; or ""
  StageOutcome (*run)(StageContext&);
};
const Registry<StageBody>& stage_bodies();

StageOutcome tokenizer_stage(StageContext& context);
StageOutcome prepare_stage(StageContext& context);
StageOutcome train_stage(StageContext& context);
StageOutcome capture_stage(StageContext& context);
StageOutcome quantize_stage(StageContext& context);
StageOutcome export_stage(StageContext& context);
StageOutcome generate_stage(StageContext& context);
StageOutcome report_stage(StageContext& context);

// The token shards that data.train or data.validation names; `part` is "train" or "validation".
std::shared_ptr<const data::TokenShards> open_shards(const StageContext& context,
                                                     const std::string& reference, const std::string& part);
// Validation figures of the model's map, with {} when there is no validation text.
formats::Json evaluate(const StageContext& context, models::Model& model, models::WeightMap& map,
                       comm::Comm& comm);
// Stored and expanded parameters.
formats::Json parameter_counts(const models::Model& model);
// Tokens and seconds of the stage that `reference` names; zero for other references.
struct Spent {
  int64_t tokens = 0;
  double seconds = 0;
};
Spent spent_before(const StageContext& context, const std::string& reference);
std::optional<formats::Json> read_result(const Path& run, const std::string& stage);

}  // namespace retort::launch
