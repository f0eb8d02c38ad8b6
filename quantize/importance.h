// An importance matrix: the mean square of every input of every matrix over a calibration text, by which the
// K-quants weigh their errors. It is measured on the model's own weights. Its file is llama.cpp's (GGUF; what
// llama-imatrix writes and llama-quantize --imatrix reads), both ways:
//
//   general.type "imatrix"; imatrix.datasets, string[]: what was read; imatrix.chunk_count,
//   imatrix.chunk_size: how many windows, and tokens of one; for every matrix, by its GGUF name, NAME.in_sum2
//   f32 [1, I]: sums of squares; NAME.counts f32 [1, 1]: over how many tokens
//
// A matrix that layers share is listed once for each of them. I in_features. One thread. Throws DataError; ConfigError for a
// model that GGUF has no names for.
#pragma once

#include <map>
#include <string>

#include "core/file.h"
#include "core/log.h"
#include "quantize/calibration.h"

namespace retort::quantize {

struct Importance {
  std::map<std::string, at::Tensor> mean_square_I;  // f32, by unique parameter
  int64_t tokens = 0;                               // read for it
};

Importance measure_importance(models::Model& model, const std::vector<models::TokenBlock>& blocks, Log& log);

// `source`: what the tokens came from; `window`: tokens of a block's row.
void save_importance(FileSystem& files, const Path& path, const models::Model& model,
                     const Importance& importance, const std::string& source, int64_t window);
// Of this model: every matrix must be there with its width. Uses of a shared matrix are added up.
Importance load_importance(const Path& path, const models::Model& model);
bool is_importance_file(const Path& path);  // a GGUF that says so

}  // namespace retort::quantize
