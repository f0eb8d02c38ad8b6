// A stage of a recipe with everything that it runs on: the top level of the recipe overlaid by its own keys.
// Which sections it has follows from its kind (recipes/stage_kind.h); each is found by the type of its options:
//
//   const DataOptions& data = stage.get<DataOptions>();
//   if (const auto* data = stage.find<DataOptions>()) ...     nullptr where the kind takes no such section
//
// Values; any thread. get() throws InternalError for a section that the kind does not take.
#pragma once

#include <any>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "core/error.h"
#include "core/section.h"

namespace retort::recipes {

// A section that stages may take, with the defaults of its options. std::optional<Options>: its absence means
// something.
struct SectionKind {
  std::string name, doc;
  std::any defaults;
  void (*describe)(Section& s, const SectionKind& kind, std::any& options);
  std::string instead = {};  // a key that comes instead of all others, where it is not empty; "": none
};

template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;

template <class Options>
SectionKind section_kind(std::string name, std::string doc) {
  return {std::move(name), std::move(doc), Options(),
          [](Section& s, const SectionKind& kind, std::any& options) {
            auto& values = *std::any_cast<Options>(&options);
            if constexpr (is_optional<Options>)
              s.optional(kind.name, values, kind.doc);
            else
              s.section(kind.name, values, kind.doc);
          },
          {}};
}

// The values of some sections.
class Sections {
 public:
  Sections() = default;
  explicit Sections(std::vector<SectionKind> kinds);
  void describe(Section& s);

  template <class Options>
  const Options* find() const {
    for (const std::any& one : values_)
      if (const auto* options = std::any_cast<Options>(&one)) return options;
    return nullptr;
  }

 private:
  std::vector<SectionKind> kinds_;
  std::vector<std::any> values_;  // of each
};

class Stage {
 public:
  explicit Stage(const std::string& kind = "train", std::string name = "train");
  std::string name;
  const std::string& kind() const { return kind_; }

  template <class Options>
  const Options* find() const {
    return sections_.find<Options>();
  }
  template <class Options>
  const Options& get() const {
    const Options* options = find<Options>();
    check<InternalError>(options != nullptr, "[stage] {} of kind {} takes no such section", name, kind_);
    return *options;
  }
  template <class Options>
  Options& get() {
    return const_cast<Options&>(static_cast<const Stage*>(this)->get<Options>());
  }
  void describe(Section& s);  // name, kind and what the kind takes

 private:
  std::string kind_;
  Sections sections_;
};

}  // namespace retort::recipes
