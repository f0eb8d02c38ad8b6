// The two ways in which servers of completions give the likeliest next tokens of a given text: what they are asked, and
// how their answers read. An answer is checked position by position, and DataError names the one that does not fit.
// A request for one text may answer all of its positions (vLLM) or one (llama.cpp). docs/distillation.md, "A served
// teacher". Pure functions; any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/registry.h"
#include "data/tokenizers/tokenizer.h"
#include "distill/http_client.h"
#include "formats/json.h"

namespace retort::distill {

// A text that the teacher reads from its start. Each of its ids is a position: that of the token after it.
struct Prompt {
  int64_t place = 0;         // of the first id in the corpus
  std::vector<int64_t> ids;  // all are read
  int64_t next = 0;          // the corpus's id after them; any id where there is none
};

// The likeliest ids of the positions of a block, and what the others hold.
struct TopK {
  TopK(int64_t positions, int64_t k);
  int64_t k;
  std::vector<uint32_t> ids;    // k a position
  std::vector<float> p;         // falling
  std::vector<uint16_t> count;  // of a position's ids; the rest of the k is unused
  std::vector<double> rest;
};

// What answers are held against.
struct Expectation {
  const data::Tokenizer& tokenizer;
  int64_t vocabulary;  // ids below it have a label
  int64_t k;           // ids of a position, at most the vocabulary
};

struct ServedModel {
  std::string name;
  std::string facts;  // all that the server says of the weights, as one line
  int64_t reads = 0;  // tokens at once; 0: not known
  int64_t slots = 0;  // requests at once; 0: not known
};

struct CompletionApi {
  std::string name;
  // Of a server that has a model of this name (ConfigError with the names that it has).
  ServedModel (*describe)(const std::function<formats::Json(const std::string& path)>& get,
                          const std::string& name);
  int64_t beyond;  // tokens that the server must be able to read beyond a text
  // Asks for positions of a prompt from `from` on.
  HttpRequest (*request)(const Prompt& prompt, int64_t from, int64_t slot, const std::string& model,
                         const Expectation& expected);
  // Writes their labels to `out` from row `row` on, which is position `from`'s, and returns how many they are.
  int64_t (*read)(const formats::Json& answer, const Prompt& prompt, int64_t from,
                  const Expectation& expected, TopK& out, int64_t row);
};

const Registry<CompletionApi>& completion_apis();

}  // namespace retort::distill
