#include "eval/complete.h"

#include <algorithm>
#include <deque>

#include "core/error.h"
#include "eval/text_stream.h"

namespace retort::eval {
namespace {

// The prompt after the tokenizer's prefix, unless the prompt has it already.
std::vector<int32_t> begun(const data::Tokenizer& tokenizer, const std::string& prompt) {
  std::vector<int32_t> ids = tokenizer.encode(prompt);
  const std::vector<int32_t> prefix = tokenizer.prefix();
  if (ids.size() < prefix.size() || !std::equal(prefix.begin(), prefix.end(), ids.begin()))
    ids.insert(ids.begin(), prefix.begin(), prefix.end());
  return ids;
}

constexpr size_t kShown = 40;  // bytes of a prompt in an error

}  // namespace

std::string prompt_misfit(const data::Tokenizer& tokenizer, const std::string& prompt, int64_t context) {
  std::string misfit;
  try {
    misfit = length_misfit(std::ssize(begun(tokenizer, prompt)), context);
  } catch (const DataError& error) {  // a text that the vocabulary has no ids for
    misfit = error.what();
  }
  if (misfit.empty()) return "";
  return fmt::format("{:?}{}: {}", std::string_view(prompt).substr(0, kShown),
                     prompt.size() > kShown ? "..." : "", misfit);
}

std::vector<Completion> complete(models::Model& model, const data::Tokenizer& tokenizer,
                                 const std::vector<std::string>& prompts, const SamplingOptions& options,
                                 const std::function<bool(size_t prompt, std::string_view text)>& on_text,
                                 const std::vector<int32_t>& ends) {
  options.validate();
  std::vector<Completion> out;
  std::vector<std::vector<int32_t>> ids;
  std::deque<TextStream> streams;
  for (const std::string& prompt : prompts) {
    ids.push_back(begun(tokenizer, prompt));
    streams.emplace_back(tokenizer, options.stop);
    out.push_back({ids.back(), {}, {}});
  }
  std::vector<bool> ended(prompts.size());  // by on_text
  const auto say = [&](size_t row, const std::string& text) {
    out[row].text += text;
    if (!text.empty() && on_text && !ended[row]) ended[row] = !on_text(row, text);
    return !ended[row];
  };
  GenerateHooks hooks;
  hooks.ends = ends;
  if (const auto separator = tokenizer.separator()) hooks.ends.push_back(*separator);
  hooks.on_token = [&](size_t row, int32_t id) {
    const bool wanted = say(row, streams[row].push(id));
    return wanted && !streams[row].stopped();
  };
  std::vector<Continuation> continuations = generate(model, ids, options, hooks);
  for (size_t row = 0; row < out.size(); ++row) {
    out[row].tokens = std::move(continuations[row]);
    say(row, streams[row].finish());
  }
  return out;
}

}  // namespace retort::eval
