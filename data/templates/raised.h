// An error within a template on its way out: where the template is named, it becomes a DataError
// "FILE:LINE:COLUMN: TEXT" (data/templates/chat_template.cpp). Lines and columns count from 1, columns in
// characters.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace retort::data::jinja {

struct Place {
  uint32_t line = 1, column = 1;
};

struct Raised {
  std::string text;
  std::optional<Place> place;  // none: where the interpreter is
};

template <class... Args>
[[noreturn]] void raise(fmt::format_string<Args...> text, Args&&... args) {
  throw Raised{fmt::format(text, std::forward<Args>(args)...), std::nullopt};
}
template <class... Args>
[[noreturn]] void raise_at(Place place, fmt::format_string<Args...> text, Args&&... args) {
  throw Raised{fmt::format(text, std::forward<Args>(args)...), place};
}

}  // namespace retort::data::jinja
