// A verb that is a stage by itself: `retort quantize` runs a stage of kind quantize. Its flags are keys of the
// stage's sections (flag_section.h); a few have a name of their own. The parser keeps pointers into a StageVerb,
// which stays where it is made.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include "core/error.h"
#include "launch/flag_section.h"
#include "recipes/recipe.h"

namespace retort::launch {

class StageVerb {
 public:
  StageVerb(CLI::App& app, const char* kind);
  StageVerb(const StageVerb&) = delete;
  StageVerb& operator=(const StageVerb&) = delete;

  CLI::App& app;
  recipes::Stage stage;
  recipes::RunOptions run;

  // Keys of a section as flags: those of `only`, or all but those of `without`.
  template <class Options>
  void flags(Options& options, std::set<std::string> only = {}, std::set<std::string> without = {}) {
    flags_.push_back(std::make_unique<FlagSection>(app, std::move(only), std::move(without)));
    options.describe(*flags_.back());
  }
  // One key under a name of its own, "MODEL" or "--text".
  CLI::Option* option(const char* key, const char* name, std::string& value, const std::string& doc);
  void model();                        // MODEL is model.from
  void sequence();                     // --sequence; by default the model's context
  void seed(const char* doc);          // --seed is run.seed
  void threads(const char* doc);       // --threads is run.threads
  void directory(const char* doc);     // --out DIR
  CLI::Option* outs(const char* doc);  // --out PATH, one or more
  void json();                         // --json FILE: the figures

  void verify() const;  // after parsing: ConfigError for a value that breaks a rule
  ExitCode operator()() const;

 private:
  std::vector<std::unique_ptr<FlagSection>> flags_;
  std::map<std::string, std::string> names_;  // of keys whose flag is called otherwise
  std::vector<std::string> outs_;
  std::string directory_, json_;
};

}  // namespace retort::launch
