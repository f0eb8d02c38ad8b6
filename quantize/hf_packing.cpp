#include "quantize/hf_packing.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/registry.h"
#include "formats/packed_words.h"
#include "models/family.h"

namespace retort::quantize {
namespace {

using formats::Json;
using formats::NamedTensors;
using models::Parameter;

// One module of the folder: the codes of all its rows.
struct Module {
  at::Tensor codes_OI;   // i8 or float8_e4m3fn
  at::Tensor scales_OG;  // f32
  at::Tensor header_OH;  // u8; of nvfp4: the f32 number of the tensor
  int64_t bits;
};

struct Layout {
  std::string name;
  bool (*holds)(const Grid& grid);
  NamedTensors (*pack)(const Module& module, bool activations, at::ScalarType dtype);
  Json (*config)(const Grid& grid, bool activations, const std::vector<std::string>& plain);
  bool every_matrix;  // none may stay as it is
};

bool is_integer(const Grid& grid) { return grid.compressed && grid.compressed->type == "int"; }
bool is_compressed(const Grid& grid) { return grid.compressed.has_value(); }
bool is_float4(const CompressedScheme& scheme) { return scheme.strategy == "tensor_group"; }

at::Tensor stored_scales(const at::Tensor& scales, at::ScalarType dtype) {
  const at::Tensor half = scales.to(at::kHalf);
  return dtype == at::kHalf && at::equal(half.to(at::kFloat), scales) ? half : scales;
}

at::Tensor unsigned_codes(const Module& m) { return m.codes_OI.to(at::kInt) + (1 << (m.bits - 1)); }

// Codes are twice E2M1 numbers; a nibble is a number's place among them, the sign above it.
NamedTensors pack_float4(const Module& m) {
  const at::Tensor places = at::tensor({0, 1, 2, 3, 4, -1, 5, -1, 6, -1, -1, -1, 7}, at::kInt);
  const at::Tensor codes_OI = m.codes_OI.to(at::kInt);
  const at::Tensor nibbles_OI =
      places.index({codes_OI.abs().to(at::kLong)}) + codes_OI.lt(0).to(at::kInt) * 8;
  const at::Tensor global = m.header_OH[0].contiguous().view(at::kFloat);
  return {{"weight_packed", formats::pack_words(nibbles_OI, 4).view(at::kByte)},
          {"weight_scale", (m.scales_OG * 2.0 * global).to(at::kFloat8_e4m3fn)},
          {"weight_global_scale", global}};
}

NamedTensors pack_compressed(const Module& m, bool activations, at::ScalarType dtype) {
  if (m.header_OH.defined()) return pack_float4(m);
  const at::Tensor scales = stored_scales(m.scales_OG, dtype);
  if (activations) return {{"weight", m.codes_OI}, {"weight_scale", scales}};
  return {{"weight_packed", formats::pack_words(unsigned_codes(m), m.bits)},
          {"weight_scale", scales},
          {"weight_shape", at::tensor(m.codes_OI.sizes(), at::kLong)}};
}

Json compressed_config(const Grid& grid, bool activations, const std::vector<std::string>& plain) {
  const CompressedScheme& scheme = *grid.compressed;
  Json weights = {{"num_bits", scheme.bits},
                  {"type", scheme.type},
                  {"symmetric", true},
                  {"strategy", scheme.strategy},
                  {"group_size", scheme.group_size > 0 ? Json(scheme.group_size) : Json()},
                  {"dynamic", false},
                  {"actorder", nullptr},
                  {"block_structure", nullptr},
                  {"observer", "minmax"},
                  {"observer_kwargs", Json::object()}};
  if (is_float4(scheme)) weights["scale_dtype"] = weights["zp_dtype"] = "torch.float8_e4m3fn";
  Json inputs;  // null: as they are
  if (activations) {
    inputs = weights;
    inputs["strategy"] = "token";
    inputs["dynamic"] = true;
    inputs["group_size"] = nullptr;
    inputs["observer"] = nullptr;
  }
  std::vector<std::string> ignore = {"lm_head"};
  ignore.insert(ignore.end(), plain.begin(), plain.end());
  const char* format = is_float4(scheme)        ? "nvfp4-pack-quantized"
                       : !activations           ? "pack-quantized"
                       : scheme.type == "float" ? "float-quantized"
                                                : "int-quantized";
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"quantization_status", "compressed"},
          {"ignore", ignore},
          {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}},
              {"input_activations", inputs},
              {"output_activations", nullptr},
              {"weights", weights}}}}}};
}

template <int kVersion>
NamedTensors pack_gptq(const Module& m, bool, at::ScalarType) {
  const int64_t out = m.codes_OI.size(0), in = m.codes_OI.size(1), groups = m.scales_OG.size(1);
  const at::Tensor scales = m.scales_OG.to(at::kHalf);
  check<ConfigError>(at::equal(scales.to(at::kFloat), m.scales_OG), "[gptq] scales must be f16 numbers");
  const int64_t zero = (int64_t{1} << (m.bits - 1)) - (kVersion == 1 ? 1 : 0);
  return {{"qweight", formats::pack_words(unsigned_codes(m), m.bits).t()},
          {"qzeros", formats::pack_words(at::full({groups, out}, zero, at::kInt), m.bits)},
          {"scales", scales.t()},
          {"g_idx", at::floor_divide(at::arange(in, at::kLong), in / groups).to(at::kInt)}};
}

template <int kVersion>
Json gptq_config(const Grid& grid, bool, const std::vector<std::string>&) {
  const CompressedScheme& scheme = *grid.compressed;
  return {{"quant_method", "gptq"},
          {"bits", scheme.bits},
          {"group_size", scheme.strategy == "group" ? scheme.group_size : -1},
          {"desc_act", false},
          {"sym", true},
          {"lm_head", false},
          {"damp_percent", 0.01},
          {"true_sequential", false},
          {"checkpoint_format", kVersion == 1 ? "gptq" : "gptq_v2"}};
}

const Registry<Layout>& layouts() {
  static const Registry<Layout> table(
      "layout of a quantized folder",
      {{"compressed-tensors", is_compressed, pack_compressed, compressed_config, false},
       {"gptq", is_integer, pack_gptq<1>, gptq_config<1>, true},
       {"gptq_v2", is_integer, pack_gptq<2>, gptq_config<2>, true}});
  return table;
}

// The one grid of all matrices that have any, and the modules that have none.
struct Survey {
  const Grid* grid = nullptr;
  std::vector<std::string> plain;
};

// Two parameters whose rows are one module of the folder.
void check_joined(const Layout& layout, const models::Decoder& model, const models::ForeignTensor& a,
                  const models::ForeignTensor& b, const PackingMap& map) {
  const auto name_of = [](const Grid* grid) { return grid == nullptr ? "none" : grid->name; };
  const Grid *one = map.grid_of(model.parameters().at(a.parameter)),
             *other = map.grid_of(model.parameters().at(b.parameter));
  check<ConfigError>(
      one == other,
      "[{}] {} and {} are one matrix, {}, in a {} folder, and must lie on one grid; they are on {} "
      "and {} (quantize.except names both or neither)",
      layout.name, a.parameter, b.parameter, a.name, model.spec().family, name_of(one), name_of(other));
  check<ConfigError>(
      one == nullptr || !one->compressed || !is_float4(*one->compressed),
      "[{}] {} and {} are one matrix, {}, in a {} folder, and each has a scale of its own on {}; "
      "take another grid",
      layout.name, a.parameter, b.parameter, a.name, model.spec().family, name_of(one));
}

Survey survey(const Layout& layout, const models::Decoder& model, const PackingMap& map) {
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
      check<ConfigError>(!layout.every_matrix, "[{}] every matrix must lie on the grid; {} does not",
                         layout.name, p.name);
      if (out.plain.empty() || out.plain.back() != module) out.plain.push_back(module);
      continue;
    }
    check<ConfigError>(!t.transposed,
                       "[{}] {} is no Linear in a {} folder, and only those can be quantized there; write a "
                       "GGUF",
                       layout.name, t.name, model.spec().family);
    check<ConfigError>(out.grid == nullptr || out.grid == grid,
                       "[{}] all matrices must lie on one grid; {} is on {}, others are on {}", layout.name,
                       p.name, grid->name, out.grid == nullptr ? "" : out.grid->name);
    out.grid = grid;
    const int64_t word = 32 / grid->compressed.value_or(CompressedScheme{"", 32, "", 0}).bits;
    check<ConfigError>(!layout.every_matrix || p.shape[0] % word == 0,
                       "[{}] {}: out_features must be a multiple of {}, got {}", layout.name, p.name, word,
                       p.shape[0]);
  }
  check<ConfigError>(out.grid != nullptr, "[{}] the model lies on no grid; write format hf", layout.name);
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

std::vector<std::string> hf_layout_names() { return layouts().names(); }

std::string layout_misfit(const std::string& layout, const Grid& grid) {
  const Layout& row = layouts().at(layout);
  if (row.holds(grid)) return "";
  std::vector<std::string> held;
  for (const Grid& other : grids())
    if (row.holds(other)) held.push_back(other.name);
  return fmt::format("a {} folder cannot hold grid {}; it holds {}", layout, grid.name,
                     fmt::join(held, ", "));
}

models::HfExtras pack_for_hf(const std::string& layout, const models::Decoder& model, const PackingMap& map,
                             bool activations, at::ScalarType dtype) {
  const Layout& row = layouts().at(layout);
  const Survey found = survey(row, model, map);
  const std::string misfit = layout_misfit(layout, *found.grid);
  check<ConfigError>(misfit.empty(), "{}", misfit);
  const CompressedScheme& scheme = *found.grid->compressed;
  check<ConfigError>(!activations || scheme.bits == 8,
                     "[{}] activations are rounded to 8 bits beside weights "
                     "of 8 bits; {} has {}",
                     layout, found.grid->name, scheme.bits);
  const bool rounds = activations || (scheme.type == "float" && scheme.bits == 8);
  models::HfExtras extras;
  const Json config = row.config(*found.grid, rounds, found.plain);
  extras.config["quantization_config"] = config;
  if (row.every_matrix) extras.files["quantize_config.json"] = config.dump(2) + "\n";
  extras.pack = [&map, &row, rounds, dtype, bits = scheme.bits](const models::HfMatrix& matrix) {
    if (map.grid_of(*matrix.rows.front()) == nullptr) return NamedTensors();
    std::vector<at::Tensor> codes, scales;
    at::Tensor header;
    for (const Parameter* p : matrix.rows) {
      const Quantized quantized = map.quantize(*p);
      codes.push_back(quantized.codes);
      scales.push_back(quantized.scales.scale);
      header = quantized.scales.header;
    }
    return row.pack({join_rows(codes), at::cat(scales), header, bits}, rounds, dtype);
  };
  return extras;
}

}  // namespace retort::quantize
