// The verbs, one file each: arguments in, exit code out; what a verb makes goes to stdout, all else to
// stderr. command_line.h fills the arguments. They throw the Error tree; main() catches.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/prepare.h"
#include "data/tokenizers/bpe_training.h"
#include "eval/sampling.h"

namespace retort::launch {

struct RunArguments {
  std::string recipe;
  std::vector<std::string> sets;
  std::string resume = "auto";  // auto | never | a checkpoint's path
  std::string only = {};        // a kind of stage: with what it needs, and nothing else
};
ExitCode run_verb(const RunArguments& arguments);

struct CaptureArguments {
  std::string recipe;
  std::vector<std::string> sets;
};
ExitCode capture_verb(const CaptureArguments& arguments);

struct CheckArguments {
  std::string recipe;
  std::vector<std::string> sets;
  int64_t ranks = 0;
};
ExitCode check_verb(const CheckArguments& arguments);

struct DataArguments {
  std::string out;
  data::PrepareOptions prepare;
};
ExitCode data_verb(const DataArguments& arguments);

struct GenerateArguments {
  std::string model;
  std::vector<std::string> prompts;  // one or more; "-" is stdin
  std::vector<int64_t> ids;          // instead of a prompt
  std::string precision = "fp32";
  bool json = false;
  eval::SamplingOptions sampling;
};
ExitCode generate_verb(const GenerateArguments& arguments);

struct EvalArguments {
  std::string model, text, json;
  int64_t sequence = 0, limit = 0;
};
ExitCode eval_verb(const EvalArguments& arguments);

struct LogitsArguments {
  std::string model, ids, out;
};
ExitCode logits_verb(const LogitsArguments& arguments);

struct ExportArguments {
  std::string model, format, type = "own", embedding_type = "same", out;
  bool activations = false;
};
ExitCode export_verb(const ExportArguments& arguments);

struct TokenizerArguments {
  std::string action;  // train | encode | decode
  std::string tokenizer, out;
  std::optional<std::string> text;  // an empty one is a text too
  std::vector<std::string> files;
  data::BpeTrainingOptions training;
  bool json = false;  // many texts at once
};
ExitCode tokenizer_verb(const TokenizerArguments& arguments);

struct QuantizeArguments {
  std::string model, scheme, calibration, text, fallback = "refuse", importance_out, json;
  std::string format = "auto";  // of a folder: auto, or one of artifacts::export_formats()
  std::vector<std::string> out;
  int64_t tokens = 65536, sequence = 0, limit = 0;
  bool act_order = false, clip_search = false, no_baselines = false;
};
ExitCode quantize_verb(const QuantizeArguments& arguments);

struct InspectArguments {
  std::string path;
  std::string shards = {}, tokenizer = {};  // what a teacher cache must fit
};
ExitCode inspect_verb(const InspectArguments& arguments);

struct RecipeArguments {
  std::string action;  // list | show | explain | docs
  std::string name;    // of a recipe or a key
};
ExitCode recipe_verb(const RecipeArguments& arguments);

}  // namespace retort::launch
