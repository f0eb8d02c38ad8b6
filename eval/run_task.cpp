#include "eval/run_task.h"

#include "comm/together.h"
#include "core/error.h"
#include "eval/answers.h"
#include "eval/python_text.h"

namespace retort::eval {
namespace {

void answer_requests(TaskResult& result, const RequestEncoder& encoder, const TaskRun& run) {
  std::vector<TokenRequest> requests;
  std::vector<size_t> counts;
  comm::together(run.comm, [&] {
    for (const Prompt& prompt : result.prompts) {
      const size_t before = requests.size();
      if (result.spec.rolling())
        for (TokenRequest& window : encoder.encode_rolling(prompt.target, prompt.document.where))
          requests.push_back(std::move(window));
      for (const Request& request : prompt.requests)
        requests.push_back(encoder.encode(request, prompt.document.where));
      counts.push_back(requests.size() - before);
    }
  });
  const std::vector<LogLikelihood> answers = log_likelihoods(run.model, requests, run.comm);
  size_t at = 0;
  for (const size_t count : counts) {
    const auto begin = answers.begin() + static_cast<std::ptrdiff_t>(at);
    result.answers.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(count));
    at += count;
  }
}

// A rolling text is one answer: the sum of its windows.
LogLikelihood joined(const std::vector<LogLikelihood>& windows) {
  LogLikelihood out{0, true};
  for (const LogLikelihood& window : windows) {
    out.nats += window.nats;
    out.greedy = out.greedy && window.greedy;
  }
  return out;
}

Answered answered(const TaskResult& result, size_t i) {
  const Prompt& prompt = result.prompts[i];
  Answered out;
  out.choices = prompt.choices;
  out.gold = prompt.gold;
  if (result.spec.generates()) return out;
  out.answers = result.answers[i];
  if (!result.spec.rolling()) return out;
  out.answers = {joined(result.answers[i])};
  out.words = count_words(prompt.counted);
  out.bytes = std::ssize(prompt.counted);
  return out;
}

void add_metric(TaskResult& result, const MetricSpec& spec, const std::string& filter, int64_t resamples) {
  const Metric& metric = metrics().at(spec.metric);
  const Aggregation& aggregation =
      aggregations().at(spec.aggregation.empty() ? metric.aggregation : spec.aggregation);
  const AnswerMatch match(spec);
  MetricResult out{
      .metric = spec.metric, .filter = filter, .higher_is_better = spec.higher_is_better, .scores = {}};
  for (size_t i = 0; i < result.prompts.size(); ++i) {
    Answered document = answered(result, i);
    if (result.spec.generates())
      document.matches = match(result.filtered.at(filter)[i], result.prompts[i].target);
    out.scores.push_back(metric.of(document));
  }
  out.value = aggregation.of(out.scores);
  out.error = standard_error(aggregation, out.scores, resamples);
  result.metrics.push_back(std::move(out));
}

void generate(TaskResult& result, const RequestEncoder& encoder, const TaskRun& run) {
  std::vector<std::string> prompts;
  for (const Prompt& prompt : result.prompts) prompts.push_back(prompt.requests.front().context);
  result.generated = generate_answers(run.model, run.tokenizer, encoder, prompts,
                                      result.spec.generation_kwargs, run.ends, run.comm);
  const std::vector<FilterSpec> filters =
      result.spec.filter_list.empty() ? std::vector<FilterSpec>(1) : result.spec.filter_list;
  for (const FilterSpec& spec : filters) {
    const AnswerFilter filter(spec);
    auto& out = result.filtered[spec.name];
    for (const std::string& text : result.generated) out.push_back(filter(text));
  }
}

}  // namespace

std::vector<MetricSpec> metrics_of(const TaskSpec& spec) {
  if (!spec.metric_list.empty()) return spec.metric_list;
  std::vector<MetricSpec> out;
  const auto add = [&](const char* metric, bool higher) {
    out.emplace_back();
    out.back().metric = metric;
    out.back().higher_is_better = higher;
  };
  if (spec.rolling())
    for (const char* metric : {"word_perplexity", "byte_perplexity", "bits_per_byte"}) add(metric, false);
  else if (spec.generates())
    add("exact_match", true);
  else if (spec.multiple_choice())
    add("acc", true), add("acc_norm", true);
  else
    add("perplexity", false), add("acc", true);
  return out;
}

TaskResult run_task(const TaskSpec& spec, const TaskRun& run) {
  TaskResult result;
  result.spec = spec;
  comm::together(run.comm, [&] {
    auto [prompts, documents] = make_prompts(result.spec, run.prompts);
    result.prompts = std::move(prompts);
    result.documents = documents;
  });
  const RequestEncoder encoder(run.tokenizer, run.window > 0 ? run.window : run.model.context());
  if (spec.generates())
    generate(result, encoder, run);
  else
    answer_requests(result, encoder, run);
  const std::vector<MetricSpec> metrics = metrics_of(spec);
  if (!spec.generates()) {
    for (const MetricSpec& metric : metrics) add_metric(result, metric, "none", run.resamples);
    return result;
  }
  for (const auto& [filter, answers] : result.filtered)
    for (const MetricSpec& metric : metrics) add_metric(result, metric, filter, run.resamples);
  return result;
}

}  // namespace retort::eval
