// How well a model predicts a text: a file, tokenized as the model's vocabulary wants, or a directory of
// shards.
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "artifacts/out_path.h"
#include "artifacts/text_shards.h"
#include "core/kept_pages.h"
#include "data/prepare.h"
#include "kernels/cpu_tuning.h"
#include "launch/model_address.h"
#include "launch/score.h"
#include "launch/verbs.h"

namespace retort::launch {
namespace {

// A directory of its own name, gone with the object.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "retort-eval-XXXXXX").string();
    check<IoError>(::mkdtemp(name.data()) != nullptr, "{}: cannot be made: {}", name, std::strerror(errno));
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const Path& path() const { return path_; }

 private:
  Path path_;
};

// A text file's shards. Their files are mapped, and have no names any more when this returns.
std::shared_ptr<const data::TokenShards> shards_of(const std::string& text,
                                                   const data::Tokenizer& tokenizer) {
  const TemporaryDirectory directory;
  Log quiet(stderr, "", true);
  data::PrepareOptions options;
  options.tokenizer = tokenizer.name();
  options.text = {text};
  options.documents.format = "text";  // as it is, whatever it is called
  options.validation = 0.0;
  data::prepare(options, directory.path(), /*window=*/1, local_files(), quiet);
  return std::make_shared<data::TokenShards>(directory.path() / "train");
}

}  // namespace

ExitCode eval_verb(const EvalArguments& arguments) {
  kernels::tune_cpu();  // the same products as in a run
  const KeptPages kept;
  Log log;
  OpenedModel model = open_model(arguments.model, "", 0, log);
  if (!arguments.json.empty()) artifacts::probe_out("--json", arguments.json, true, model.source);
  std::shared_ptr<const data::TokenShards> text;
  if (std::filesystem::is_directory(arguments.text)) {
    text = artifacts::shards_at(arguments.text, "validation");
    check_tokenizer(model, *text, "--text " + arguments.text);
  } else {
    text = shards_of(arguments.text, model.need_tokenizer());
  }
  const int64_t sequence =
      arguments.sequence > 0 ? arguments.sequence : std::min<int64_t>(model.decoder->context(), 2048);
  const auto comm = comm::make_self_comm();
  const eval::TextScore score =
      score_f32(*model.decoder, model.map(), *text, sequence, *comm, arguments.limit);
  fmt::print("{}: {:.4f} bits/byte, perplexity {:.3f}, {} tokens of {} bytes in windows of {}\n",
             arguments.text, score.bits_per_byte(), score.perplexity(), score.tokens, score.bytes, sequence);
  if (!arguments.json.empty())
    write_durably(local_files(), arguments.json, score_json(score, sequence).dump(1) + "\n");
  return ExitCode::kDone;
}

}  // namespace retort::launch
