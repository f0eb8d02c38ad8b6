// Runs a small recipe in a temporary directory on a text of its own, as `retort run` does, and gives back
// what it said and measured.
#pragma once

#include <gmock/gmock.h>

#include <fstream>

#include "artifacts/export_model.h"
#include "core/error.h"
#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/identity.h"
#include "recipes/model_options.h"
#include "recipes/pipeline.h"
#include "recipes/read_recipe.h"
#include "recipes/stage_context.h"
#include "tests/testing.h"
#include "train/checkpoint.h"

namespace retort::recipes {

class RecipeRun : public ::testing::Test {
 protected:
  RecipeRun() {
    std::ofstream text(directory_ / "a.txt");
    for (int i = 0; i < 200; ++i) text << "verse " << i << " of a small text of verses\n";
  }

  Recipe recipe(const std::string& yaml, std::vector<std::string> sets = {}) const {
    const auto lacks = [&](const char* key) {
      return std::none_of(sets.begin(), sets.end(), [&](auto& set) { return set.starts_with(key); });
    };
    if (lacks("run.text=")) sets.push_back("run.text=" + (directory_ / "a.txt").string());
    if (lacks("run.dir=")) sets.push_back("run.dir=" + (directory_ / "run").string());
    return parse_recipe(yaml, "small.yaml", sets);
  }
  // What reading it says; "" where it is a recipe.
  std::string refusal_of(const std::string& yaml, const std::vector<std::string>& sets) const {
    try {
      recipe(yaml, sets);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  }
  // What the run said.
  std::string run(const Recipe& recipe, const PipelineOptions& options = {}) {
    ::testing::internal::CaptureStderr();
    ::testing::internal::CaptureStdout();
    const auto comm = comm::make_self_comm();
    Log log;
    try {
      code_ = run_pipeline(recipe, options, *comm, local_files(), log, stop_);
    } catch (...) {
      ::testing::internal::GetCapturedStderr();
      ::testing::internal::GetCapturedStdout();
      throw;
    }
    return ::testing::internal::GetCapturedStderr() + ::testing::internal::GetCapturedStdout();
  }
  // Of a run that is to fail.
  std::string error_of(const Recipe& recipe, const PipelineOptions& options = {}) {
    try {
      run(recipe, options);
    } catch (const Error& error) {
      code_ = error.code();
      return error.what();
    }
    return "no error";
  }
  Path in_run(const std::string& path) const { return directory_ / "run" / path; }
  double figure(const std::string& stage, const std::string& name) const {
    return read_result(directory_ / "run", stage)->at(name).get<double>();
  }
  // The weights of a stage's newest checkpoint, as its manifest's digest.
  std::string weights_digest(const std::string& stage, const std::string& run = "run") const {
    const Path newest = train::list_checkpoints(directory_ / run / stage / "checkpoints").front();
    const formats::Json manifest = formats::read_json(newest / "manifest.json");
    for (const auto& file : manifest.at("manifest").at("files"))
      if (file.at("name") == "weights.safetensors") return file.at("xxh3");
    return "";
  }

  testing::TemporaryDirectory directory_;
  std::atomic<bool> stop_{false};
  ExitCode code_ = ExitCode::kInternal;
};

}  // namespace retort::recipes
