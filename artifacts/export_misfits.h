// Why an export makes no file, known before a weight is: the one list of reasons, which `retort check` asks
// before a training and export_model() before it writes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "artifacts/export_model.h"
#include "data/tokenizers/tokenizer.h"
#include "models/model.h"
#include "quantize/quantize_map.h"

namespace retort::artifacts {

// What is exported, as far as it is known: nullptr where nothing is known yet.
struct ExportSubject {
  const models::DecoderSpec* spec = nullptr;
  const data::Tokenizer* tokenizer = nullptr;  // or none
  // That its values lie on; nullopt: on none.
  const std::optional<quantize::QuantizeOptions>* grids = nullptr;
};

struct Misfit {
  std::string part;  // of ExportOptions that it is about (format, type, embedding_type, activations, license,
                     // base_model, ollama), or tokenizer; of the grids: weights, embedding, head
  std::string why;
};

std::vector<Misfit> export_misfits(const ExportOptions& options, const ExportSubject& subject);

}  // namespace retort::artifacts
