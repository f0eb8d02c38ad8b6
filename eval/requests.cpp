#include "eval/requests.h"

#include <algorithm>
#include <variant>

#include "core/error.h"
#include "eval/python_text.h"

namespace retort::eval {
namespace {

// The begin token, or without one the token that ends a text: what every tokenizer names for GGUF.
int32_t begin_token(const data::Tokenizer& tokenizer) {
  for (const auto& [key, value] : tokenizer.gguf_metadata())
    if (key == "tokenizer.ggml.bos_token_id")
      if (const auto* id = std::get_if<uint32_t>(&value)) return static_cast<int32_t>(*id);
  const auto end = tokenizer.separator();
  check<DataError>(end.has_value(), "[eval] the tokenizer {} must have a begin or an end token",
                   tokenizer.name());
  return *end;
}

}  // namespace

RequestEncoder::RequestEncoder(const data::Tokenizer& tokenizer, int64_t window)
    : tokenizer_(tokenizer),
      before_(tokenizer.prefix()),
      before_text_(before_.empty() ? "" : tokenizer.decode(before_)),
      prefix_(before_.empty() ? begin_token(tokenizer) : before_.front()),
      window_(window) {
  check<ConfigError>(window > 0, "[eval] a window must have at least 1 token, got {}", window);
}

std::vector<int32_t> RequestEncoder::encode_whole(std::string_view text) const {
  std::vector<int32_t> ids = tokenizer_.encode(text);
  if (before_text_.empty() || !text.starts_with(before_text_))
    ids.insert(ids.begin(), before_.begin(), before_.end());
  return ids;
}

TokenRequest RequestEncoder::encode(const Request& request, const std::string& where) const {
  TokenRequest out;
  const std::string_view context = without_trailing_space(request.context);
  const std::string continuation = request.context.substr(context.size()) + request.continuation;
  if (context.empty()) {
    out.context = {prefix_};
    out.continuation = tokenizer_.encode(continuation);
    if (!out.continuation.empty() && out.continuation.front() == prefix_)
      out.continuation.erase(out.continuation.begin());
  } else {
    out.context = encode_whole(context);
    const std::vector<int32_t> whole = encode_whole(std::string(context) + continuation);
    const auto begin = std::min(out.context.size(), whole.size());
    out.continuation.assign(whole.begin() + static_cast<std::ptrdiff_t>(begin), whole.end());
  }
  const int64_t tokens = std::ssize(out.continuation);
  check<DataError>(tokens > 0, "{}: a continuation must have at least one token, got \"{}\"", where,
                   request.continuation);
  check<DataError>(tokens <= window_, "{}: a continuation must fit the window of {} tokens, got {}", where,
                   window_, tokens);
  if (const int64_t over = std::ssize(out.context) + tokens - window_ - 1; over > 0)
    out.context.erase(out.context.begin(), out.context.begin() + over);
  return out;
}

std::vector<TokenRequest> RequestEncoder::encode_rolling(std::string_view text,
                                                         const std::string& where) const {
  const std::vector<int32_t> ids = encode_whole(text);
  check<DataError>(!ids.empty(), "{}: a text must have at least one token", where);
  const auto part = [&](int64_t begin, int64_t end) {
    return std::vector<int32_t>(ids.begin() + begin, ids.begin() + end);
  };
  const int64_t size = std::ssize(ids), first = std::min(window_, size);
  std::vector<TokenRequest> out = {{{prefix_}, part(0, first)}};
  for (int64_t done = first; done < size;) {
    const int64_t end =
        done + std::min(window_, size - done);  // the last window reaches back for its context
    out.push_back({part(end - window_ - 1, done), part(done, end)});
    done = end;
  }
  return out;
}

std::vector<int32_t> RequestEncoder::encode_prompt(std::string_view text, int64_t room) const {
  std::vector<int32_t> ids = encode_whole(text);
  check<ConfigError>(room < window_, "[eval] new tokens must be fewer than the window of {}, got {}", window_,
                     room);
  if (const int64_t over = std::ssize(ids) - (window_ - room); over > 0)
    ids.erase(ids.begin(), ids.begin() + over);
  return ids;
}

}  // namespace retort::eval
