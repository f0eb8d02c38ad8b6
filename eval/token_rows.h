// Rows of token ids from a JSON file, [[ids], ...], all of one length, for a model to look at: [B, T] int64. DataError
// names the file and what breaks the rule: an id outside the vocabulary, a row of another length or beyond the context.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "models/model.h"

namespace retort::eval {

at::Tensor read_token_rows(const std::string& path, const models::Model& model);

}  // namespace retort::eval
