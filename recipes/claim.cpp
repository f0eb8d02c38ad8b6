#include "recipes/claim.h"

namespace retort::recipes {

void BarOptions::describe(Section& s) {
  s.field("says", says, "bar in words");
  s.field("arm", arm, "stage that the bar is about");
  s.field("against", against, "stage that it is compared with");
  s.field("reference", reference, "stage that has nothing to recover (recovery)");
  s.field("figure", figure, "number of the stages' result.json");
  s.field(
      "of", of,
      "quantity that is judged. difference: arm - against; ratio: arm / against; recovery: (against - arm) / "
      "(against - reference)",
      one_of({"difference", "ratio", "recovery"}));
  s.field("is", is, "relation of the mean over seeds to value; within: its size is at most value",
          one_of({"at_most", "at_least", "within"}));
  s.field("value", value, "number that the quantity is held against");
}

ClaimOptions::ClaimOptions() : figures({"bits_per_byte"}) {}

void ClaimOptions::describe(Section& s) {
  s.field("says", says, "claim in words");
  s.field("seeds", seeds, "seeds that the recipe runs with, once each, in DIR/seed-N");
  s.field("shared", shared,
          "stages that run once, in DIR/shared with the first seed, and serve all seeds: a teacher does not "
          "change "
          "with its students");
  s.field("arms", arms, "stages that are rows of the table; empty: every stage that has the first figure");
  s.field("figures", figures, "columns of the table, numbers of the stages' result.json");
  s.list("bars", bars, "bars that must hold");
}

}  // namespace retort::recipes
