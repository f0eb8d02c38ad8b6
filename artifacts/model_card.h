// The README.md of an exported folder: front matter that the Hugging Face Hub reads, and for people what the model
// is, what it was trained from and on, and its measured figures. What is not known is left out. Pure; any thread.
// DataError where `training` is not as a checkpoint has it.
//
//   license, license_name, license_link, base_model   where they are known (origin.h)
//   base_model_relation                               "adapter" or "quantized", where the folder is one of these
//   library_name                                      "transformers" or "peft"
//   pipeline_tag                                      "text-generation"
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "artifacts/origin.h"
#include "formats/json.h"
#include "models/decoder_spec.h"

namespace retort::artifacts {

struct CardFigure {
  std::string name;
  double value = 0;
  double error = std::numeric_limits<double>::quiet_NaN();  // the standard error; NaN: none
};

// What only the caller of an export knows.
struct CardFacts {
  std::string name;                 // the title
  std::vector<CardFigure> figures;  // of the values that are exported
  std::optional<int64_t> tokens;    // that all of its stages were trained on
};

struct CardSubject {
  const Origin& origin;
  const CardFacts& facts;
  const models::DecoderSpec& spec;
  int64_t parameters;  // that the folder holds
  const formats::Json&
      training;         // a checkpoint's "train" (docs/formats.md); empty: the model was not trained here
  std::string library;  // "transformers"
  std::string relation = {};  // to the base model; "": the Hub's own guess
  std::string holds = {};     // a few words: "values in bf16"
};
std::string model_card(const CardSubject& subject);

// Of ours: it ends as every card does.
bool is_model_card(std::string_view text);

}  // namespace retort::artifacts
