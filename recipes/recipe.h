// Everything that a run is, typed. A recipe is a list of stages that run one after another; without `stages:`
// it is one training stage. The sections at the top level are every stage's defaults: a stage reads the top
// level overlaid by its own keys, and each kind of stage takes the sections that it needs (stage_kinds()).
//
//   defaults < base: (one level) < the file < --set key=value        later ones win, key by key
//
// A MODEL is a checkpoint, a stage's or run's directory, a Hugging Face folder, a .gguf file, preset:NAME
// (random weights), or stage:NAME (an earlier stage of this recipe). Shards are a directory or stage:NAME.
// Values; any thread. recipes/read_recipe.h reads and checks them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "artifacts/export_model.h"
#include "core/registry.h"
#include "core/section.h"
#include "data/prepare.h"
#include "data/tokenizers/bpe_training.h"
#include "distill/capture.h"
#include "distill/loss.h"
#include "distill/student.h"
#include "eval/generate.h"
#include "models/decoder.h"
#include "quantize/post_training.h"
#include "quantize/quantize_map.h"
#include "recipes/claim.h"
#include "train/trainer.h"

namespace retort::recipes {

struct RunOptions {
  std::string name;  // read_recipe() sets it: the file's name
  std::string dir;   // and this: runs/NAME
  int64_t seed = 1;
  int64_t threads = 0;  // 0: all
  std::vector<std::string> text;
  void describe(Section& s);
};

struct ModelOptions {
  std::string from;                          // a MODEL; empty: a new one of this shape
  models::DecoderSpec choices;               // as written: 0 where a size follows from others
  std::optional<distill::InitOptions> init;  // weights of a new one; absent: random
  ModelOptions();
  models::DecoderSpec spec() const;  // with every size
  void describe(Section& s);
};

// One of several corpora that are trained on together.
struct SourceOptions {
  std::string train;
  double weight = 1.0;
  void describe(Section& s);
};

struct DataOptions {
  std::string train, validation;
  std::vector<SourceOptions> mixture;          // instead of train
  std::vector<SourceOptions> sources() const;  // the mixture, or train alone
  int64_t limit = 0, sequence = 256, batch_tokens = 16384, micro_batch = 8;
  bool isolate_documents = false;
  void describe(Section& s);
};

// live: `model` runs beside the student. self: so does the student's own start, in full precision. cached:
// labels of a capture stage; `model`, when it is named, must be the one that was captured.
struct TeacherOptions {
  std::string kind = "live", model = {}, precision = "auto", bridge = "none";
  std::vector<std::string> cache = {};
  void describe(Section& s);
};

// One of several: their distributions are mixed.
struct MixedTeacher {
  TeacherOptions teacher = {};
  double weight = 1.0;
  std::vector<double> source_weights = {};  // of each source of data.train, instead of weight
  void describe(Section& s);
};

struct DistillOptions {
  TeacherOptions teacher;
  std::vector<MixedTeacher> teachers;  // instead of teacher
  std::vector<distill::LossOptions> losses;
  std::vector<TeacherOptions> all_teachers() const;
  void describe(Section& s);
};

struct ParallelOptions {
  int64_t ranks = 1;
  void describe(Section& s);
};

using ExportOptions = artifacts::ExportOptions;

struct GenerateOptions {
  std::string prompt = "In the beginning";
  eval::SamplingOptions sampling;  // its seed is run.seed
  void describe(Section& s);
};

struct ReportOptions {
  std::vector<std::string> stages;
  void describe(Section& s);
};

// A stage with everything that it runs on: the top level and its own keys, overlaid.
struct Stage {
  std::string name = "train", kind = "train";
  ModelOptions model;
  data::BpeTrainingOptions tokenizer;
  data::PrepareOptions prepare;
  DataOptions data;
  train::TrainOptions train;
  std::optional<DistillOptions> distill;
  std::optional<quantize::QuantizeOptions> quantize;
  distill::CaptureOptions capture;
  quantize::PostTrainingOptions post_training;
  ParallelOptions parallel;
  ExportOptions exporting;
  GenerateOptions generate;
  ReportOptions report;
  std::string init_source() const;  // the MODEL that model.init names, or ""
  // The files that a prepare or tokenizer stage reads: its own, else run.text.
  const std::vector<std::string>& text(const RunOptions& run) const;
  void describe(Section& s);                                            // name, kind and what the kind takes
  void describe(Section& s, const std::vector<std::string>& sections);  // these sections
};

struct Recipe {
  RunOptions run;
  std::optional<ClaimOptions> claim;
  std::vector<Stage> stages;
  const Stage* find(const std::string& stage) const;
  void describe(Section& s);  // prints as a recipe that reads to itself
};

struct StageKind {
  std::string name;
  std::vector<std::string> sections;
  std::string doc;
};
const Registry<StageKind>& stage_kinds();
std::vector<std::string> all_sections();

// "stage:teacher" -> "teacher"; nothing for other references.
std::optional<std::string> stage_of(const std::string& reference);
std::optional<std::string> preset_of(const std::string& reference);  // "preset:NAME"
// The stages of a kind and, through inputs_of(), all that they need; in the recipe's order.
std::vector<std::string> needed_for(const Recipe& recipe, const std::string& kind);
// Training and capture do, and quantization that calibrates.
bool reads_training_text(const Stage& stage);
// The stages that a stage takes something from, in the order of its keys, each once.
std::vector<std::string> inputs_of(const Stage& stage);

// What a recipe file may hold at its top level: for documentation.
struct RecipeFile {
  std::string base;
  RunOptions run;
  std::optional<ClaimOptions> claim;
  Stage defaults;
  std::vector<Stage> stages;
  void describe(Section& s);
};

}  // namespace retort::recipes
