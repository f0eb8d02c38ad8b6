// What a distilled stage costs with a live teacher and with a cached one, for the recipe at hand: operations,
// bytes on disk, memory. Arithmetic on shapes and sizes; nothing is run.
#pragma once

#include <optional>
#include <string>

#include "distill/capture.h"
#include "models/decoder_spec.h"
#include "recipes/distill_options.h"
#include "recipes/recipe.h"

namespace retort::recipes {

struct DistillCost {
  double tokens = 0;                     // that the student is trained on
  double corpus_tokens = 0;              // of data.train; 0: not known yet
  double student_flops = 0;              // a token, forward and backward
  double teacher_flops = 0;              // a token, forward; of all teachers
  double teacher_bytes_f32 = 0;          // weights of all teachers
  double vocabulary = 0;                 // of the text, or the student's
  double batch_tokens = 0;               // of a micro-batch
  distill::CaptureOptions capture = {};  // of the stage's cache, else the defaults
  double labels = 0;                     // a token; expected
};

// How many ids of `draws` differ: about 1.05 sqrt(draws) on bytes and 1.7 sqrt(draws) on subwords, as
// measured on models of text (2.4, 3.5 and 7.4 for 5, 10 and 50 draws; 12.1 for 50). Of top_k: k.
double expected_labels(const distill::CaptureOptions& capture, int64_t vocabulary);

// A table of text, one line a row, each indented by two.
std::string distill_cost_table(const DistillCost& cost);

// The shapes of a train stage's model and of one of its teachers, and the tokens that it trains on; nothing, and 0, where
// only files that are not there yet know.
std::optional<models::DecoderSpec> student_shape(const Recipe& recipe, const Stage& stage);
std::optional<models::DecoderSpec> teacher_shape(const Recipe& recipe, const Stage& stage,
                                                 const TeacherOptions& teacher);
double trained_tokens(const Recipe& recipe, const Stage& stage);

// Of a train stage with a distill section; nothing when only files know the shape of the teacher or student.
std::optional<DistillCost> distill_cost(const Recipe& recipe, const Stage& stage);

// What a capture stage is expected to cost, as a line; "" when the teacher's shape is not known.
std::string capture_plan(const Recipe& recipe, const Stage& stage, int64_t ranks = 0);

}  // namespace retort::recipes
