#include "eval/results_json.h"

#include <cmath>

#include "core/error.h"
#include "core/sha256.h"
#include "eval/python_text.h"

namespace retort::eval {
namespace {

using formats::Json;

Json number_or_none(double value) { return std::isfinite(value) ? Json(value) : Json("N/A"); }

// As Python writes JSON with an indent of 2 and characters as they are.
std::string digest(const Json& document) {
  return sha256(document.dump(2, ' ', false, Json::error_handler_t::replace));
}

Json figures(const TaskResult& task) {
  Json out = {{"name", task.spec.task},
              {"alias", task.spec.task_alias.empty() ? task.spec.task : task.spec.task_alias},
              {"sample_len", task.prompts.size()}};
  for (const MetricResult& metric : task.metrics) {
    out[metric.name()] = number_or_none(metric.value);
    out[metric.metric + "_stderr," + metric.filter] = number_or_none(metric.error);
  }
  return out;
}

Json config_of(const TaskSpec& spec) {
  return {{"task", spec.task},
          {"test_split", spec.test()},
          {"fewshot_split", spec.shots_split()},
          {"doc_to_text", spec.doc_to_text},
          {"doc_to_target", spec.doc_to_target},
          {"doc_to_choice", spec.doc_to_choice},
          {"description", spec.description},
          {"target_delimiter", spec.target_delimiter},
          {"fewshot_delimiter", spec.fewshot_delimiter},
          {"num_fewshot", spec.num_fewshot},
          {"output_type", spec.output_type},
          {"metadata", {{"version", spec.metadata.version}}}};
}

// As Python prints True and False.
std::string flag(bool value) { return value ? "True" : "False"; }

// The answers to a document's requests, as the harness writes them: texts.
Json responses(const TaskResult& task, size_t i) {
  Json out = Json::array();
  if (task.spec.generates()) return Json::array({Json::array({task.generated[i]})});
  if (task.spec.rolling()) {
    double sum = 0;
    for (const LogLikelihood& window : task.answers[i]) sum += window.nats;
    return Json::array({Json::array({fmt::format("{}", sum)})});
  }
  for (const LogLikelihood& answer : task.answers[i])
    out.push_back(Json::array({Json::array({fmt::format("{}", answer.nats), flag(answer.greedy)})}));
  return out;
}

Json arguments(const TaskResult& task, const Prompt& prompt) {
  Json out = Json::object();
  if (task.spec.rolling()) return {{"gen_args_0", {{"arg_0", prompt.target}}}};
  for (size_t k = 0; k < prompt.requests.size(); ++k) {
    Json& one = out[fmt::format("gen_args_{}", k)];
    one["arg_0"] = prompt.requests[k].context;
    if (task.spec.generates())
      one["arg_1"] = {{"until", task.spec.generation_kwargs.until},
                      {"max_gen_toks", task.spec.generation_kwargs.max_gen_toks},
                      {"do_sample", false}};
    else
      one["arg_1"] = prompt.requests[k].continuation;
  }
  return out;
}

Json sample(const TaskResult& task, size_t i, const std::string& filter) {
  const Prompt& prompt = task.prompts[i];
  const Json said = responses(task, i);
  const bool number = task.spec.multiple_choice() && is_digits(prompt.target);
  const std::string first = task.spec.rolling() ? prompt.target : prompt.requests.front().context;
  Json out = {{"doc_id", i},
              {"doc", prompt.document.fields},
              {"target", number ? Json(prompt.gold) : Json(prompt.target)},
              {"arguments", arguments(task, prompt)},
              {"resps", said}};
  Json taken = Json::array();
  if (task.spec.generates())
    taken.push_back(task.filtered.at(filter)[i]);
  else
    for (const Json& one : said) taken.push_back(one.at(0));
  out["filtered_resps"] = std::move(taken);
  out["filter"] = filter;
  out["metrics"] = Json::array();
  out["doc_hash"] = digest(prompt.document.fields);
  out["prompt_hash"] = sha256(first);
  out["target_hash"] = sha256(prompt.target);
  for (const MetricResult& metric : task.metrics) {
    if (metric.filter != filter) continue;
    out["metrics"].push_back(metric.metric);
    const Score& score = metric.scores[i];
    const bool pair = task.spec.rolling() || metric.metric == "mcc";
    out[metric.metric] = pair ? Json::array({score.value, score.other}) : Json(score.value);
  }
  return out;
}

}  // namespace

Json results_json(const std::vector<TaskResult>& tasks, const RunFacts& facts) {
  Json out = {{"results", Json::object()},  {"group_subtasks", Json::object()},
              {"configs", Json::object()},  {"versions", Json::object()},
              {"n-shot", Json::object()},   {"higher_is_better", Json::object()},
              {"n-samples", Json::object()}};
  for (const TaskResult& task : tasks) {
    const std::string& name = task.spec.task;
    out["results"][name] = figures(task);
    out["group_subtasks"][name] = Json::array();
    out["configs"][name] = config_of(task.spec);
    out["versions"][name] = task.spec.metadata.version;
    out["n-shot"][name] = task.spec.num_fewshot;
    for (const MetricResult& metric : task.metrics)
      out["higher_is_better"][name][metric.metric] = metric.higher_is_better;
    out["n-samples"][name] = {{"original", task.documents}, {"effective", task.prompts.size()}};
  }
  out["config"] = {{"model", "retort"},
                   {"model_args", "pretrained=" + facts.model},
                   {"model_num_parameters", facts.parameters},
                   {"model_dtype", facts.dtype},
                   {"limit", facts.limit > 0 ? Json(facts.limit) : Json()},
                   {"bootstrap_iters", facts.resamples},
                   {"fewshot_seed", 1234}};
  out["date"] = facts.date;
  out["max_length"] = facts.window;
  out["model_source"] = "retort";
  out["model_name"] = facts.model;
  out["chat_template"] = facts.chat_template.empty() ? Json() : Json(facts.chat_template);
  out["chat_template_sha"] = facts.chat_template.empty() ? Json() : Json(sha256(facts.chat_template));
  out["total_evaluation_time_seconds"] = fmt::format("{}", facts.seconds);
  return out;
}

std::string sample_lines(const TaskResult& task) {
  std::string out;
  std::vector<std::string> filters;
  for (const auto& [filter, answers] : task.filtered) filters.push_back(filter);
  if (filters.empty()) filters = {"none"};
  for (const std::string& filter : filters)
    for (size_t i = 0; i < task.prompts.size(); ++i)
      out += sample(task, i, filter).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  return out;
}

}  // namespace retort::eval
