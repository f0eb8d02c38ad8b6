// What Ollama makes a model of (`ollama create NAME -f FILE`), beside a GGUF: FROM, and a PARAMETER stop for each token
// that ends a text or a turn. It has no TEMPLATE: that is Go's language, into which a chat template of Jinja cannot
// be translated in general, and without one Ollama goes by the template in the GGUF. Source: Ollama's
// docs/modelfile.md. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "data/tokenizers/tokenizer.h"

namespace retort::artifacts {

// MODEL.Modelfile beside MODEL.gguf.
Path modelfile_path(const Path& gguf);
// `tokenizer`: nullptr for none.
std::string modelfile(const Path& gguf, const data::Tokenizer* tokenizer, const std::vector<int32_t>& ends);
bool is_modelfile(std::string_view text);  // of ours

}  // namespace retort::artifacts
