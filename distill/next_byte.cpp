#include "distill/next_byte.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"

namespace retort::distill {

NextByte::NextByte(const data::Tokenizer& tokenizer) {
  const auto written = [&](int32_t id) {
    return tokenizer.is_special(id) ? std::string_view() : tokenizer.token_bytes(id);
  };
  const auto vocabulary = static_cast<int32_t>(tokenizer.vocabulary());
  size_t bytes = 0;
  for (int32_t id = 0; id < vocabulary; ++id) bytes += written(id).size();
  text_.reserve(bytes);  // so that the views stay valid
  for (int32_t id = 0; id < vocabulary; ++id) {
    const std::string_view token = written(id);
    if (token.empty()) continue;
    tokens_.push_back({{text_.data() + text_.size(), token.size()}, id});
    text_ += token;
  }
  check<DataError>(!tokens_.empty(), "[next byte] tokenizer {} has no token that writes text",
                   tokenizer.name());
  std::sort(tokens_.begin(), tokens_.end(), [](const Token& a, const Token& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.id < b.id;
  });
}

// Tokens that are u itself come first and are left out.
std::span<const NextByte::Token> NextByte::range(std::string_view u) const {
  const auto first = std::upper_bound(tokens_.begin(), tokens_.end(), u,
                                      [](std::string_view a, const Token& t) { return a < t.bytes; });
  const auto last =
      std::partition_point(first, tokens_.end(), [&](const Token& t) { return t.bytes.starts_with(u); });
  return {first, last};
}

void NextByte::log_probabilities(std::span<const float> logits, std::string_view u,
                                 std::span<float> out) const {
  const std::span<const Token> tokens = range(u);
  RETORT_ASSERT(!tokens.empty());
  // Relative to the greatest, in f64 and without a difference of large numbers: a ratio keeps its digits
  // however unlikely u is.
  double greatest = -std::numeric_limits<double>::infinity();
  for (const Token& t : tokens)
    greatest = std::max(greatest, static_cast<double>(logits[static_cast<size_t>(t.id)]));
  std::array<double, kByteValues> mass{};
  double all = 0;
  for (const Token& t : tokens) {
    const double p = std::exp(static_cast<double>(logits[static_cast<size_t>(t.id)]) - greatest);
    mass[static_cast<unsigned char>(t.bytes[u.size()])] += p;
    all += p;
  }
  for (size_t b = 0; b < mass.size(); ++b) {
    const auto log_p = static_cast<float>(std::log(mass[b] / all));
    out[b] = log_p < kNoByte ? kNoByte : log_p;  // unlike std::max this keeps a teacher's NaN
  }
}

}  // namespace retort::distill
