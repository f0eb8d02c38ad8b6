// What lm-evaluation-harness computed on stories260K, from shared/data/eval (README there).
#pragma once

#include <sstream>

#include "core/file.h"
#include "data/tokenizers/tokenizer.h"
#include "eval/requests.h"
#include "formats/json.h"
#include "models/hf_folder.h"
#include "tests/testing.h"

namespace retort::testing {

inline Path stories_folder() { return test_data() / "models" / "stories260K" / "hf"; }

// The vocabulary as transformers 5 opens it: a LlamaTokenizer's rule for spaces is the class' own there, and
// tokenizer.json's normalizer is passed over. They differ after a token such as <unk> within a text.
inline std::unique_ptr<data::Tokenizer> harness_tokenizer() {
  formats::Json file = formats::read_json(stories_folder() / "tokenizer.json");
  file["normalizer"] = nullptr;
  file["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "always"}, {"split", false}};
  const TemporaryDirectory directory;
  write_durably(local_files(), directory / "tokenizer.json", file.dump());
  return data::open_tokenizer(directory / "tokenizer.json");
}

struct Stories {
  std::unique_ptr<models::Decoder> model = models::load_hf_folder(stories_folder());
  std::unique_ptr<data::Tokenizer> tokenizer = harness_tokenizer();
};

inline std::vector<formats::Json> golden_lines(const std::string& task) {
  std::vector<formats::Json> out;
  std::istringstream lines(read_text(test_data() / "eval" / (task + ".jsonl"), uint64_t{1} << 24));
  for (std::string line; std::getline(lines, line);) out.push_back(formats::parse_json(line, task));
  return out;
}

// A document's requests; none where the file does not tell which of several equal choices is which.
inline std::vector<eval::Request> golden_requests(const formats::Json& line) {
  const auto& contexts = line.at("contexts");
  const auto& continuations = line.at("continuations");
  std::vector<eval::Request> out;
  if (contexts.size() * continuations.size() != line.at("lls").size()) return out;
  for (const auto& context : contexts)
    for (const auto& continuation : continuations)
      out.push_back({context.get<std::string>(), continuation.get<std::string>()});
  return out;
}

}  // namespace retort::testing
