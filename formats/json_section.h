// An Options struct as JSON, both ways: {"lr": 0.001, "inner": {...}, "many": [{...}, ...]}, keys as its
// describe() names them. Numbers come back with the same bits. A key that is missing when reading leaves the
// member's default, so that files from before the key still open; an unknown key, a wrong type and a broken
// rule are DataErrors that name source and key.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/section.h"
#include "formats/json.h"

namespace retort::formats {

class JsonWriter final : public Section {
 public:
  Json take() { return std::move(open_.front().value); }

 private:
  void visit(Key key, Value value, const Check& check) override;
  bool enter(Key key) override;
  bool enter_optional(Key key, bool& present) override;
  void leave() override;
  size_t enter_list(Key key, size_t size) override;
  bool enter_item(size_t index) override;
  void leave_list() override;

  struct Level {
    std::string name;  // in the one above; of a list's item: ""
    Json value = Json::object();
  };
  std::vector<Level> open_ = std::vector<Level>(1);
};

class JsonReader final : public Section {
 public:
  explicit JsonReader(const Json& root);
  void finish();                                           // after the walk: the top level's unknown keys
  const std::string& problem() const { return problem_; }  // the first; "" when there is none

 private:
  void visit(Key key, Value value, const Check& check) override;
  bool enter(Key key) override;
  bool enter_optional(Key key, bool& present) override;
  void leave() override;
  size_t enter_list(Key key, size_t size) override;
  bool enter_item(size_t index) override;
  void leave_list() override;

  struct Level {
    const Json* value;
    std::string path;                // dotted, from the top
    std::vector<std::string> known;  // keys that were asked for
  };
  const Json* member(std::string_view name);  // nullptr: absent
  bool push(const Json& value, std::string path);
  void report(const std::string& path, std::string_view rule, const Json& got);
  std::string path_of(std::string_view name) const;

  std::vector<Level> open_;
  std::vector<Level> lists_;  // a value of nullptr: absent
  std::string problem_;
};

template <class Options>
Json section_to_json(Options options) {
  JsonWriter writer;
  options.describe(writer);
  return writer.take();
}

// `source` names the JSON in messages: a file and the key in it.
template <class Options>
Options section_from_json(const Json& json, const std::string& source) {
  Options options;
  JsonReader reader(json);
  options.describe(reader);
  reader.finish();
  check<DataError>(reader.problem().empty(), "{}: {}", source, reader.problem());
  return options;
}

}  // namespace retort::formats
