#include "recipes/distill_options.h"

#include "recipes/address.h"
#include "train/precision.h"

namespace retort::recipes {

void TeacherOptions::describe(Section& s) {
  s.field("kind", kind,
          "kind of teacher. live: model runs beside the student; self: the weights that the stage begins "
          "with do, "
          "never quantized; cached: labels that a capture stage has kept",
          one_of({"live", "self", "cached"}));
  s.field("model", model,
          fmt::format("model that teaches: {}; cached: the one whose labels they must be", kModelForms));
  s.field(
      "cache", cache,
      "directory of labels, or stage:NAME of a capture stage (cached); one for each source of data.train");
  s.field("precision", precision, "precision of the teacher's products", one_of(train::precision_names()));
  s.field("bridge", bridge,
          "bridge between vocabularies (live); bytes: a model of any tokenizer teaches a student of bytes, "
          "by the "
          "distribution of the next byte",
          one_of({"none", "bytes"}));
}

void MixedTeacher::describe(Section& s) {
  teacher.describe(s);
  s.field("weight", weight, "weight of the teacher, relative to the sum of all", at_least(0.0));
  s.field("source_weights", source_weights,
          "weights of the teacher for each source of data.train, instead of weight");
}

std::vector<TeacherOptions> DistillOptions::all_teachers() const {
  if (teachers.empty()) return {teacher};
  std::vector<TeacherOptions> out;
  for (const MixedTeacher& one : teachers) out.push_back(one.teacher);
  return out;
}

void DistillOptions::describe(Section& s) {
  s.section("teacher", teacher, "source of the teacher's signal");
  s.list("teachers", teachers, "teachers instead of teacher, live ones, their distributions mixed");
  s.list("losses", losses, "losses whose weighted sum over the valid tokens is the objective");
  s.optional("on_policy", on_policy, "answers that the student writes itself; absent: the given ones alone");
}

}  // namespace retort::recipes
