// What a kind of stage checks its keys with: the recipe, the stage, and rules that several kinds share. Findings
// are collected, so that one check shows all. Of files, shapes, tokenizers and what lies where are read; what is
// wrong with them is missing_files()'s to say.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "artifacts/export_misfits.h"
#include "models/decoder_spec.h"
#include "quantize/quantize_map.h"
#include "recipes/recipe.h"
#include "recipes/stage_kind.h"

namespace retort::recipes {

struct Finding {
  std::string stage;              // "" for the run as a whole
  std::vector<std::string> keys;  // where it shows first, then what else takes part
  std::string text;
};

class StageCheck {
 public:
  // `ranks`: of the launch; 0: as many as the stage's parallel.ranks. `alone`: a stage outside of a run, which is
  // told where to write (run_alone.h).
  StageCheck(const Recipe& recipe, const Stage& stage, int64_t ranks, bool alone,
             std::vector<Finding>& findings)
      : recipe(recipe), stage(stage), ranks(ranks), alone(alone), findings_(findings) {}
  const Recipe& recipe;
  const Stage& stage;
  const int64_t ranks;
  const bool alone;

  void add(std::vector<std::string> keys, std::string text) {
    findings_.push_back({stage.name, std::move(keys), std::move(text)});
  }
  void add(const char* key, std::string text) { add(std::vector<std::string>{key}, std::move(text)); }
  // Of an error that begins with a recipe's key: "model.heads must be ...".
  void add_key_error(const ConfigError& error, const char* also);

  void demand_model();  // model.from names one
  // The model at an address, which a key names, has a tokenizer for the text of another key. `instead`: "; ..." of
  // what does without.
  void demand_tokenizer(const char* key, const char* model_key, const std::string& address,
                        const std::string& instead = "");
  void demand_training();  // data.train or data.mixture names shards
  void check_limit();      // data.limit leaves a row
  // The texts of run.text or of a key that comes instead: one at least, and each has a path.
  void demand_texts(const char* key, const std::vector<std::string>& texts);
  // The shape of the stage's model where the recipe knows it; data.sequence fits its context.
  std::optional<models::DecoderSpec> model_spec();
  // A model has a row for each token of the shards of data.train; what is beyond the tokenizer's is padding.
  void check_vocabulary(const models::DecoderSpec& spec, const std::vector<std::string>& keys);
  // A model reads the tokenizer that the text of data.train was made with, as far as both are known. `of_bytes`: what
  // helps where that is bytes.
  void check_reads(const std::vector<std::string>& keys, const std::string& model, const char* of_bytes = "");
  // Texts that the model at an address is to continue, as far as its tokenizer and context are known.
  void check_prompts(const char* key, const std::vector<std::string>& prompts, const std::string& model,
                     const std::optional<models::DecoderSpec>& spec);
  // A prompt of so many tokens of a row lies within it, and leaves the model room for an answer; one of 0 ends where
  // the text says that a document's answer begins.
  void check_given(const char* key, int64_t prompt, const std::optional<models::DecoderSpec>& spec);
  // The stage's export section fits the model that it starts from. `grids`: that the file holds, where the
  // model's own are not meant.
  void check_export(const std::optional<quantize::QuantizeOptions>* grids = nullptr);
  // Grids fit the model's tensors.
  void check_grids(const models::DecoderSpec& spec, const quantize::QuantizeOptions& grids);

 private:
  void check_early(const Stage& source, const quantize::QuantizeOptions& trained);

  std::vector<Finding>& findings_;
};

// Tokens of a tokenizer that can be opened, or that a stage of the recipe will make at most.
std::optional<int64_t> tokenizer_size(const Recipe& recipe, const std::string& address);

// That which a model will read: of the text that a stage trains it on, or its own; nullptr: none, or not known.
std::unique_ptr<data::Tokenizer> tokenizer_of(const Recipe& recipe, const std::string& address);

// The shape of a model, through stages, presets and files; nothing when it is not known yet.
std::optional<models::DecoderSpec> spec_of(const Recipe& recipe, const Stage& stage);
std::optional<models::DecoderSpec> spec_of(const Recipe& recipe, const std::string& address);

}  // namespace retort::recipes
