// Opens any MODEL: a checkpoint, a directory with checkpoints, a Hugging Face folder, a .gguf file, a .bin of
// llama2.c, a directory with a model.gguf, preset:NAME (random weights), or stage:NAME of a run. A
// checkpoint's manifest says what it holds: {"model": a DecoderSpec, "tokenizer": its name, "quantize":
// YAML, "generation": models/generation_facts.h}; a tokenizer without a name of its own lies in it as files.
// A checkpoint that was trained on a grid is opened with its fake-quantized weights: what an export would
// hold.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/file.h"
#include "core/log.h"
#include "data/tokenizers/tokenizer.h"
#include "formats/json.h"
#include "models/decoder.h"
#include "models/weight_map.h"
#include "quantize/quantize_map.h"

namespace retort::launch {

struct OpenedModel {
  std::string source;  // the file or directory that was read
  std::unique_ptr<models::WeightMap> map;
  std::unique_ptr<models::Model> decoder;             // working weights bound to the map, f32
  std::unique_ptr<data::Tokenizer> tokenizer;         // nullptr when there is none, or none that is supported
  std::optional<quantize::QuantizeOptions> quantize;  // of a checkpoint that was trained on a grid
  formats::Json generation = formats::Json::object();  // models/generation_facts.h
  // Tokens that end a text or a turn: the tokenizer's separator, and what the files say.
  std::vector<int32_t> ends() const;
  const quantize::QuantizeMap* quantized() const {
    return dynamic_cast<const quantize::QuantizeMap*>(map.get());
  }
  const data::Tokenizer& need_tokenizer() const;  // DataError without one
  // ConfigError for a byte-patch model: `what` (of it) is known of plain decoders only.
  models::Decoder& need_decoder(std::string_view what) const;
};

// The model's own tokenizer fits it (check_fits). `run` is where stage:NAME lives (empty: no run, so it is a
// ConfigError); `seed` makes a preset's weights.
OpenedModel open_model(const std::string& address, const Path& run, uint64_t seed, Log& log);

// DataError when the tokenizer gives ids that the embedding has no row for. More rows than tokens are
// padding.
void check_fits(const data::Tokenizer& tokenizer, const models::Model& decoder, const std::string& source);

// stage:NAME as a path below `run`; other addresses as they are.
std::string resolve_stage(const std::string& address, const Path& run);

// What checkpoints remember of a model, for open_model().
formats::Json model_facts(const models::DecoderSpec& spec, const std::string& tokenizer,
                          const std::optional<quantize::QuantizeOptions>& quantize,
                          const formats::Json& generation = formats::Json::object());

}  // namespace retort::launch
