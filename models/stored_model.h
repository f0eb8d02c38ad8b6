// A model whose weights are still where they come from, a file or a stream of random numbers. Its shape is here, and the
// values of one parameter when they are asked for, so that a rank which wants some rows of each never holds all of them.
// Readers check what their loaders do before anything is read; what is damaged throws as theirs.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>

#include "core/file.h"
#include "models/foreign.h"

namespace retort::models {

// A parameter's master by its name, of its whole shape and any floating dtype. It may be a view of a mapped file, which this
// keeps: copy out of it. One thread.
using ParameterValues = std::function<at::Tensor(const Parameter&)>;

struct StoredModel {
  std::unique_ptr<Model> model;  // on at::kMeta
  ParameterValues values;        // none: its masters are set
};

// The values of a model's own parameter as f32, contiguous; maybe a view even so. `values`: a StoredModel's.
inline at::Tensor f32_of(const ParameterValues& values, const Parameter& p) {
  return (values && !p.codes ? values(p) : p.values()).to(at::kFloat).contiguous();
}

StoredModel stored_foreign(const DecoderSpec& spec, const ForeignTensors& list, ForeignFile file);
std::unique_ptr<Decoder> load_foreign(const StoredModel& stored);  // with its masters set
StoredModel stored_hf_folder(const Path& directory);
StoredModel stored_gguf(const Path& path);
StoredModel stored_llama2c(const Path& path);

}  // namespace retort::models
