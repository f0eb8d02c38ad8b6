// A tokenizer with another chat template than its own, which it gives on to the files of a model that has learned to
// write that one. Text becomes the same ids, and the fingerprint stays. Immutable; any thread.
#pragma once

#include <memory>
#include <string>

#include "data/tokenizers/tokenizer.h"

namespace retort::data {

// The tokenizer as it is where it has the template already, or has no files of its own to keep one in (bytes).
std::unique_ptr<Tokenizer> with_chat_template(std::unique_ptr<Tokenizer> tokenizer, std::string text);

}  // namespace retort::data
