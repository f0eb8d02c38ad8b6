#include "models/foreign.h"

#include <fmt/ranges.h>

#include <map>
#include <set>

#include "core/error.h"
#include "core/nearest.h"
#include "core/shape.h"

namespace retort::models {
namespace {

// The shape of the whole foreign tensor, as stored, that holds parameter p.
std::vector<int64_t> stored_shape(const Parameter& p, int64_t fused_rows, bool transposed) {
  std::vector<int64_t> shape = p.shape;
  if (fused_rows > 0) shape[0] = fused_rows;
  if (transposed) std::swap(shape[0], shape[1]);
  return shape;
}

bool is_alias(const Parameters& parameters, const ForeignTensor& t) {
  return parameters.at(t.parameter).name != t.parameter;
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
  bool headless = false;
  for (const ForeignTensor& t : tensors) {
    wanted.insert(t.name);
    const auto found = file.shapes.find(t.name);
    if (found == file.shapes.end()) {
      if (is_alias(parameters, t)) continue;
      missing.push_back(t.name);
      headless |= t.parameter == "lm_head.weight";
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
  std::string near = missing.empty() || extra.empty() ? "" : did_you_mean(missing[0], extra);
  if (headless) near += "; tie_word_embeddings is false, so the head must have a tensor of its own";
  check<DataError>(
      missing.empty(), "{}: lacks {} of its {} tensors: {}{}", file.where, missing.size(), wanted.size(),
      fmt::join(missing.begin(), missing.begin() + std::min<ptrdiff_t>(8, std::ssize(missing)), ", "), near);
  check<DataError>(extra.empty(), "{}: holds {} tensors that the model does not have: {}", file.where,
                   extra.size(),
                   fmt::join(extra.begin(), extra.begin() + std::min<ptrdiff_t>(8, std::ssize(extra)), ", "));
}

// Gives each parameter's part of the file. Slices of a fused tensor follow each other: it is read once.
class Reader {
 public:
  explicit Reader(const ForeignFile& file) : file_(file) {}

  at::Tensor values(const ForeignTensor& t) {
    if (t.name != name_) whole_ = file_.values(t.name), name_ = t.name;
    check<DataError>(whole_.is_floating_point(), "{}: {} must hold floating point numbers, got {}",
                     file_.where, t.name, c10::toString(whole_.scalar_type()));
    const at::Tensor values = t.transposed ? whole_.t() : whole_;
    return t.rows > 0 ? values.narrow(0, t.row_begin, t.rows) : values;
  }

 private:
  const ForeignFile& file_;
  std::string name_;
  at::Tensor whole_;
};

void set_master(at::Tensor& master, const ForeignTensor& t, const at::Tensor& values) {
  if (t.rope_heads > 0)
    master.index_copy_(0, interleaved_order(master.size(0), t.rope_heads), values.to(at::kFloat));
  else
    master.copy_(values);
  if (t.offset != 0) master.sub_(t.offset);
}

// An alias that the file holds too must say the same.
void check_alias(const Parameter& p, const ForeignTensor& t, const at::Tensor& values,
                 const std::string& where) {
  at::Tensor copy = at::empty_like(p.master);
  set_master(copy, t, values);
  check<DataError>(at::equal(copy, p.master), "{}: says that {} is the same as {}, but {} differs", where,
                   t.parameter == "lm_head.weight" ? "the head" : t.parameter,
                   p.role == Role::kEmbedding ? "the embedding" : p.name, t.name);
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
  // A few bytes can claim thousands of layers, which cost memory even without weights.
  check<DataError>(spec.layers <= std::ssize(file.shapes), "{}: must hold tensors of {} layers, got {} in all",
                   file.where, spec.layers, file.shapes.size());
  const std::vector<ForeignTensor> tensors = list(spec);
  check_tensors(Decoder(spec, at::kMeta).parameters(), tensors, file);
  auto model = std::make_unique<Decoder>(spec);
  Parameters& parameters = model->parameters();
  const at::NoGradGuard no_grad;
  Reader reader(file);
  for (const ForeignTensor& t : tensors)
    if (!is_alias(parameters, t)) set_master(parameters.at(t.parameter).master, t, reader.values(t));
  for (const ForeignTensor& t : tensors)
    if (is_alias(parameters, t) && file.shapes.contains(t.name))
      check_alias(parameters.at(t.parameter), t, reader.values(t), file.where);
  return model;
}

}  // namespace retort::models
