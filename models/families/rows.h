// The rows of models/families/registry.cpp, one file each.
#pragma once

#include "models/family.h"

namespace retort::models {

Family gpt2_family();
Family llama_family();

}  // namespace retort::models
