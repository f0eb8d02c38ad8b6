// What is done to text before it is cut, as the "normalizer" of a tokenizer.json describes it:
//   null | {"type": "NFC"} | {"type": "Prepend", "prepend": s} | {"type": "Sequence", "normalizers": [...]} |
//   {"type": "Replace", "pattern": {"String": s}, "content": s}
// Others are refused by name (DataError with `source`). Immutable; shared between threads.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"

namespace retort::data {

class Normalizer {
 public:
  Normalizer(const formats::Json& description, const std::string& source);
  bool empty() const { return steps_.empty(); }
  std::string apply(std::string_view text, bool goes_on = false) const;  // after other text: no Prepend
  bool composes() const;                                                 // NFC is a part
  std::string rule() const;  // one line for fingerprints: persistent

 private:
  enum class Kind { kNfc, kPrepend, kReplace };
  struct Step {
    Kind kind;
    std::string pattern, content;
  };
  void add(const formats::Json& description, const std::string& source);
  std::vector<Step> steps_;
  double growth_ = 1.0;
};

std::string replaced(std::string_view text, std::string_view pattern, std::string_view content);
// How many times longer a text may become when this replacement is done too: such rules in a row multiply, and a
// file of a few lines would fill the memory. DataError beyond 64 times.
double grown(double before, std::string_view pattern, std::string_view content, const std::string& source);

}  // namespace retort::data
