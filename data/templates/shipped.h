// The chat templates that come with Retort (shipped/*.jinja, embedded by cmake/embed.cmake): for data that is to be
// written in a form without a model at hand. A template is a file and a row.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/registry.h"

namespace retort::data {

struct ShippedTemplate {
  std::string name;
  std::vector<std::string> special;  // marks that it prints and that want to be one token each
};
const Registry<ShippedTemplate>& shipped_templates();

// The files, by name; and the one of a row.
struct ShippedText {
  std::string_view name, text;
};
const std::vector<ShippedText>& shipped_texts();
std::string_view shipped_text(std::string_view name);

}  // namespace retort::data
