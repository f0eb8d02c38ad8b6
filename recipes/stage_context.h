// What a stage's body runs with, and what it leaves. It writes below `directory` and returns what result.json
// keeps; figures that the report knows are
//   stored, expanded (parameters), file_bytes, bits_per_byte, tokens, seconds
// tokens and seconds count the stages that the model comes from too: what it took to get there.
// One rank's; its parts outlive it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/comm.h"
#include "core/file.h"
#include "core/log.h"
#include "data/token_shards.h"
#include "formats/json.h"
#include "kernels/cpu_tuning.h"
#include "models/model.h"
#include "models/weight_map.h"
#include "recipes/model_address.h"
#include "recipes/recipe.h"
#include "recipes/stage_kind.h"

namespace retort::recipes {

// Work of a stage that differs in a smaller length alone.
struct ShorterWork {
  double length;  // StageKind::length
  Path checkpoints;
};

struct StageContext {
  const Recipe& recipe;
  const Stage& stage;
  Path run;              // the run's directory; "" for a stage by itself (run_alone.h)
  Path directory;        // the stage's
  std::string identity;  // the stage as text, without what may differ between equal runs: checkpoints keep it
  comm::Comm& comm;
  int64_t threads;                             // of this process
  std::function<kernels::CpuTuning()> tuning;  // measured when it is asked for, where nobody has
  at::Device device = at::kCPU;                // of the models that are trained and scored
  FileSystem& files;
  Log& log;
  const std::atomic<bool>& stop;
  Path resume_from = {};  // the checkpoint that a training stage without one of its own continues; or ""
  std::optional<ShorterWork> shorter = {};  // that it goes on from, where it has no checkpoint of its own
  // Takes what the stage prints, on rank 0; false when nobody reads it any more.
  std::function<bool(std::string_view)> print = {};

  // Of a stage by itself: the places that it writes its file to, instead of its directory.
  std::vector<Path> outs = {};

  bool strict = false;  // nothing is taken instead of a damaged checkpoint

  int64_t profile = 0;  // steps of which training tells where their time goes: train/profile.h

  // Where the stage's file goes: the first of `outs`, else its directory, or a file of that name in it.
  Path out(const char* file, bool is_file) const;
  bool alone() const { return run.empty(); }
  uint64_t seed() const { return static_cast<uint64_t>(recipe.run.seed); }
  // train::choose_precision() on the CPU; on a GPU auto is bf16. Collective.
  at::ScalarType precision(const std::string& wanted, comm::Comm& group, Log& to) const;
  artifacts::OpenedModel open_model(const std::string& address, Log& to) const;
  artifacts::OpenedStored open_stored(const std::string& address, Log& to) const;
  // The token shards that data.train or data.validation names; `part` is "train" or "validation".
  std::shared_ptr<const data::TokenShards> shards(const std::string& address, const std::string& part) const;
};

struct StageOutcome {
  formats::Json result = formats::Json::object();
  bool preempted = false;
};

// Validation figures of the model's map, with {} when there is no validation text. Collective.
formats::Json evaluate(const StageContext& context, models::Model& model, models::WeightMap& map,
                       comm::Comm& comm);
// Stored and expanded parameters.
formats::Json parameter_counts(const models::Model& model);

// Tokens and seconds of the stage that an address names; zero for other addresses.
struct Spent {
  int64_t tokens = 0;
  double seconds = 0;
};
Spent spent_before(const StageContext& context, const std::string& address);
std::optional<formats::Json> read_result(const Path& run, const std::string& stage);

}  // namespace retort::recipes
