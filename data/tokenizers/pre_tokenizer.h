// How text is cut before tokens are merged, as the "pre_tokenizer" of a tokenizer.json describes it: null, or
// one of these, or a Sequence of them:
//   ByteLevel {add_prefix_space, use_regex}      the vocabulary is over bytes; cut by GPT-2's pattern
//   Split     {pattern: {String | Regex}, behavior, invert}
//   Digits    {individual_digits}
//   Metaspace {replacement, prepend_scheme | add_prefix_space, split}   spaces become "▁"
// What adds to the text (Metaspace, add_prefix_space) must come first. Others are refused by name (DataError
// with `source`). Immutable; shared between threads.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/splitter.h"
#include "formats/json.h"

namespace retort::data {

enum class Before { kNothing, kToken, kText };  // what precedes a text; kToken: an added one

class PreTokenizer {
 public:
  PreTokenizer(const formats::Json& description, const std::string& source);
  bool byte_level() const { return byte_level_; }
  // Whether prepare() does anything.
  bool adds() const { return prefix_ != Prefix::kNever || metaspace_; }
  // A leading space, and "▁" for spaces.
  std::string prepare(std::string_view text, Before before) const;
  // Appends where each piece of the prepared text ends; the last is its end.
  void split(std::string_view text, std::vector<size_t>& ends) const;
  std::string rule() const;  // one line for fingerprints: persistent
  bool prepends() const { return prefix_ != Prefix::kNever; }

 private:
  enum class Prefix { kNever, kFirst, kAlways };
  void add(const formats::Json& description, const std::string& source);
  void add_byte_level(const formats::Json& description, const std::string& source);
  void add_split(const formats::Json& description, const std::string& source);
  void add_metaspace(const formats::Json& description, const std::string& source);
  void first_only(const std::string& type, const std::string& source) const;

  bool byte_level_ = false, metaspace_ = false;
  Prefix prefix_ = Prefix::kNever;
  std::string space_ = " ";  // what a space is written as
  std::vector<std::unique_ptr<Splitter>> splitters_;
};

}  // namespace retort::data
