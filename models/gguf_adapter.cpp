#include "models/gguf_adapter.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/error.h"
#include "formats/gguf.h"
#include "models/family.h"
#include "models/gguf_model.h"

namespace retort::models {
namespace {

constexpr const char* kInstead = "export a merged GGUF (format gguf)";

// The tensors of the base that a group of neighbours in the family's list makes: one, or parts of a fused
// one.
using Parts = std::vector<ForeignTensor>;

std::vector<Parts> matrices(const Model& model) {
  std::vector<Parts> out;
  for (const ForeignTensor& t : families().at(model.spec().family).gguf_tensors(model.spec())) {
    if (!t.parameter.ends_with(".weight") || model.parameters().at(t.parameter).shape.size() != 2) continue;
    if (out.empty() || out.back().front().name != t.name) out.emplace_back();
    out.back().push_back(t);
  }
  return out;
}

const LowRank* first_adapter(const Parameters& parameters, const Parts& parts) {
  for (const ForeignTensor& t : parts)
    if (const LowRank& adapter = parameters.adapter(t.parameter)) return &adapter;
  return nullptr;
}

// alpha of the file: the one that makes every factor alpha / rank, or else the options'.
double file_alpha(const Model& model, const AdapterOptions& options) {
  std::optional<double> common;
  for (const Parts& parts : matrices(model)) {
    const LowRank* adapter = first_adapter(model.parameters(), parts);
    if (adapter == nullptr) continue;
    const double alpha = adapter->scale * static_cast<double>(adapter->a->shape[0]);
    if (common && std::abs(*common - alpha) > 1e-9 * alpha) return options.alpha;
    common = alpha;
  }
  return common.value_or(options.alpha);
}

// B of all parts in the file's row order, times what the reader's alpha / rank lacks. A part without an
// adapter adds nothing. Rows of a table that are no tokens are not in the base's file either.
at::Tensor b_of(const Model& model, const Parts& parts, const LowRank& adapter, double alpha) {
  const int64_t rank = adapter.a->shape[0];
  std::vector<at::Tensor> rows;
  for (const ForeignTensor& t : parts) {
    const LowRank& own = model.parameters().adapter(t.parameter);
    const Parameter& weight = model.parameters().at(t.parameter);
    at::Tensor b = own ? own.b->master : at::zeros({weight.shape[0], rank});
    if (is_padded(weight, model.spec())) b = b.narrow(0, 0, model.tokens());
    rows.push_back(t.rope_heads > 0 ? b.index_select(0, interleaved_order(b.size(0), t.rope_heads)) : b);
  }
  const double factor = adapter.scale * static_cast<double>(rank) / alpha;
  const at::Tensor whole = rows.size() == 1 ? rows[0] : at::cat(rows);
  return std::abs(factor - 1.0) < 1e-9 ? whole : whole * factor;
}

formats::PackedTensor f32(const at::Tensor& x) {
  return formats::pack(formats::GgmlType::F32, x.contiguous());
}

}  // namespace

std::string gguf_adapter_misfit(const Model& model, const AdapterOptions& options) {
  const Parameters& parameters = model.parameters();
  if (families().at(model.spec().family).gguf_architecture.empty())
    return fmt::format("llama.cpp has no architecture for a {} model", model.spec().family);
  if (options.dora) return fmt::format("a GGUF adapter has no row lengths (dora); {}", kInstead);
  if (!options.whole.empty())
    return fmt::format("a GGUF adapter holds no part that is trained whole ({}); {}", options.whole.front(),
                       kInstead);
  const bool table = parameters.adapter("embed.weight") || parameters.adapter("lm_head.weight");
  if (table && model.spec().tie_embeddings)
    return fmt::format("a GGUF adapter cannot tell the sides of a tied embedding and head apart; {}",
                       kInstead);
  for (const Parts& parts : matrices(model))
    for (const ForeignTensor& t : parts)
      if (const LowRank& own = parameters.adapter(t.parameter);
          own && own.a != first_adapter(parameters, parts)->a)
        return fmt::format("{} is fused in a GGUF, and its parts have adapters of their own; {}", t.name,
                           kInstead);
  return "";
}

void save_gguf_adapter(FileSystem& files, const Path& path, const Model& model, const AdapterOptions& options,
                       const std::string& name) {
  const at::NoGradGuard no_grad;
  const std::string misfit = gguf_adapter_misfit(model, options);
  check<ConfigError>(misfit.empty(), "{}", misfit);
  check_gguf_place(path);
  const double alpha = file_alpha(model, options);
  std::vector<std::pair<std::string, formats::PackedTensor>> tensors;
  for (const Parts& parts : matrices(model)) {
    const LowRank* adapter = first_adapter(model.parameters(), parts);
    if (adapter == nullptr) continue;
    const at::Tensor a = adapter->a->master, b = b_of(model, parts, *adapter, alpha);
    const bool embedding = parts.front().parameter == "embed.weight";
    tensors.emplace_back(parts.front().name + ".lora_a", f32(embedding ? b : a));
    tensors.emplace_back(parts.front().name + ".lora_b", f32(embedding ? a.t() : b));
  }
  const formats::GgufMetadata metadata = {
      {"general.architecture", families().at(model.spec().family).gguf_architecture},
      {"general.type", std::string("adapter")},
      {"general.name", name},
      {"adapter.type", std::string("lora")},
      {"adapter.lora.alpha", static_cast<float>(alpha)}};
  formats::write_gguf(files, path, metadata, tensors);
}

}  // namespace retort::models
