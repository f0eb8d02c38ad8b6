// What a stage reads, where it lies, what is wrong with it, and what represents it in the stage's identity: of
// another stage its result, of text and tokenizers what they hold, of larger files outside the run their names,
// sizes and times. Reads files; any thread. Throws IoError.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/token_shards.h"
#include "recipes/recipe.h"
#include "recipes/stage_kind.h"

namespace retort::recipes {

// Of what a file holds: 16 hex digits.
std::string digest_of_file(const Path& path);

// Where an input lies; `run` is the run's directory.
Path place_of(const Input& input, const Path& run);

// The shards that these have their tokenizer from: of answers those whose prompts they are to, else themselves.
std::string text_behind(const Recipe& recipe, std::string address);

// What is wrong with a file or directory outside the run; "" when nothing is, or a stage makes it.
std::string trouble_with(const Input& input);

// How the shards of an input are not of the kind that the stage reads: text, or what the loss of its preference
// section compares; "" where they are, or are not there yet.
std::string trouble_with_kind(const Recipe& recipe, const Stage& stage, const Input& input);

// Whether the shards of an address have a loss mask; nothing where it is not known yet.
std::optional<bool> says_what_is_learned(const Recipe& recipe, const std::string& address);
// Why the prompts of a text's documents cannot be what comes before the first token that is learned; "" where the text
// says what that is, or is not there yet.
std::string prompts_misfit(const std::string& text, std::optional<bool> says);

// A tokenizer as far as it is known: of one that a stage will make its address alone; no name: nothing.
struct KnownTokenizer {
  std::string name = {}, fingerprint = {};
};
// Whether ids mean different things to the two, for all that is known.
bool differ(const KnownTokenizer& a, const KnownTokenizer& b);
// That the shards of an input were made with, or will be.
KnownTokenizer tokenizer_of_shards(const Recipe& recipe, Input input);
// Why a text is not read together with the first one, that of another key; "" where it can be.
std::string tokenizers_misfit(const std::string& text, const KnownTokenizer& made,
                              const std::string& first_key, const KnownTokenizer& first);

// One line of a stage's identity, or several.
std::string state_of(const Input& input, const Path& run);

// The shards of an input; DataError, IoError.
std::shared_ptr<const data::TokenShards> open_shards(const Input& input, const Path& run);

// Opens all token shards that a stage reads, which must be of one vocabulary and of the kinds that it reads
// (DataError).
void open_all_shards(const Recipe& recipe, const Stage& stage);

}  // namespace retort::recipes
