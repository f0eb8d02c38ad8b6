// The forms that a model leaves in, one file and one row each. What recipes, verbs and messages say of a
// format derives from its row.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "artifacts/export_model.h"
#include "core/registry.h"

namespace retort::artifacts {

// What is written: a model as it was opened, or with its adapters merged.
struct ExportSource {
  const models::Model& model;
  models::WeightMap& map;
  const quantize::PackingMap* grids;  // the map where its values are on grids, else nullptr
  const data::Tokenizer* tokenizer;   // nullptr: none
  const formats::Json& generation;
  std::vector<int32_t> ends;
  std::string command;  // ExportModel's
  Origin origin = {};
  const formats::Json& training;  // OpenedModel's
  const CardFacts& card;
  const AdapterFacts* adapters = nullptr;  // of a model whose adapters are not merged; nullptr: none
};

enum class Packs { kValues, kMatrices, kEverything };

struct ExportFormat {
  std::string name;                // "gguf"
  std::string noun;                // "a GGUF"
  std::string holds;               // for people, in a few words
  std::vector<std::string> types;  // of the values that it can hold
  std::string file = "";           // in a stage's directory; "": a folder, which is that directory
  Packs packs = Packs::kValues;    // what leaves as codes of the model's own grids
  bool merges = true;              // adapters and sharing are expanded: it knows neither
  bool adapters = false;           // holds adapters alone, without their base
  std::string without_tokenizer =
      "its readers need one from elsewhere";  // what a model without one is good for
  bool activations = false;                   // can say that whoever loads it rounds them
  bool card = false;                          // has a README.md (model_card.h)

  bool one_file() const { return !file.empty(); }

  // Why codes on the grid have no place in it; "" when they have.
  std::function<std::string(const quantize::Grid&)> grid_misfit = [](const auto&) { return std::string(); };
  // The same of a model as a whole, with activations rounded or not. No values are read.
  std::function<std::string(const models::Model&, const quantize::PackingMap&, bool activations)>
      packing_misfit = [](const auto&, const auto&, bool) { return std::string(); };
  // Why it has no such architecture; "" when it has.
  std::function<std::string(const models::DecoderSpec&)> architecture_misfit = [](const auto&) {
    return std::string();
  };
  // Of a format of adapters: why it cannot say those of a model that adapt() made; "" when it can.
  std::function<std::string(const models::Model&, const models::AdapterOptions&)> adapters_misfit =
      [](const auto&, const auto&) { return std::string(); };
  // Why it cannot hold the tokenizer; "" when it can.
  std::function<std::string(const data::Tokenizer&)> tokenizer_misfit = [](const auto&) {
    return std::string();
  };
  // IoError where something at `out` must not be replaced, known before any work; `source` is what is read.
  std::function<void(const Path& out, const Path& source)> check_place = [](const auto&, const auto&) {};
  std::function<void(const ExportSource&, const ExportOptions&, const Path& out, FileSystem&)> write;
};

const Registry<ExportFormat>& export_formats();

// A folder's README.md is replaced only where an export has written it (IoError).
void check_card_place(const Path& out, const Path& source);

// The parts of a quantize section ("weights", "embedding", "head") whose codes the format cannot hold.
struct GridMisfit {
  std::string part, why;
};
std::vector<GridMisfit> grid_misfits(const ExportFormat& format, const quantize::QuantizeOptions& grids);

}  // namespace retort::artifacts
