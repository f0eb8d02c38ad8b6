#include "train/run_state.h"

#include "core/digest.h"

namespace retort::train {

using formats::Json;

void BestFigure::take(double now, int64_t at) {
  if (counted == at) return;
  counted = at;
  ++since;
  if (now < figure) figure = now, step = at, since = 0;
}

void RunState::write(Json& train, bool keeps_best) const {
  train["tokens"] = tokens;
  train["loss"] = loss;
  train["unlabelled"] = unlabelled;
  guard.write(train);
  if (best.known())
    train[keeps_best ? "best" : "lowest"] = {
        {"figure", best.figure}, {"step", best.step}, {"since", best.since}, {"counted", best.counted}};
}

void RunState::read(const Json& train, const std::string& source) {
  tokens = formats::json_integer(train, "tokens", source);
  if (!train.at("loss").is_null()) loss = formats::json_real(train, "loss", source);
  if (train.contains("unlabelled")) unlabelled = formats::json_integer(train, "unlabelled", source);
  guard.read(train);
  for (const char* key : {"best", "lowest"})
    if (train.contains(key)) {
      const Json& of = train[key];
      best = {formats::json_real(of, "figure", source), formats::json_integer(of, "step", source),
              formats::json_integer(of, "since", source), formats::json_integer(of, "counted", source)};
    }
}

Json DataPosition::batch() const {
  const data::BatchOptions& options = stream_.options();
  Json sources = Json::array();
  for (const data::Source& source : stream_.sources())
    sources.push_back({hex(source.shards->digest()), source.weight});
  Json batch = {{"rows", rows_},          {"sequence", options.sequence},
                {"seed", options.seed},   {"isolate_documents", options.isolate_documents},
                {"limit", options.limit}, {"sources", sources}};
  if (options.pack) batch["packing"] = static_cast<int>(options.long_documents);
  return batch;
}

Json DataPosition::sources(int64_t steps) const {
  const std::vector<int64_t> taken = stream_.taken(steps * rows_);
  Json out = Json::array();
  for (size_t s = 0; s < taken.size(); ++s) {
    const data::Source& source = stream_.sources()[s];
    out.push_back(
        {{"name", source.name},
         {"digest", hex(source.shards->digest())},
         {"weight", source.weight},
         {"samples", taken[s]},
         {"epochs", static_cast<double>(taken[s]) / static_cast<double>(stream_.samples_per_epoch(s))}});
  }
  return out;
}

std::map<std::string, double> DataPosition::epochs(int64_t steps) const {
  std::map<std::string, double> out;
  for (const Json& source : sources(steps)) out[source["name"]] = source["epochs"];
  return out;
}

}  // namespace retort::train
