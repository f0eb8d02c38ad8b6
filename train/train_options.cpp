#include "train/train_options.h"

#include "models/decoder.h"
#include "train/precision.h"
#include "train/saver.h"

namespace retort::train {

void TrainOptions::describe(Section& s) {
  s.field("steps", steps, "optimizer updates in all", at_least(int64_t{1}));
  s.field(
      "epochs", epochs,
      "passes over the rows of data.train (the first source of a mixture), instead of steps; 0: steps count",
      at_least(0.0));
  s.field("clip_norm", clip_norm, "highest global gradient norm; 0: no clipping", at_least(0.0));
  s.field("precision", precision,
          "precision of weights in products; auto takes bf16 on processors and GPUs that multiply faster in it",
          one_of(precision_names()));
  s.field("init", init, "distribution of a new model's weights", one_of(models::initialiser_names()));
  s.field("init_std", init_std,
          "standard deviation of that distribution; 0: 1/sqrt(3 width), which is .02 at width 768",
          at_least(0.0));
  s.field("neftune", neftune,
          "noise on the embeddings of training: alpha of NEFTune, 5 to 15 is usual; 0: none", at_least(0.0));
  s.field(
      "graph", graph,
      "capture of a micro-batch's forward and backward pass in a CUDA graph, on a GPU, where the objective "
      "allows it and the first replay gives the same bits; false: every operation is launched by itself");
  s.section("optimizer", optimizer, "rule by which gradients move the weights");
  s.section("schedule", schedule, "learning rate over the steps");
  s.field("log_every", log_every, "steps between lines of metrics.jsonl", at_least(int64_t{1}));
  s.field("validate_every", validate_every, "steps between validations; 0: at the end only",
          at_least(int64_t{0}));
  s.field("checkpoint_every", checkpoint_every, "steps between checkpoints; 0: at the end only",
          at_least(int64_t{0}));
  s.field("keep_checkpoints", keep_checkpoints, "number of checkpoints to keep, the newest",
          at_least(int64_t{1}));
  s.field(
      "save", save,
      "writing of checkpoints: async copies what is saved to host memory and writes while training goes on; "
      "sync makes training wait, and needs no memory for the copy",
      one_of(save_kinds()));
  s.field("keep_best", keep_best,
          "keep the checkpoint of the lowest validation figure besides: it is the stage's model");
  s.field("patience", patience,
          "validations in a row without a lower figure that end the training; 0: any number",
          at_least(int64_t{0}));
  s.field(
      "max_skipped", max_skipped,
      "updates in a row that are skipped, not finite or spikes, before the run stops (exit 77) or goes back",
      at_least(int64_t{1}));
  s.field("max_failed_saves", max_failed_saves, "failed checkpoints in a row before the run stops (exit 74)",
          at_least(int64_t{1}));
  s.optional("guard", guard, "steps that are not taken as they come, and machines that compute wrongly");
}

}  // namespace retort::train
