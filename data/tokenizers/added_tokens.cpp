#include "data/tokenizers/added_tokens.h"

#include <algorithm>

#include "data/tokenizers/unicode.h"

namespace retort::data {
namespace {

bool space(char32_t c) { return character_classes()[c] == CharacterClass::kSpace; }

Character last_character(std::string_view text) {  // of a text that is not empty
  const char* const end = text.data() + text.size();
  for (size_t back = std::min<size_t>(4, text.size()); back > 1; --back)
    if (const Character c = decode_utf8(end - back, end); c.bytes == back) return c;
  return decode_utf8(end - 1, end);
}

bool ends_with_word(std::string_view text) { return !text.empty() && is_word(last_character(text).value); }
bool starts_with_word(std::string_view text) {
  return !text.empty() && is_word(decode_utf8(text.data(), text.data() + text.size()).value);
}

size_t spaces_at_end(std::string_view text) {
  size_t size = text.size();
  while (size > 0) {
    const Character c = last_character(text.substr(0, size));
    if (!space(c.value)) break;
    size -= c.bytes;
  }
  return text.size() - size;
}
size_t spaces_at_start(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Character c = decode_utf8(text.data() + at, text.data() + text.size());
    if (!space(c.value)) break;
    at += c.bytes;
  }
  return at;
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(const std::vector<AddedToken>& tokens) : tokens_(tokens) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.text.empty(); });
  for (const AddedToken& token : tokens_) {
    by_text_[token.text] = &token;
    lengths_[static_cast<unsigned char>(token.text[0])].push_back(token.text.size());
  }
  for (std::vector<size_t>& lengths : lengths_) {
    std::sort(lengths.begin(), lengths.end(), std::greater<>());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  }
}

AddedTokenFinder::Match AddedTokenFinder::find(std::string_view text, size_t from) const {
  for (size_t at = from; at < text.size(); ++at) {
    for (const size_t length : lengths_[static_cast<unsigned char>(text[at])]) {
      if (length > text.size() - at) continue;
      if (const auto found = by_text_.find(text.substr(at, length)); found != by_text_.end())
        return {at, found->second};
    }
  }
  return {};
}

bool AddedTokenFinder::ends(std::string_view text) const {
  return std::any_of(tokens_.begin(), tokens_.end(),
                     [&](const AddedToken& token) { return text.ends_with(token.text); });
}

std::vector<AddedStretch> AddedTokenFinder::cut(std::string_view text) const {
  std::vector<AddedStretch> out;
  size_t done = 0;
  for (size_t from = 0; !empty();) {
    const Match match = find(text, from);
    if (match.token == nullptr) break;
    const AddedToken& token = *match.token;
    size_t begin = match.begin, end = begin + token.text.size();
    from = end;
    if (token.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end))))
      continue;
    // White space that the token before took along stays with it.
    if (token.lstrip) begin = std::max(begin - spaces_at_end(text.substr(0, begin)), done);
    if (token.rstrip) end += spaces_at_start(text.substr(end));
    if (begin >= end) continue;  // nothing is left of it
    if (done < begin) out.push_back({done, begin, -1});
    out.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) out.push_back({done, text.size(), -1});
  return out;
}

}  // namespace retort::data
