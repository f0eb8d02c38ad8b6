// What a teacher cache holds, for a person, and whether it is whole.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "core/file.h"

namespace retort::distill {

// `say` takes each line as soon as it is known. With shards or a tokenizer (none: ""), DataError unless the
// cache is of them; DataError too for a damaged one.
void inspect_cache(const Path& directory, const std::string& shards, const std::string& tokenizer,
                   const std::function<void(std::string_view line)>& say);

}  // namespace retort::distill
