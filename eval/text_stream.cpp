#include "eval/text_stream.h"

#include <algorithm>

#include "core/error.h"
#include "data/tokenizers/utf8.h"

namespace retort::eval {
namespace {

// The length of the longest end of `text` with which a stop text begins.
size_t begun(std::string_view text, const std::vector<std::string>& stops) {
  size_t longest = 0;
  for (const std::string& stop : stops)
    for (size_t length = std::min(text.size(), stop.size() - 1); length > longest; --length)
      if (text.ends_with(std::string_view(stop).substr(0, length))) longest = length;
  return longest;
}

}  // namespace

TextStream::TextStream(const data::Tokenizer& tokenizer, std::vector<std::string> stops)
    : tokenizer_(tokenizer), stops_(std::move(stops)) {
  for (const std::string& stop : stops_) RETORT_ASSERT(!stop.empty());
}

std::string TextStream::push(int32_t id) {
  if (stopped_) return {};
  held_ += tokenizer_.token_bytes(id);
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, held_.find(stop));
  stopped_ = first != std::string::npos;
  if (!stopped_) return release(false);
  held_.resize(first);
  return release(true);
}

std::string TextStream::finish() { return stopped_ ? std::string() : release(true); }

// Takes from the front of held_ what can be printed.
std::string TextStream::release(bool all) {
  const size_t free = all ? held_.size() : held_.size() - begun(held_, stops_);
  std::string out;
  size_t at = 0;
  while (at < free) {
    const data::Utf8Part character = data::first_character(std::string_view(held_).substr(at));
    if (character.open && !all) break;
    out += character.valid ? held_.substr(at, character.bytes) : std::string(data::kReplacement);
    at += character.bytes;
  }
  held_.erase(0, std::min(at, held_.size()));
  return out;
}

}  // namespace retort::eval
