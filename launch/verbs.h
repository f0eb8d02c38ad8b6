// The verbs that are no stage, one file each: arguments in, exit code out; what a verb makes goes to stdout, all
// else to stderr. command_line.h fills the arguments. They throw the Error tree; main() catches.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/preview.h"
#include "data/templates/render.h"
#include "recipes/chat.h"

namespace retort::launch {

struct RunArguments {
  std::string recipe;
  std::vector<std::string> sets = {};
  std::string resume = "auto";  // auto | never | a checkpoint's path
  bool strict = false;          // PipelineOptions::strict
  std::string comm = "auto";    // comm::comm_choices()
  std::string only = {};        // a kind of stage: with what it needs, and nothing else
  int64_t profile = 0;          // steps
};
ExitCode run_verb(const RunArguments& arguments);
// A warning where a process has more than twice as many threads as its machine processors; else "". 0: not known.
std::string excess_of_threads(int64_t threads, int64_t processors);

struct CheckArguments {
  std::string recipe;
  std::vector<std::string> sets;
  int64_t ranks = 0;  // as if launched with so many; 0: as the recipe says
};
ExitCode check_verb(const CheckArguments& arguments);

struct PlanArguments {
  std::string recipe;
  std::vector<std::string> sets = {};
  int64_t ranks = 0;           // 0: as the recipe says
  std::string device = "cpu";  // a row of plan/device.h
  bool json = false;
};
ExitCode plan_verb(const PlanArguments& arguments);

// A conversation with a model.
struct ChatArguments {
  std::string model;
  recipes::ChatOptions options = {};
};
ExitCode chat_verb(const ChatArguments& arguments);

struct LogitsArguments {
  std::string model, ids, out;
};
ExitCode logits_verb(const LogitsArguments& arguments);

struct InspectArguments {
  std::string path, shards = {}, tokenizer = {};
};
ExitCode inspect_verb(const InspectArguments& arguments);

// A conversation in a chat template.
struct RenderArguments {
  data::RenderOptions options;       // without what the files hold
  std::string messages, tools = {};  // JSON files
  bool json = false;
};
ExitCode render_verb(const RenderArguments& arguments);

// Documents of token shards, as they are trained.
struct PreviewArguments {
  std::string shards;
  data::PreviewOptions options;
};
ExitCode preview_verb(const PreviewArguments& arguments);

// Text to ids, or ids to text.
struct TokenizerArguments {
  std::string action, tokenizer;    // action: encode | decode
  std::vector<std::string> files;   // at most one; else stdin
  std::optional<std::string> text;  // instead of a file
  bool json = false;
};
ExitCode tokenizer_verb(const TokenizerArguments& arguments);

ExitCode devices_verb();

struct ReportArguments {
  std::vector<std::string> runs;
  std::string out = "report.html";
};
ExitCode report_verb(const ReportArguments& arguments);

struct RecipeArguments {
  std::string action, name;  // action: list | show | explain | docs
};
ExitCode recipe_verb(const RecipeArguments& arguments);

}  // namespace retort::launch
