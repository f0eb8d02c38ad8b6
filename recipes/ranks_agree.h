// What the ranks of a run compare before any of them works (comm/agreement.h): the recipe as it was resolved, and,
// before each stage, what its inputs hold where this rank finds them. Reads files; any thread.
#pragma once

#include "comm/agreement.h"
#include "recipes/recipe.h"

namespace retort::recipes {

// Every key with its value, but for run.threads, which is of one process.
comm::Facts recipe_facts(const Recipe& recipe);

// Each input's key, with a digest of what it holds; "missing" where this rank sees nothing. Of token shards their
// digest, of a stage its result, of other files names, sizes and 16 samples each: another version of a
// model differs everywhere. Throws what opening them throws.
comm::Facts input_facts(const Recipe& recipe, const Stage& stage);

}  // namespace retort::recipes
