#include "recipes/data_options.h"

#include "data/packing.h"
#include "train/owners.h"

namespace retort::recipes {

void SourceOptions::describe(Section& s) {
  s.field("train", train, "token shards: a directory, or stage:NAME of a prepare or answers stage");
  s.field("weight", weight, "share of the rows, relative to the other sources' weights", above(0.0));
}

std::vector<SourceOptions> DataOptions::sources() const {
  return mixture.empty() ? std::vector<SourceOptions>{{train}} : mixture;
}

data::BatchOptions batch_options(const DataOptions& data, uint64_t seed) {
  return {.sequence = data.sequence,
          .rows = data.micro_batch,
          .seed = seed,
          .isolate_documents = data.isolate_documents,
          .limit = data.limit,
          .pack = data.packs(),
          .long_documents = data::long_documents(data.long_documents)};
}

void DataOptions::describe(Section& s) {
  const Rule<int64_t> positive = at_least<int64_t>(1);
  s.field("train", train,
          "token shards to train on: a directory, or stage:NAME of a prepare or answers stage");
  s.list(
      "mixture", mixture,
      "sources instead of train, their rows mixed by weight; each is read at its own pace, a small one again "
      "and again");
  s.field("validation", validation,
          "token shards to evaluate on, text; for preference also answers as it learns from; empty: no "
          "evaluation");
  s.field("limit", limit, "tokens of each source that are trained on, from its start; 0: all",
          at_least<int64_t>(0));
  s.field("sequence", sequence, "tokens of a row, and of a window in evaluation", positive);
  s.field("batch_tokens", batch_tokens, "tokens of an optimizer update, over all ranks", positive);
  s.field("micro_batch", micro_batch,
          "rows of one forward pass; lower it when memory is short: a run continues with another", positive);
  s.field("isolate_documents", isolate_documents,
          "keep attention and prediction inside one document of a row");
  s.field("packing", packing,
          "way that training rows are filled: wrapped cuts the text at multiples of sequence; best_fit packs "
          "whole "
          "documents, isolated, as fine-tuning wants them",
          one_of({"wrapped", "best_fit"}));
  s.field(
      "long_documents", long_documents,
      "fate of a document longer than sequence under best_fit: split over rows, cut to its start, or dropped",
      one_of(data::long_document_names()));
}

void ParallelOptions::describe(Section& s) {
  s.field("ranks", ranks,
          "data-parallel ranks that are threads of one process; under mpirun the processes are the ranks",
          between<int64_t>(1, 1024));
  s.field(
      "shard", shard,
      "state that ranks divide: none, each holds all; optimizer, each holds the moments of its share "
      "of the weights (ZeRO stage 1, whose masters stay whole); gradients, also their summed gradients, and "
      "their masters where the working copy is another (stage 2); parameters, also working weights, but for "
      "the layers that are multiplied (stage 3). The same bytes come out",
      one_of(train::division_names()));
  s.field("replicas", replicas,
          "number of groups that the ranks make, each of which divides the state; what crosses groups is a "
          "step's "
          "summed gradients alone",
          at_least<int64_t>(1));
  s.field("transport", transport,
          "way of tensors between the ranks' GPUs: nccl; host, through host memory; auto, nccl where this "
          "build has it. "
          "The same bytes come out",
          one_of(std::vector<std::string>{"auto", "nccl", "host"}));
}

}  // namespace retort::recipes
