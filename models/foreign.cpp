#include "models/foreign.h"

#include <fmt/ranges.h>

#include <set>

#include "core/error.h"
#include "core/nearest.h"
#include "core/shape.h"

namespace retort::models {
namespace {

// The shape of the whole foreign tensor, as stored, that holds parameter p.
std::vector<int64_t> stored_shape(const Parameter& p, int64_t fused_rows, bool transposed) {
  std::vector<int64_t> shape = p.master.sizes().vec();
  if (fused_rows > 0) shape[0] = fused_rows;
  if (transposed) std::swap(shape[0], shape[1]);
  return shape;
}

std::map<std::string, int64_t> fused_rows(const std::vector<ForeignTensor>& tensors) {
  std::map<std::string, int64_t> rows;
  for (const ForeignTensor& t : tensors)
    if (t.rows > 0) rows[t.name] = std::max(rows[t.name], t.row_begin + t.rows);
  return rows;
}

// Every name that the spec wants is there with its shape, and no other name is.
void check_tensors(const Parameters& parameters, const std::vector<ForeignTensor>& tensors,
                   const ForeignFile& file) {
  const auto fused = fused_rows(tensors);
  std::set<std::string> wanted;
  std::vector<std::string> missing;
  for (const ForeignTensor& t : tensors) {
    wanted.insert(t.name);
    const auto found = file.shapes.find(t.name);
    if (found == file.shapes.end()) {
      if (!parameters.is_tied_head(t.parameter)) missing.push_back(t.name);
      continue;
    }
    const auto rows = fused.find(t.name);
    const auto shape =
        stored_shape(parameters.at(t.parameter), rows == fused.end() ? 0 : rows->second, t.transposed);
    check<DataError>(found->second == shape, "{}: {} must have shape {}, got {}", file.where, t.name,
                     format_shape(shape), format_shape(found->second));
  }
  std::vector<std::string> extra;
  for (const auto& [name, shape] : file.shapes)
    if (!wanted.contains(name)) extra.push_back(name);
  const std::string near = missing.empty() || extra.empty() ? "" : did_you_mean(missing[0], extra);
  check<DataError>(
      missing.empty(), "{}: lacks {} of its {} tensors: {}{}", file.where, missing.size(), wanted.size(),
      fmt::join(missing.begin(), missing.begin() + std::min<ptrdiff_t>(8, std::ssize(missing)), ", "), near);
  check<DataError>(extra.empty(), "{}: holds {} tensors that the model does not have: {}", file.where,
                   extra.size(),
                   fmt::join(extra.begin(), extra.begin() + std::min<ptrdiff_t>(8, std::ssize(extra)), ", "));
}

at::Tensor parameter_values(const ForeignTensor& t, const ForeignFile& file) {
  at::Tensor values = file.values(t.name);
  check<DataError>(values.is_floating_point(), "{}: {} must hold floating point numbers, got {}", file.where,
                   t.name, c10::toString(values.scalar_type()));
  if (t.transposed) values = values.t();
  if (t.rows > 0) values = values.narrow(0, t.row_begin, t.rows);
  return values;
}

void set_master(at::Tensor& master, const ForeignTensor& t, const at::Tensor& values) {
  if (t.rope_heads > 0)
    master.index_copy_(0, interleaved_order(master.size(0), t.rope_heads), values.to(at::kFloat));
  else
    master.copy_(values);
}

}  // namespace

void check_foreign_spec(const DecoderSpec& spec, const std::string& where) {
  try {
    spec.validate();
  } catch (const ConfigError& e) {
    fail<DataError>("{}: {}", where, e.what());
  }
}

at::Tensor interleaved_order(int64_t rows, int64_t heads) {
  RETORT_ASSERT(heads > 0 && rows % (2 * heads) == 0);
  return at::arange(rows, at::kLong).view({heads, 2, rows / heads / 2}).transpose(1, 2).reshape({rows});
}

std::unique_ptr<Decoder> load_foreign(const DecoderSpec& spec, const ForeignTensors& list,
                                      const ForeignFile& file) {
  check_foreign_spec(spec, file.where);
  const std::vector<ForeignTensor> tensors = list(spec);
  check_tensors(Decoder(spec, at::kMeta).parameters(), tensors, file);
  auto model = std::make_unique<Decoder>(spec);
  Parameters& parameters = model->parameters();
  const at::NoGradGuard no_grad;
  for (const ForeignTensor& t : tensors)
    if (!parameters.is_tied_head(t.parameter))
      set_master(parameters.at(t.parameter).master, t, parameter_values(t, file));
  for (const ForeignTensor& t : tensors) {
    if (!parameters.is_tied_head(t.parameter) || !file.shapes.contains(t.name)) continue;
    const at::Tensor values = parameter_values(t, file).to(at::kFloat);
    check<DataError>(at::equal(values, parameters.at(t.parameter).master),
                     "{}: says that the head is tied to the embedding, but {} differs from it", file.where,
                     t.name);
  }
  return model;
}

}  // namespace retort::models
