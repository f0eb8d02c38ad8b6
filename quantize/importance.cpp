#include "quantize/importance.h"

#include "core/error.h"
#include "core/shape.h"
#include "formats/file_mark.h"
#include "formats/gguf.h"
#include "models/family.h"

namespace retort::quantize {
namespace {

using models::Parameter;

constexpr const char* kType = "imatrix";

struct StoredMatrix {
  std::string name;                       // in a GGUF
  std::vector<const Parameter*> holding;  // several where it is fused: they read the same input
};

// Every use of every matrix, in the file's order.
std::vector<StoredMatrix> matrices_of(const models::Model& model) {
  const models::Family& family = models::families().at(model.spec().family);
  check<ConfigError>(!family.gguf_architecture.empty(),
                     "[importance] a matrix goes by its name in a GGUF, and a {} model has none there",
                     family.name);
  std::vector<StoredMatrix> out;
  for (const models::ForeignTensor& t : family.gguf_tensors(model.spec())) {
    const Parameter& p = model.parameters().at(t.parameter);
    if (p.role != models::Role::kMatrix) continue;
    if (out.empty() || out.back().name != t.name) out.push_back({t.name, {}});
    out.back().holding.push_back(&p);
  }
  return out;
}

}  // namespace

Importance measure_importance(models::Model& model, const std::vector<models::TokenBlock>& blocks, Log& log) {
  Calibration calibration(model, blocks);
  Importance out;
  out.tokens = calibration.tokens();
  const int64_t layers = model.layers();
  Progress progress(log, "importance", layers);
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (const InputGroup& group : calibration.collect(layer)) {
      const at::Tensor mean_I = group.second_moment_II.diagonal() / static_cast<double>(group.tokens);
      for (const Parameter* p : group.matrices) out.mean_square_I[p->name] = mean_I.to(at::kFloat);
    }
    calibration.advance(layer);
    progress.update(layer + 1);
  }
  progress.finish();
  return out;
}

void save_importance(FileSystem& files, const Path& path, const models::Model& model,
                     const Importance& importance, const std::string& source, int64_t window) {
  const auto as_u32 = [](int64_t n) { return static_cast<uint32_t>(n); };
  const formats::GgufMetadata metadata = {{"general.type", std::string(kType)},
                                          {"imatrix.datasets", std::vector<std::string>{source}},
                                          {"imatrix.chunk_count", as_u32(importance.tokens / window)},
                                          {"imatrix.chunk_size", as_u32(window)}};
  std::vector<std::pair<std::string, formats::PackedTensor>> tensors;
  const auto add = [&](const std::string& name, const at::Tensor& values) {
    tensors.emplace_back(name, formats::pack(formats::GgmlType::F32, values.unsqueeze(0).contiguous()));
  };
  const double count = static_cast<double>(importance.tokens);
  for (const auto& [name, holding] : matrices_of(model)) {
    add(name + ".in_sum2", importance.mean_square_I.at(holding.front()->name) * count);
    add(name + ".counts", at::full({1}, count, at::kFloat));
  }
  formats::write_gguf(files, path, metadata, tensors);
}

Importance load_importance(const Path& path, const models::Model& model) {
  const formats::GgufFile file(path);
  std::map<std::string, std::pair<at::Tensor, double>> sums;  // by unique parameter
  Importance out;
  for (const auto& [name, holding] : matrices_of(model)) {
    const int64_t in = holding.front()->shape[1];
    for (const auto& [part, size] : {std::pair{".in_sum2", in}, std::pair{".counts", int64_t{1}}}) {
      const formats::GgufTensorInfo* info = file.find_tensor(name + part);
      check<DataError>(info != nullptr, "{}: lacks {}{}; it is of another model", path.string(), name, part);
      check<DataError>(c10::multiply_integers(info->shape) == size, "{}: {}{} must hold {} numbers, got {}",
                       path.string(), name, part, size, format_shape(info->shape));
    }
    const at::Tensor sum_I = file.values(name + ".in_sum2").reshape({in});
    const double count = file.values(name + ".counts").reshape({1}).item<double>();
    check<DataError>(count > 0 && at::isfinite(sum_I).all().item<bool>() && sum_I.min().item<double>() >= 0,
                     "{}: {} must have counts > 0 and finite sums >= 0", path.string(), name);
    for (const Parameter* p : holding) {
      auto& [sum, tokens] = sums[p->name];
      sum = sum.defined() ? sum + sum_I : sum_I;
      tokens += count;
    }
    out.tokens = std::max(out.tokens, static_cast<int64_t>(count));
  }
  for (const auto& [name, part] : sums) out.mean_square_I[name] = part.first / part.second;
  return out;
}

bool is_importance_file(const Path& path) {
  return formats::is_gguf(path) && formats::GgufFile(path).text("general.type", "model") == kType;
}

}  // namespace retort::quantize
