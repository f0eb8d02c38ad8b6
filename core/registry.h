// An explicit table name -> spec. Rows are written out where the table is made, in order, so that the
// table is greppable and a linker cannot drop a row. Immutable after construction, so any thread may read it.
// A Spec is a struct with a `std::string name`. Throws InternalError on a duplicate row and ConfigError,
// with the known names, on an unknown one.
#pragma once

#include <fmt/ranges.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/nearest.h"

namespace retort {

template <class Spec>
class Registry {
 public:
  // `noun` names one row in messages: Registry<LossSpec>("distillation loss", {...}).
  Registry(std::string noun, std::vector<Spec> rows) : noun_(std::move(noun)), rows_(std::move(rows)) {
    for (size_t i = 0; i < rows_.size(); ++i)
      for (size_t j = 0; j < i; ++j)
        if (rows_[i].name == rows_[j].name)
          fail<InternalError>("[registry] {} \"{}\" is registered twice", noun_, rows_[i].name);
  }

  const Spec* find(std::string_view name) const {
    for (const Spec& row : rows_)
      if (row.name == name) return &row;
    return nullptr;
  }

  const Spec& at(std::string_view name) const {
    if (const Spec* row = find(name)) return *row;
    const std::vector<std::string> known = names();
    fail<ConfigError>("unknown {} \"{}\"{}; known: {}", noun_, name, did_you_mean(name, known),
                      fmt::join(known, ", "));
  }

  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const Spec& row : rows_) out.push_back(row.name);
    return out;
  }

  auto begin() const { return rows_.begin(); }
  auto end() const { return rows_.end(); }
  size_t size() const { return rows_.size(); }

 private:
  std::string noun_;
  std::vector<Spec> rows_;
};

}  // namespace retort
