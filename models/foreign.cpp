#include "models/foreign.h"

#include <fmt/ranges.h>

#include <map>
#include <set>

#include "core/error.h"
#include "core/nearest.h"
#include "core/shape.h"
#include "models/stored_model.h"

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

// Whether they are the same numbers, without a copy of either.
bool same_values(const at::Tensor& a, const at::Tensor& b) {
  const RowBlocks blocks = cut_into_blocks(a.sizes());
  for (int64_t row = 0; row < blocks.end; row += blocks.step) {
    const int64_t end = std::min(row + blocks.step, blocks.end);
    if (!at::equal(a.slice(0, row, end).to(at::kFloat), b.slice(0, row, end).to(at::kFloat))) return false;
  }
  return true;
}

// Gives each parameter's part of the file. Slices of a fused tensor follow each other: it is read once.
class Reader {
 public:
  Reader(ForeignFile file, const Parameters& parameters, const std::vector<ForeignTensor>& tensors)
      : file_(std::move(file)) {
    for (const ForeignTensor& t : tensors) {
      Places& places = of_[parameters.at(t.parameter).name];
      if (!is_alias(parameters, t))
        places.own = t;
      else if (file_.shapes.contains(t.name))
        places.aliases.push_back(t);
    }
  }

  at::Tensor values(const Parameter& p) {
    const at::NoGradGuard no_grad;
    const Places& places = of_.at(p.name);
    const at::Tensor own = read(places.own);
    for (const ForeignTensor& t : places.aliases)
      check<DataError>(same_values(own, read(t)), "{}: says that {} is the same as {}, but {} differs",
                       file_.where, t.parameter == "lm_head.weight" ? "the head" : t.parameter,
                       p.role == Role::kEmbedding ? "the embedding" : p.name, t.name);
    return own;
  }

 private:
  struct Places {
    ForeignTensor own;
    std::vector<ForeignTensor> aliases;  // that the file holds too
  };

  at::Tensor read(const ForeignTensor& t) {
    const at::Tensor whole = fetch(t);
    check<DataError>(whole.is_floating_point(), "{}: {} must hold floating point numbers, got {}",
                     file_.where, t.name, c10::toString(whole.scalar_type()));
    at::Tensor values = t.transposed ? whole.t() : whole;
    if (t.rows > 0) values = values.narrow(0, t.row_begin, t.rows);
    if (t.rope_heads > 0)
      values = values.index_select(0, interleaved_order(values.size(0), t.rope_heads).argsort());
    return t.offset == 0 ? values : values.to(at::kFloat).sub(t.offset);
  }

  at::Tensor fetch(const ForeignTensor& t) {
    if (t.rows == 0) return file_.values(t.name);
    if (t.name == name_) return whole_;
    whole_.reset();
    whole_ = file_.values(t.name), name_ = t.name;
    return whole_;
  }

  ForeignFile file_;
  std::map<std::string, Places> of_;  // by unique parameter
  std::string name_;                  // of the fused tensor that was read last
  at::Tensor whole_;
};

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

StoredModel stored_foreign(const DecoderSpec& spec, const ForeignTensors& list, ForeignFile file) {
  check_foreign_spec(spec, file.where);
  // A few bytes can claim thousands of layers, which cost memory even without weights.
  check<DataError>(spec.layers <= std::ssize(file.shapes),
                   "{}: must hold tensors of {} layers, got {} in all", file.where, spec.layers,
                   file.shapes.size());
  const std::vector<ForeignTensor> tensors = list(spec);
  auto shape = std::make_unique<Decoder>(spec, at::kMeta);
  check_tensors(shape->parameters(), tensors, file);
  const auto reader = std::make_shared<Reader>(std::move(file), shape->parameters(), tensors);
  return {std::move(shape), [reader](const Parameter& p) { return reader->values(p); }};
}

std::unique_ptr<Decoder> load_foreign(const DecoderSpec& spec, const ForeignTensors& list,
                                      const ForeignFile& file) {
  return load_foreign(stored_foreign(spec, list, file));
}

std::unique_ptr<Decoder> load_foreign(const StoredModel& stored) {
  auto model = std::make_unique<Decoder>(stored.model->spec());
  const at::NoGradGuard no_grad;
  for (Parameter& p : model->parameters().unique()) p.master.copy_(stored.values(p));
  return model;
}

}  // namespace retort::models
