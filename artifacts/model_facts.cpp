#include "artifacts/model_facts.h"

#include "artifacts/printed_options.h"
#include "core/error.h"
#include "formats/json_section.h"
#include "models/spec_json.h"

namespace retort::artifacts {
namespace {

using formats::Json;

constexpr const char *kModel = "model", *kTokenizer = "tokenizer", *kGeneration = "generation",
                     *kQuantize = "quantize";

}  // namespace

Json model_facts(const ModelFacts& facts) {
  Json out = {{kModel, models::to_json(facts.spec)}};
  if (facts.tokenizer) out[kTokenizer] = *facts.tokenizer;
  if (!facts.generation.empty()) out[kGeneration] = facts.generation;
  if (facts.quantize) out[kQuantize] = formats::section_to_json(*facts.quantize);
  return out;
}

ModelFacts read_model_facts(const Json& extra, const std::string& source) {
  check<DataError>(extra.is_object() && extra.contains(kModel), "{}: does not say what model it holds",
                   source);
  ModelFacts out{models::from_json(extra.at(kModel), source)};
  if (extra.contains(kTokenizer)) out.tokenizer = formats::json_text(extra, kTokenizer, source);
  if (extra.contains(kGeneration)) out.generation = extra.at(kGeneration);
  if (!extra.contains(kQuantize)) return out;
  const Json& kept = extra.at(kQuantize);
  const std::string where = source + ": " + kQuantize;
  out.quantize = formats::section_from_json<quantize::QuantizeOptions>(
      kept.is_string() ? parse_printed(kept.get<std::string>(), where) : kept, where);
  return out;
}

}  // namespace retort::artifacts
