// Prompts and their continuations to stdout: one prompt as it comes, several when they are done, or as JSON;
// ids when there is no text.
#include <iostream>
#include <iterator>

#include "comm/comm.h"
#include "eval/complete.h"
#include "kernels/cpu_tuning.h"
#include "launch/model_address.h"
#include "launch/verbs.h"
#include "train/precision.h"

namespace retort::launch {
namespace {

using formats::Json;

bool write(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return std::fflush(stdout) == 0;  // a closed pipe ends it
}

// One prompt's line; text is there unless ids are all that is known.
std::string json_line(Json line, const std::vector<int32_t>& prompt, const eval::Continuation& tokens) {
  line.update({{"prompt_ids", prompt},
               {"ids", tokens.ids},
               {"finish", eval::finish_name(tokens.finish)},
               {"first_token_seconds", tokens.first_seconds},
               {"tokens_per_second", tokens.tokens_per_second()}});
  return line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

void continue_ids(const OpenedModel& model, const GenerateArguments& arguments) {
  eval::GenerateHooks hooks;
  hooks.ends = model.ends();
  hooks.on_token = [&](size_t, int32_t id) { return arguments.json || write(fmt::format("{} ", id)); };
  const std::vector<int32_t> prompt(arguments.ids.begin(), arguments.ids.end());
  const eval::Continuation out = eval::generate(*model.decoder, {prompt}, arguments.sampling, hooks).front();
  write(arguments.json ? json_line(Json::object(), prompt, out) : "\n");
}

void continue_texts(const OpenedModel& model, const GenerateArguments& arguments) {
  const data::Tokenizer& tokenizer = model.need_tokenizer();
  std::vector<std::string> prompts = arguments.prompts;
  check<ConfigError>(!prompts.empty(), "generate needs --prompt or --ids");
  for (std::string& prompt : prompts)
    if (prompt == "-") prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  const bool streams = prompts.size() == 1 && !arguments.json;
  if (streams) write(prompts[0]);
  const std::vector<eval::Completion> all = eval::complete(
      *model.decoder, tokenizer, prompts, arguments.sampling,
      [&](size_t, std::string_view text) { return !streams || write(text); }, model.ends());
  if (streams) write("\n");
  for (size_t i = 0; i < all.size() && !streams; ++i)
    write(arguments.json
              ? json_line({{"prompt", prompts[i]}, {"text", all[i].text}}, all[i].prompt, all[i].tokens)
              : prompts[i] + all[i].text + "\n");
}

}  // namespace

ExitCode generate_verb(const GenerateArguments& arguments) {
  const kernels::CpuTuning tuning = kernels::tune_cpu();  // the same products as in a run
  Log log;
  const OpenedModel model = open_model(arguments.model, "", arguments.sampling.seed, log);
  const auto comm = comm::make_self_comm();
  models::bind_working(model.decoder->parameters(), model.map(),
                       train::choose_precision(arguments.precision, *comm, log, [&] { return tuning; }));
  if (arguments.ids.empty())
    continue_texts(model, arguments);
  else
    continue_ids(model, arguments);
  return ExitCode::kDone;
}

}  // namespace retort::launch
