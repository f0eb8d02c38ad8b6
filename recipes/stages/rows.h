// The rows of the table of stage kinds, and what several of them share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "recipes/stage_kind.h"

namespace retort::recipes {

StageKind tokenizer_stage();
StageKind prepare_stage();
StageKind train_stage();
StageKind capture_stage();
StageKind answers_stage();
StageKind quantize_stage();
StageKind export_stage();
StageKind evaluate_stage();
StageKind generate_stage();
StageKind report_stage();

// Sections that several kinds take.
SectionKind model_section();
SectionKind data_section();
SectionKind quantize_section();
SectionKind parallel_section();
SectionKind export_section();

Input model_input(const Stage& stage);                   // model.from
std::vector<Input> training_inputs(const Stage& stage);  // data.train, or each of data.mixture
Input validation_input(const Stage& stage);              // data.validation

// Figures of a model's text, size and history.
std::vector<std::string> model_figures(std::vector<std::string> more = {});

}  // namespace retort::recipes
