// The rows of models/families/registry.cpp, one file each.
#pragma once

#include "models/family.h"

namespace retort::models {

Family gpt2_family();
Family llama_family();
Family phi3_family();
Family qwen2_family();
Family qwen3_family();
Family gemma3_family();
Family bitnet_family();
Family spacebyte_family();  // models/bytes/
Family stlm_family();

}  // namespace retort::models
