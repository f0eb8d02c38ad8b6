#include "recipes/claim.h"

namespace retort::recipes {

void BarOptions::describe(Section& s) {
  s.field("says", says, "the bar in words");
  s.field("arm", arm, "the stage that it is about");
  s.field("against", against, "the stage that it is compared with");
  s.field("reference", reference, "recovery: the stage that has nothing to recover");
  s.field("figure", figure, "a number of the stages' result.json");
  s.field(
      "of", of,
      "difference: arm - against; ratio: arm / against; recovery: (against - arm) / (against - reference)",
      one_of({"difference", "ratio", "recovery"}));
  s.field("is", is, "how the mean over seeds stands to value; within: its size is at most value",
          one_of({"at_most", "at_least", "within"}));
  s.field("value", value, "the bar");
}

ClaimOptions::ClaimOptions() : figures({"bits_per_byte"}) {}

void ClaimOptions::describe(Section& s) {
  s.field("says", says, "the claim in words");
  s.field("seeds", seeds, "the whole recipe runs once for each, in DIR/seed-N");
  s.field("shared", shared,
          "stages that run once, in DIR/shared with the first seed, and serve all seeds: a teacher does not "
          "change "
          "with its students");
  s.field("arms", arms, "rows of the table, stages; empty: every stage that has the first figure");
  s.field("figures", figures, "columns of the table, numbers of the stages' result.json");
  s.list("bars", bars, "what must come out");
}

}  // namespace retort::recipes
