#include "models/gguf_model.h"

#include <cstring>
#include <map>

#include "core/error.h"
#include "core/host_tensor.h"
#include "formats/file_mark.h"
#include "formats/finite_values.h"
#include "models/family.h"
#include "models/stored_model.h"

namespace retort::models {
namespace {

using formats::GgmlType;
using formats::PackedTensor;

const Family& family_of(const formats::GgufFile& file) {
  const int64_t parts = file.integer("split.count", 1);
  check<DataError>(parts <= 1,
                   "{}: is part {} of {} of a split GGUF, which is not read; join them with llama-gguf-split "
                   "--merge",
                   file.path().string(), file.integer("split.no", 0) + 1, parts);
  check<DataError>(
      file.text("general.type", "model") != "adapter",
      "{}: is an adapter, which llama.cpp applies to its base with --lora; it is read from a folder of "
      "peft",
      file.path().string());
  const std::string architecture = file.text("general.architecture");
  std::vector<std::string> known;
  for (const Family& family : families()) {
    if (family.gguf_architecture.empty()) continue;  // a model that only retort knows
    if (family.gguf_architecture == architecture) return family;
    known.push_back(family.gguf_architecture);
  }
  fail<DataError>("{}: architecture \"{}\" is not known; known: {}", file.path().string(), architecture,
                  fmt::join(known, ", "));
}

bool must_be_f32(Role role) { return role == Role::kNorm || role == Role::kBias || role == Role::kPositions; }

// Whole rows in another order, so that blocks survive.
PackedTensor reorder_rows(const PackedTensor& t, const at::Tensor& order) {
  const bool matrix = t.shape.size() == 2;
  const size_t row_bytes =
      static_cast<size_t>(matrix ? t.row_bytes() : formats::ggml_type_info(t.type).block_bytes);
  RETORT_ASSERT(t.bytes.size() == row_bytes * static_cast<size_t>(order.numel()));
  PackedTensor out{t.type, t.shape, std::vector<std::byte>(t.bytes.size())};
  std::byte* to = out.bytes.data();
  for (const int64_t row : host_values<const int64_t>(order)) {
    std::memcpy(to, &t.bytes[static_cast<size_t>(row) * row_bytes], row_bytes);
    to += row_bytes;
  }
  return out;
}

void append_rows(PackedTensor& whole, const PackedTensor& part, const std::string& name) {
  check<ConfigError>(whole.type == part.type, "[gguf] {} fuses tensors of types {} and {}; give them one",
                     name, formats::ggml_type_info(whole.type).name, formats::ggml_type_info(part.type).name);
  whole.shape[0] += part.shape[0];
  whole.bytes.insert(whole.bytes.end(), part.bytes.begin(), part.bytes.end());
}

void cut_rows(PackedTensor& t, int64_t rows) {
  t.bytes.resize(static_cast<size_t>(rows * t.row_bytes()));
  t.shape[0] = rows;
}

using NamedPacked = std::vector<std::pair<std::string, PackedTensor>>;

// Every unique parameter's packed form, made at its first use and gone with its last.
class PackedOnce {
 public:
  PackedOnce(const Packer& packer, const Parameters& parameters, const std::vector<ForeignTensor>& uses)
      : packer_(packer) {
    for (const ForeignTensor& t : uses)
      if (!parameters.is_tied_head(t.parameter)) ++left_[parameters.at(t.parameter).name];
  }
  PackedTensor take(const Parameter& p) {
    auto [place, first] = packed_.try_emplace(p.name);
    if (first) place->second = must_be_f32(p.role) ? formats::pack(GgmlType::F32, p.master) : packer_(p);
    check(place->second.shape == p.shape, "[gguf] the packed form of {} must keep its shape", p.name);
    if (--left_.at(p.name) > 0) return place->second;
    return std::move(packed_.extract(place).mapped());
  }

 private:
  const Packer& packer_;
  std::map<std::string, int64_t> left_;
  std::map<std::string, PackedTensor> packed_;
};

NamedPacked packed_tensors(const Model& model, const Family& family, const Packer& packer) {
  const Parameters& parameters = model.parameters();
  const std::vector<ForeignTensor> uses = family.gguf_tensors(model.spec());
  PackedOnce packed(packer, parameters, uses);
  NamedPacked out;
  for (const ForeignTensor& t : uses) {
    if (parameters.is_tied_head(t.parameter)) continue;
    const Parameter& p = parameters.at(t.parameter);
    PackedTensor own = packed.take(p);
    if (is_padded(p, model.spec())) cut_rows(own, model.tokens());
    if (t.offset != 0) own = formats::pack(GgmlType::F32, p.master + t.offset);
    if (t.rope_heads > 0) own = reorder_rows(own, interleaved_order(own.shape[0], t.rope_heads));
    if (!out.empty() && out.back().first == t.name)
      append_rows(out.back().second, own, t.name);
    else
      out.emplace_back(t.name, std::move(own));
  }
  for (const auto& [name, values] : family.gguf_constants(model.spec()))
    out.emplace_back(name, formats::pack(GgmlType::F32, values));
  return out;
}

// general.file_type, for display: llama.cpp's number for the type of most of the matrices' values.
uint32_t file_type(const NamedPacked& tensors) {
  using enum GgmlType;
  static const std::map<GgmlType, uint32_t> numbers = {
      {F32, 0},   {F16, 1},   {Q4_0, 2},  {Q4_1, 3},  {Q8_0, 7},  {Q5_0, 8},   {Q5_1, 9},   {Q2_K, 10},
      {Q3_K, 11}, {Q4_K, 14}, {Q5_K, 16}, {Q6_K, 18}, {BF16, 32}, {TQ1_0, 36}, {TQ2_0, 37}, {MXFP4, 38}};
  std::map<GgmlType, int64_t> values;
  for (const auto& [name, t] : tensors)
    if (t.shape.size() == 2) values[t.type] += t.shape[0] * t.shape[1];
  const auto most = std::max_element(values.begin(), values.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  return numbers.at(most->first);
}

}  // namespace

std::unique_ptr<Decoder> load_gguf(const Path& path) { return load_foreign(stored_gguf(path)); }

StoredModel stored_gguf(const Path& path) {
  const formats::GgufFile file(path);
  const Family& family = family_of(file);
  const DecoderSpec spec = family.spec_from_gguf(file);
  ForeignFile foreign{path.string(), {}, [file](const std::string& name) { return file.values(name); }};
  for (const formats::GgufTensorInfo& t : file.tensors()) foreign.shapes[t.name] = t.shape;
  check_foreign_spec(spec, path.string());
  for (const auto& [name, values] : family.gguf_constants(spec)) foreign.shapes.erase(name);
  return stored_foreign(spec, family.gguf_tensors, std::move(foreign));
}

DecoderSpec gguf_spec(const Path& path) {
  const formats::GgufFile file(path);
  return family_of(file).spec_from_gguf(file);
}

void check_gguf_place(const Path& path) {
  if (!std::filesystem::is_regular_file(path) || std::filesystem::file_size(path) == 0) return;
  check<IoError>(formats::is_gguf(path), "{}: exists and is no GGUF; not replaced: name another file",
                 path.string());
}

void save_gguf(FileSystem& files, const Path& path, const Model& model, const Packer& packer,
               const formats::GgufMetadata& tokenizer, const std::string& name) {
  check<InternalError>(!model.parameters().has_adapters(), "[gguf] adapters must be merged first");
  check_gguf_place(path);
  const Family& family = families().at(model.spec().family);
  check<InternalError>(family.gguf_metadata != nullptr, "[gguf] a {} model has no form in a GGUF",
                       family.name);
  const NamedPacked tensors = packed_tensors(model, family, packer);
  for (const auto& [tensor, packed] : tensors) formats::check_in_range("[export]", tensor, packed);
  formats::GgufMetadata metadata = family.gguf_metadata(without_padding(model.spec()));
  const bool quantized = std::any_of(tensors.begin(), tensors.end(), [](const auto& t) {
    return formats::ggml_type_info(t.second.type).block > 1;
  });
  formats::GgufMetadata general = {{"general.name", name}, {"general.file_type", file_type(tensors)}};
  if (quantized) general.emplace_back("general.quantization_version", uint32_t{2});
  metadata.insert(metadata.begin() + 1, general.begin(), general.end());  // after general.architecture
  metadata.insert(metadata.end(), tokenizer.begin(), tokenizer.end());
  formats::write_gguf(files, path, metadata, tensors);
}

}  // namespace retort::models
