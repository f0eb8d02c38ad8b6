// A teacher, and what a reference was computed from, of a model that no rank has room for (train/divided_model.h).
#pragma once

#include <memory>
#include <string>

#include "distill/reference.h"
#include "models/stored_model.h"
#include "train/divided_model.h"

namespace retort::distill {

// As a live one, but that ranks ask together: each as often as the others. Its weights are taken.
std::unique_ptr<Teacher> make_divided_teacher(std::shared_ptr<train::DividedModel> model);

// reference_identity() (distill/reference.h) of a model whose weights are stored.
std::string reference_identity(const models::Parameters& parameters, const models::ParameterValues& values,
                               at::ScalarType precision, const std::vector<data::Source>& sources,
                               const data::BatchOptions& options);

}  // namespace retort::distill
