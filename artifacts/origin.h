// Where a model's weights come from, as far as its files say: what the license and the card of a file made of them
// need. Of a Hugging Face folder that is the front matter of README.md and its place in the Hub's cache
// (models--ORGANIZATION--NAME/snapshots/...), of a GGUF its general.* keys. Checkpoints carry it on. A value that is
// not of its form counts as none: these files are for people, and no model is refused for them. Any thread.
#pragma once

#include <string>

#include "core/file.h"
#include "formats/gguf.h"
#include "formats/json.h"

namespace retort::artifacts {

struct Origin {
  std::string license;                     // "apache-2.0"
  std::string license_name, license_link;  // of a license "other"
  std::string base_model;                  // ORGANIZATION/NAME on the Hugging Face Hub
  std::string start;                       // the file or folder that training began with, without its place
  bool operator==(const Origin&) const = default;
};

Origin hf_origin(const Path& folder);
Origin gguf_origin(const formats::GgufFile& file);

// The keys of a GGUF: general.license, general.base_model.count, general.base_model.0.name, ...
formats::GgufMetadata origin_keys(const Origin& origin);

// As a checkpoint keeps it: an object of what is known. DataError naming `source` for another value than a text.
formats::Json to_json(const Origin& origin);
Origin read_origin(const formats::Json& kept, const std::string& source);

// What is wrong with a license or a model of the Hub that a person named; "" when nothing is.
std::string license_misfit(const std::string& license);
std::string base_model_misfit(const std::string& base_model);

}  // namespace retort::artifacts
