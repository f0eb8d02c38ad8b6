#include "eval/answers.h"

#include <algorithm>
#include <deque>
#include <numeric>

#include "comm/together.h"
#include "core/error.h"
#include "data/templates/text.h"
#include "data/tokenizers/utf8.h"
#include "eval/generate.h"
#include "eval/python_text.h"
#include "eval/text_stream.h"
#include "formats/json.h"

namespace retort::eval {
namespace {

constexpr size_t kPrompts = 8;  // that share a cache: as many as a product for few rows serves

// Of some prompts; what was generated without marks of control, up to the first stop text.
formats::Json answers_of(models::Model& model, const data::Tokenizer& tokenizer,
                         const std::vector<std::vector<int32_t>>& prompts, const GenerationSpec& options,
                         const std::vector<int32_t>& ends) {
  std::deque<TextStream> streams;
  for (size_t i = 0; i < prompts.size(); ++i) streams.emplace_back(tokenizer, options.until);
  GenerateHooks hooks;
  hooks.ends = ends;
  hooks.on_token = [&](size_t row, int32_t id) {
    streams[row].push(id);
    return !streams[row].stopped();
  };
  formats::Json out = formats::Json::array();
  for (const Continuation& one : generate(model, prompts, {.tokens = options.max_gen_toks}, hooks)) {
    std::vector<int32_t> ids;
    std::copy_if(one.ids.begin(), one.ids.end(), std::back_inserter(ids),
                 [&](int32_t id) { return !tokenizer.is_special(id); });
    std::string text = tokenizer.decode(ids);
    data::check_utf8(text, "replace", "");
    for (const std::string& stop : options.until) text.resize(std::min(text.size(), text.find(stop)));
    out.push_back(text);
  }
  return out;
}

std::string lower(const std::string& text) {
  data::jinja::Heap heap({});
  data::jinja::Buffer out(heap);
  data::jinja::add_case(out, text, data::jinja::Case::kLower);
  return std::string(out.view());
}

}  // namespace

std::vector<std::string> generate_answers(models::Model& model, const data::Tokenizer& tokenizer,
                                          const RequestEncoder& encoder,
                                          const std::vector<std::string>& prompts,
                                          const GenerationSpec& options, const std::vector<int32_t>& ends,
                                          comm::Comm& comm) {
  std::vector<std::vector<int32_t>> ids;
  for (const std::string& prompt : prompts)
    ids.push_back(encoder.encode_prompt(prompt, options.max_gen_toks));
  std::vector<size_t> order(prompts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return ids[a].size() > ids[b].size(); });
  const auto ranks = static_cast<size_t>(comm.size());
  const size_t batches = (prompts.size() + kPrompts - 1) / kPrompts;
  const auto batch = [&](size_t b) {
    return std::span(order).subspan(b * kPrompts).first(std::min(kPrompts, order.size() - b * kPrompts));
  };
  std::vector<std::string> texts(batches);
  comm::together(comm, [&] {
    for (auto b = static_cast<size_t>(comm.rank()); b < batches; b += ranks) {
      std::vector<std::vector<int32_t>> some;
      for (const size_t i : batch(b)) some.push_back(ids[i]);
      texts[b] = answers_of(model, tokenizer, some, options, ends).dump();
    }
  });
  std::vector<std::string> out(prompts.size());
  for (size_t b = 0; b < batches; ++b) {
    const auto answers =
        formats::parse_json(comm.broadcast_text(texts[b], static_cast<int>(b % ranks)), "answers");
    size_t at = 0;
    for (const size_t i : batch(b)) out[i] = answers.at(at++).get<std::string>();
  }
  return out;
}

AnswerFilter::AnswerFilter(const FilterSpec& spec) : name_(spec.name) {
  for (const FilterStep& step : spec.filter)
    if (step.function == "regex") steps_.push_back({step, data::Regex(step.regex_pattern)});
}

std::string AnswerFilter::operator()(const std::string& generated) const {
  std::string text = generated;
  for (const auto& [spec, regex] : steps_) {
    const auto matches = regex.find_all(text);
    const int64_t count = std::ssize(matches), at = spec.group_select + (spec.group_select < 0 ? count : 0);
    std::string found = spec.fallback;
    if (at >= 0 && at < count) {
      const auto& match = matches[static_cast<size_t>(at)];  // the whole, then groups
      const size_t first = match.size() == 1 ? 0 : 1;
      const auto group =
          std::find_if(match.begin() + static_cast<std::ptrdiff_t>(first), match.end(),
                       [&](std::string_view one) { return match.size() <= 2 || !one.empty(); });
      if (group != match.end()) found = without_outer_space(*group);
    }
    text = std::move(found);
  }
  return text;
}

AnswerMatch::AnswerMatch(const MetricSpec& spec) : spec_(spec) {
  for (const std::string& pattern : spec.regexes_to_ignore) ignored_.emplace_back(pattern);
}

std::string AnswerMatch::plain(std::string text) const {
  for (const data::Regex& one : ignored_) text = one.replace_all(text, "");
  if (spec_.ignore_case) text = lower(text);
  const auto is_punctuation = [](char c) {
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
  };
  if (spec_.ignore_punctuation) std::erase_if(text, is_punctuation);
  if (spec_.ignore_numbers) std::erase_if(text, [](char c) { return c >= '0' && c <= '9'; });
  return text;
}

bool AnswerMatch::operator()(const std::string& answer, const std::string& target) const {
  return plain(answer) == plain(target);
}

}  // namespace retort::eval
