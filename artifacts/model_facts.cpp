#include "artifacts/model_facts.h"

#include "artifacts/printed_options.h"
#include "core/error.h"
#include "formats/json_section.h"
#include "models/spec_json.h"

namespace retort::artifacts {
namespace {

using formats::Json;

constexpr const char *kModel = "model", *kTokenizer = "tokenizer", *kGeneration = "generation",
                     *kQuantize = "quantize", *kAdapters = "adapters", *kOrigin = "origin";

AdapterFacts read_adapters(const Json& kept, const std::string& where) {
  check<DataError>(kept.is_object() && kept.contains("options"), "{}: lacks options", where);
  return {formats::section_from_json<models::AdapterOptions>(kept.at("options"), where + ".options"),
          formats::json_text(kept, "base", where), formats::json_text(kept, "digest", where)};
}

}  // namespace

Json model_facts(const ModelFacts& facts) {
  Json out = {{kModel, models::to_json(facts.spec)}};
  if (facts.tokenizer) out[kTokenizer] = *facts.tokenizer;
  if (!facts.generation.empty()) out[kGeneration] = facts.generation;
  if (facts.quantize) out[kQuantize] = formats::section_to_json(*facts.quantize);
  if (facts.adapters)
    out[kAdapters] = {{"options", formats::section_to_json(facts.adapters->options)},
                      {"base", facts.adapters->base},
                      {"digest", facts.adapters->digest}};
  if (facts.origin != Origin()) out[kOrigin] = to_json(facts.origin);
  return out;
}

ModelFacts read_model_facts(const Json& extra, const std::string& source) {
  check<DataError>(extra.is_object() && extra.contains(kModel), "{}: does not say what model it holds",
                   source);
  ModelFacts out{models::from_json(extra.at(kModel), source)};
  if (extra.contains(kTokenizer)) out.tokenizer = formats::json_text(extra, kTokenizer, source);
  if (extra.contains(kGeneration)) out.generation = extra.at(kGeneration);
  if (extra.contains(kAdapters)) out.adapters = read_adapters(extra.at(kAdapters), source + ": " + kAdapters);
  if (extra.contains(kOrigin)) out.origin = read_origin(extra.at(kOrigin), source + ": " + kOrigin);
  if (!extra.contains(kQuantize)) return out;
  const Json& kept = extra.at(kQuantize);
  const std::string where = source + ": " + kQuantize;
  out.quantize = formats::section_from_json<quantize::QuantizeOptions>(
      kept.is_string() ? parse_printed(kept.get<std::string>(), where) : kept, where);
  return out;
}

}  // namespace retort::artifacts
