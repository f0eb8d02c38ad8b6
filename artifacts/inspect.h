// What is in a file or a directory, for a person: names, shapes, types, metadata, and whether checksums hold.
// Teacher caches are distill/inspect_cache.h's.
#pragma once

#include <functional>
#include <string_view>

#include "core/file.h"
#include "core/log.h"
#include "models/decoder_spec.h"

namespace retort::artifacts {

using Say = std::function<void(std::string_view line)>;  // takes each line as soon as it is known

// Of a stage's directory, its result too. IoError for no such path, DataError for what is damaged or not
// known.
void inspect(const Path& path, const Say& say, Log& log);
// Of a shape alone: parameters, FLOPs and bytes.
void inspect_spec(const models::DecoderSpec& spec, const Say& say);

}  // namespace retort::artifacts
