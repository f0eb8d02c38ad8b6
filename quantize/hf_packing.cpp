#include "quantize/hf_packing.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/registry.h"
#include "formats/compressed_tensors.h"
#include "formats/gptq_layout.h"
#include "models/family.h"

namespace retort::quantize {
namespace {

using formats::Json;
using formats::NamedTensors;
using models::Parameter;

// How a row of the table writes one module of the folder, and what config.json says of all of them.
// `activations`: a runtime rounds those too. `plain`: the modules that stay as they are.
struct Layout {
  std::string name;
  bool (*holds)(const Grid& grid);
  NamedTensors (*pack)(const CompressedScheme& scheme, const Quantized& module, bool activations,
                       at::ScalarType dtype);
  Json (*config)(const CompressedScheme& scheme, bool activations, const std::vector<std::string>& plain);
  bool every_matrix;  // none may stay as it is
};

bool is_integer(const Grid& grid) { return grid.compressed && grid.compressed->type == "int"; }
bool is_compressed(const Grid& grid) { return grid.compressed.has_value(); }

template <formats::GptqVersion kVersion>
NamedTensors pack_gptq(const CompressedScheme& scheme, const Quantized& module, bool, at::ScalarType) {
  return formats::pack_gptq(module, scheme.bits, kVersion);
}

template <formats::GptqVersion kVersion>
Json gptq_config(const CompressedScheme& scheme, bool, const std::vector<std::string>&) {
  return formats::gptq_config(scheme.bits, scheme.strategy == "group" ? scheme.group_size : -1, kVersion);
}

const Registry<Layout>& layouts() {
  using enum formats::GptqVersion;
  static const Registry<Layout> table(
      "layout of a quantized folder",
      {{"compressed-tensors", is_compressed, formats::pack_compressed, formats::compressed_config, false},
       {"gptq", is_integer, pack_gptq<kFirst>, gptq_config<kFirst>, true},
       {"gptq_v2", is_integer, pack_gptq<kSecond>, gptq_config<kSecond>, true}});
  return table;
}

// The one grid of all matrices that have any, and the modules that have none.
struct Survey {
  const Grid* grid = nullptr;
  std::vector<std::string> plain;
};

// Two parameters whose rows are one module of the folder.
void check_joined(const Layout& layout, const models::Model& model, const models::ForeignTensor& a,
                  const models::ForeignTensor& b, const PackingMap& map) {
  const auto name_of = [](const Grid* grid) { return grid == nullptr ? "none" : grid->name; };
  const Grid *one = map.grid_of(model.parameters().at(a.parameter)),
             *other = map.grid_of(model.parameters().at(b.parameter));
  check<ConfigError>(
      one == other,
      "[{}] {} and {} are one matrix, {}, in a {} folder, and must be on one grid; they are on {} "
      "and {} (quantize.except names both or neither)",
      layout.name, a.parameter, b.parameter, a.name, model.spec().family, name_of(one), name_of(other));
  check<ConfigError>(
      one == nullptr || !one->compressed || !one->compressed->has_global_scale(),
      "[{}] {} and {} are one matrix, {}, in a {} folder, and each has a scale of its own on {}; "
      "take another grid",
      layout.name, a.parameter, b.parameter, a.name, model.spec().family, name_of(one));
}

Survey survey(const Layout& layout, const models::Model& model, const PackingMap& map, bool activations) {
  Survey out;
  const models::ForeignTensor* before = nullptr;
  const auto tensors = models::families().at(model.spec().family).hf_tensors(model.spec());
  for (const models::ForeignTensor& t : tensors) {
    const Parameter& p = model.parameters().at(t.parameter);
    if (p.role != models::Role::kMatrix) continue;
    const std::string module = t.name.substr(0, t.name.rfind('.'));
    const Grid* grid = map.grid_of(p);
    if (const auto* above = std::exchange(before, &t); above != nullptr && above->name == t.name)
      check_joined(layout, model, *above, t, map);
    if (grid == nullptr) {
      check<ConfigError>(!layout.every_matrix, "[{}] every matrix must be on the grid; {} is not",
                         layout.name, p.name);
      if (out.plain.empty() || out.plain.back() != module) out.plain.push_back(module);
      continue;
    }
    check<ConfigError>(!t.transposed,
                       "[{}] {} is no Linear in a {} folder, and only those can be quantized there; {}",
                       layout.name, t.name, model.spec().family,
                       grid->ggml ? "format gguf holds the grid" : "format hf holds its values");
    check<ConfigError>(out.grid == nullptr || out.grid == grid,
                       "[{}] all matrices must be on one grid; {} is on {}, others are on {}", layout.name,
                       p.name, grid->name, out.grid == nullptr ? "" : out.grid->name);
    out.grid = grid;
    const int64_t word = 32 / grid->compressed.value_or(CompressedScheme{"", 32, "", 0}).bits;
    check<ConfigError>(!layout.every_matrix || p.shape[0] % word == 0,
                       "[{}] {}: out_features must be a multiple of {}, got {}", layout.name, p.name, word,
                       p.shape[0]);
  }
  check<ConfigError>(out.grid != nullptr, "[{}] the model is on no grid; write format hf", layout.name);
  const std::string misfit = layout_misfit(layout.name, *out.grid);
  check<ConfigError>(misfit.empty(), "{}", misfit);
  check<ConfigError>(!activations || out.grid->compressed->bits == 8,
                     "[{}] activations are rounded to 8 bits beside weights of 8 bits; {} has {}",
                     layout.name, out.grid->name, out.grid->compressed->bits);
  return out;
}

// Of any dtype, float8 too.
at::Tensor join_rows(const std::vector<at::Tensor>& parts) {
  if (parts.size() == 1) return parts[0];
  std::vector<at::Tensor> bytes;
  for (const at::Tensor& part : parts) bytes.push_back(part.contiguous().view(at::kByte));
  return at::cat(bytes).view(parts[0].scalar_type());
}

}  // namespace

std::string layout_misfit(const std::string& layout, const Grid& grid) {
  const Layout& row = layouts().at(layout);
  if (row.holds(grid)) return "";
  std::vector<std::string> held;
  for (const Grid& other : grids())
    if (row.holds(other)) held.push_back(other.name);
  return fmt::format("a {} folder cannot hold grid {}; it holds {}", layout, grid.name,
                     fmt::join(held, ", "));
}

std::string folder_misfit(const std::string& layout, const models::Model& model, const PackingMap& map,
                          bool activations) {
  try {
    survey(layouts().at(layout), model, map, activations);
    return "";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

models::HfExtras pack_for_hf(const std::string& layout, const models::Model& model, const PackingMap& map,
                             bool activations, at::ScalarType dtype) {
  const Layout& row = layouts().at(layout);
  const Survey found = survey(row, model, map, activations);
  const CompressedScheme& scheme = *found.grid->compressed;
  const bool rounds = activations || (scheme.type == "float" && scheme.bits == 8);
  models::HfExtras extras;
  const Json config = row.config(scheme, rounds, found.plain);
  extras.config["quantization_config"] = config;
  if (row.every_matrix) extras.files["quantize_config.json"] = config.dump(2) + "\n";
  extras.pack = [&map, &row, &scheme, rounds, dtype](const models::HfMatrix& matrix) {
    if (map.grid_of(*matrix.rows.front()) == nullptr) return NamedTensors();
    std::vector<at::Tensor> codes, scales;
    at::Tensor header;
    for (const Parameter* p : matrix.rows) {
      const Quantized quantized = map.quantize(*p);
      codes.push_back(quantized.codes);
      scales.push_back(quantized.scales.scale);
      header = quantized.scales.header;
    }
    return row.pack(scheme, {join_rows(codes), {at::cat(scales), {}, {}, header}}, rounds, dtype);
  };
  return extras;
}

}  // namespace retort::quantize
