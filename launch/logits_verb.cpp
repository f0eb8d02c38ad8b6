// [[ids], ...] -> tensor "logits" f32 [B, T, V], to compare with another runtime.
#include "artifacts/out_path.h"
#include "eval/generate.h"
#include "formats/safetensors.h"
#include "kernels/cpu_tuning.h"
#include "launch/verbs.h"
#include "recipes/model_address.h"

namespace retort::launch {
namespace {

at::Tensor read_ids(const std::string& path, int64_t vocabulary) {
  const formats::Json json = formats::read_json(path, uint64_t{1} << 26);
  std::vector<int64_t> ids;
  size_t width = 0;
  const char* rule = "must be a list of equally long, non-empty lists of token ids";
  check<DataError>(json.is_array() && !json.empty(), "{}: {}", path, rule);
  for (const formats::Json& row : json) {
    check<DataError>(row.is_array() && !row.empty() && (width == 0 || row.size() == width), "{}: {}", path,
                     rule);
    width = row.size();
    for (const formats::Json& id : row) {
      check<DataError>(id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() < vocabulary,
                       "{}: an id must lie in [0, {}), got {}", path, vocabulary, id.dump());
      ids.push_back(id.get<int64_t>());
    }
  }
  return at::tensor(ids, at::kLong).view({-1, static_cast<int64_t>(width)});
}

}  // namespace

ExitCode logits_verb(const LogitsArguments& arguments) {
  kernels::choose_products();  // the same as in a run
  Log log;
  const artifacts::OpenedModel model = recipes::open_model(arguments.model, "", 0, log);
  artifacts::probe_out("--out", arguments.out, true, model.source);
  const at::Tensor tokens_BT = read_ids(arguments.ids, model.decoder->vocabulary());
  check<DataError>(tokens_BT.size(1) <= model.decoder->context(), "{}: at most {} ids a row, got {}",
                   arguments.ids, model.decoder->context(), tokens_BT.size(1));
  const at::NoGradGuard no_grad;
  formats::write_safetensors(local_files(), arguments.out,
                             {{"logits", eval::logits(*model.decoder, tokens_BT)}});
  return ExitCode::kDone;
}

}  // namespace retort::launch
