// Prompt and continuation to stdout, as they come; ids when there is no text.
#include "eval/generate.h"
#include "kernels/cpu_tuning.h"
#include "launch/model_address.h"
#include "launch/verbs.h"

namespace retort::launch {

ExitCode generate_verb(const GenerateArguments& arguments) {
  kernels::tune_cpu();  // the same products as in a run
  Log log;
  const OpenedModel model = open_model(arguments.model, "", arguments.seed, log);
  const bool text = arguments.ids.empty();
  std::vector<int32_t> prompt(arguments.ids.begin(), arguments.ids.end());
  if (text) prompt = model.need_tokenizer().encode(arguments.prompt);
  const data::Tokenizer* tokenizer = text ? &model.need_tokenizer() : nullptr;
  const auto print = [&](int32_t id) {
    const std::string piece = tokenizer ? tokenizer->decode(std::vector{id}) : fmt::format("{} ", id);
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    return std::fflush(stdout) == 0;  // a closed pipe ends it
  };
  if (text) fmt::print("{}", arguments.prompt);
  eval::SamplingOptions sampling;
  sampling.tokens = arguments.tokens;
  sampling.temperature = arguments.temperature;
  sampling.top_p = arguments.top_p;
  sampling.seed = arguments.seed;
  eval::generate(*model.decoder, prompt, sampling, print);
  fmt::print("\n");
  return ExitCode::kDone;
}

}  // namespace retort::launch
