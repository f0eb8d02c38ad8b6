// How well a model predicts a text: a file, tokenized as the model's vocabulary wants, or a directory of
// shards.
#include <unistd.h>

#include "data/prepare.h"
#include "kernels/cpu_tuning.h"
#include "launch/model_address.h"
#include "launch/score.h"
#include "launch/verbs.h"

namespace retort::launch {
namespace {

// Shards of a text file, gone with the object.
class TemporaryShards {
 public:
  TemporaryShards(const std::string& text, const data::Tokenizer& tokenizer, Log& log)
      : directory_(std::filesystem::temp_directory_path() / fmt::format("retort-eval-{}", ::getpid())) {
    data::PrepareOptions options;
    options.tokenizer = tokenizer.name();
    options.text = {text};
    options.documents.format = "text";  // as it is, whatever it is called
    options.validation = 0.0;
    data::prepare(options, directory_, /*window=*/1, local_files(), log);
  }
  ~TemporaryShards() {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }
  TemporaryShards(const TemporaryShards&) = delete;
  TemporaryShards& operator=(const TemporaryShards&) = delete;
  Path path() const { return directory_ / "train"; }

 private:
  Path directory_;
};

}  // namespace

ExitCode eval_verb(const EvalArguments& arguments) {
  kernels::tune_cpu();  // the same products as in a run
  const kernels::KeptPages kept;
  Log log, quiet(stderr, "", true);
  OpenedModel model = open_model(arguments.model, "", 0, log);
  std::optional<TemporaryShards> made;
  Path directory = arguments.text;
  if (!std::filesystem::is_directory(directory)) {
    made.emplace(arguments.text, model.need_tokenizer(), quiet);
    directory = made->path();
  }
  const data::TokenShards text(directory);
  const int64_t sequence =
      arguments.sequence > 0 ? arguments.sequence : std::min<int64_t>(model.decoder->context(), 2048);
  const auto comm = comm::make_self_comm();
  const eval::TextScore score = score_f32(*model.decoder, *model.map, text, sequence, *comm, arguments.limit);
  fmt::print("{}: {:.4f} bits/byte, perplexity {:.3f}, {} tokens of {} bytes in windows of {}\n",
             arguments.text, score.bits_per_byte(), score.perplexity(), score.tokens, score.bytes, sequence);
  if (!arguments.json.empty())
    write_durably(local_files(), arguments.json, score_json(score, sequence).dump(1) + "\n");
  return ExitCode::kDone;
}

}  // namespace retort::launch
