// [[ids], ...] -> tensor "logits" f32 [B, T, V], to compare with another runtime.
#include "artifacts/out_path.h"
#include "eval/generate.h"
#include "eval/token_rows.h"
#include "formats/safetensors.h"
#include "kernels/cpu_tuning.h"
#include "launch/verbs.h"
#include "recipes/model_address.h"

namespace retort::launch {

ExitCode logits_verb(const LogitsArguments& arguments) {
  kernels::choose_products();  // the same as in a run
  Log log;
  const artifacts::OpenedModel model = recipes::open_model(arguments.model, "", 0, log);
  for (const std::string& source : {model.source, arguments.ids})
    artifacts::probe_out("--out", arguments.out, true, source);
  const at::Tensor tokens_BT = eval::read_token_rows(arguments.ids, *model.decoder);
  const at::NoGradGuard no_grad;
  formats::write_safetensors(local_files(), arguments.out,
                             {{"logits", eval::logits(*model.decoder, tokens_BT)}});
  return ExitCode::kDone;
}

}  // namespace retort::launch
