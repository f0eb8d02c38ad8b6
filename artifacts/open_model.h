// A model from disk, whatever it is kept as (identify.h), ready to compute: weights, tokenizer, and what its
// files say of generating. A checkpoint that was trained on a grid is opened with the values on its grids:
// what an export holds. Adapters are opened over the base that they name: of a checkpoint it must have the
// weights that were trained over.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "artifacts/identify.h"
#include "artifacts/model_facts.h"
#include "core/log.h"
#include "data/tokenizers/tokenizer.h"
#include "formats/json.h"
#include "models/model.h"
#include "models/peft_folder.h"
#include "models/weight_map.h"
#include "quantize/quantize_map.h"

namespace retort::artifacts {

// Tokens that end a text or a turn, each once: the tokenizer's separator, and what `generation` says. No tokenizer: nullptr.
std::vector<int32_t> text_ends(const formats::Json& generation, int64_t vocabulary,
                               const data::Tokenizer* tokenizer);

struct OpenedModel {
  std::string source;                                 // the file or directory that was read
  std::unique_ptr<models::Model> decoder;             // working weights are the map's, f32
  std::unique_ptr<quantize::PackingMap> grids;        // that its weights are on; nullptr: none
  std::unique_ptr<data::Tokenizer> tokenizer;         // nullptr when there is none, or none that is supported
  std::optional<quantize::QuantizeOptions> quantize;  // of a checkpoint that was trained on a grid
  formats::Json generation = formats::Json::object();  // models/generation_facts.h
  std::optional<AdapterFacts> adapters = {};           // of one with adapters, which are not merged
  Origin origin = {};
  formats::Json training = formats::Json::object();  // a checkpoint's "train" (docs/formats.md)

  // The frozen values below adapters, f32: what this model is to a stage that puts adapters on it.
  std::unique_ptr<models::Model> take_base();

  // From masters to values: the grids', or the identity.
  models::WeightMap& map() const;
  std::vector<int32_t> ends() const;              // text_ends()
  const data::Tokenizer& need_tokenizer() const;  // DataError without one

 private:
  std::unique_ptr<models::IdentityMap> identity_ = std::make_unique<models::IdentityMap>();
};

// The model that a path leads to; errors as find_model()'s and its reader's. Its own tokenizer fits it: rows of the
// embedding beyond the tokenizer's ids are padding (Model::set_tokens), an added token without a row is dropped with
// a warning, another is a DataError.
// `strict`: of a directory of checkpoints the one that has the model, or its error; else the newest that is whole.
OpenedModel open_model(const Path& path, Log& log, bool strict = false);
// Where the base of an adapter's folder is: where the folder says, from the working directory or from itself.
// DataError when nothing is there.
Path peft_base(const Path& directory, const models::PeftConfig& config);
// One of `spec` with random weights, as a train stage begins with when its recipe says no more. Bytes are the
// tokenizer of 256 tokens. `source`: its name in messages.
OpenedModel new_model(const models::DecoderSpec& spec, uint64_t seed, std::string source);

}  // namespace retort::artifacts
