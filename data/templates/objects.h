// The values that have a type of their own: what can be called, walked through, or holds names. They lie in the
// rendering's Heap and are never destroyed, so their members are plain. An object answers for itself; a new
// kind of object is a struct here and, where a template makes it, a row in functions.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "data/templates/value.h"

namespace retort::data::jinja {

class Interpreter;
struct Builtin;
struct Frame;
struct Iterator;
struct Macro;  // of the syntax

struct Named {
  std::string_view name;
  Value value;
};
struct Arguments {
  std::span<const Value> positional;
  std::span<const Named> named;
};

struct Object {
  virtual std::string_view type() const = 0;
  virtual std::string_view module() const { return ""; }  // with its dot, where Python shows it
  virtual bool truth() const { return true; }
  virtual bool callable() const { return false; }
  virtual bool equals(const Object& other) const { return this == &other; }
  virtual Value call(Interpreter& at, const Arguments& arguments);  // raises that it cannot
  // Missing where there is none.
  virtual Value attribute(Interpreter& /*at*/, std::string_view /*name*/) { return {}; }
  virtual Value item(Interpreter& /*at*/, const Value& /*index*/) { return {}; }
  virtual bool sized() const { return false; }
  virtual int64_t length(Interpreter& at);
  virtual bool indexable() const { return false; }
  virtual Iterator* iterate(Interpreter& /*at*/) { return nullptr; }  // null: not iterable
  virtual void print(Interpreter& at, Buffer& out);  // repr(); raises where that is an address

 protected:
  ~Object() = default;
};

// What gives values one after another, once: Python's generators, and every loop's source.
struct Iterator : Object {
  virtual bool next(Interpreter& at, Value& value) = 0;  // false at the end
  std::string_view type() const override { return "generator"; }
  Iterator* iterate(Interpreter&) override { return this; }

 protected:
  ~Iterator() = default;
};

// A row of a table, or of a value's methods, bound to that value.
struct Function final : Object {
  Function(const Builtin& row, const Value& self) : row(row), self(self) {}
  std::string_view type() const override { return "builtin_function_or_method"; }
  bool callable() const override { return true; }
  Value call(Interpreter& at, const Arguments& arguments) override;

  const Builtin& row;
  Value self;
};

struct MacroObject final : Object {
  MacroObject(const Macro& syntax, Frame* frame) : syntax(syntax), frame(frame) {}
  std::string_view type() const override { return "Macro"; }
  std::string_view module() const override { return "jinja2.runtime."; }
  bool callable() const override { return true; }
  Value call(Interpreter& at, const Arguments& arguments) override;
  Value attribute(Interpreter& at, std::string_view name) override;
  void print(Interpreter& at, Buffer& out) override;

  const Macro& syntax;
  Frame* frame;  // where it was made
};

struct Namespace final : Object {
  struct Attribute {
    Value name, value;
    Attribute* next = nullptr;
  };
  std::string_view type() const override { return "Namespace"; }
  std::string_view module() const override { return "jinja2.utils."; }
  Value attribute(Interpreter& at, std::string_view name) override;
  void print(Interpreter& at, Buffer& out) override;
  void set(Heap& heap, const Value& name, const Value& value);

  Attribute *first = nullptr, *last = nullptr;
};

struct Range final : Object {
  Range(int64_t start, int64_t step, int64_t count) : start(start), step(step), count(count) {}
  std::string_view type() const override { return "range"; }
  bool truth() const override { return count > 0; }
  bool equals(const Object& other) const override;
  Value item(Interpreter& at, const Value& index) override;
  bool sized() const override { return true; }
  int64_t length(Interpreter&) override { return count; }
  bool indexable() const override { return true; }
  Iterator* iterate(Interpreter& at) override;
  void print(Interpreter& at, Buffer& out) override;

  int64_t start, step, count;
};

// dict.keys(), values() and items().
struct DictView final : Object {
  enum class Part { kKeys, kValues, kItems };
  DictView(const Dict& dict, Part part) : dict(dict), part(part) {}
  std::string_view type() const override;
  bool truth() const override { return dict.size() > 0; }
  bool sized() const override { return true; }
  int64_t length(Interpreter&) override { return static_cast<int64_t>(dict.size()); }
  Iterator* iterate(Interpreter& at) override;
  void print(Interpreter& at, Buffer& out) override;

  const Dict& dict;
  Part part;
};

// `loop`, and the walk through its source: it looks one value ahead when it is asked for that.
struct Loop final : Object {
  Loop(const Value& source, Iterator* iterator, int64_t depth)
      : source(source), iterator(iterator), depth(depth) {}
  bool advance(Interpreter& at);  // to the next value; false at the end
  std::string_view type() const override { return "LoopContext"; }
  std::string_view module() const override { return "jinja2.runtime."; }
  bool callable() const override { return true; }
  Value call(Interpreter& at, const Arguments& arguments) override;
  Value attribute(Interpreter& at, std::string_view name) override;
  bool sized() const override { return true; }
  int64_t length(Interpreter& at) override;
  void print(Interpreter& at, Buffer& out) override;
  const Value& ahead(Interpreter& at);  // missing at the end

  Value source, current, before, next, changed;
  Iterator* iterator;
  int64_t index = -1, depth, count = -1;
  bool looked = false;  // ahead
  const struct ForLoop* recursive = nullptr;
  Frame* frame = nullptr;
};

struct Cycler final : Object {
  explicit Cycler(std::span<const Value> items) : items(items) {}
  std::string_view type() const override { return "Cycler"; }
  std::string_view module() const override { return "jinja2.utils."; }
  Value attribute(Interpreter& at, std::string_view name) override;

  std::span<const Value> items;
  size_t at = 0;
};

struct Joiner final : Object {
  explicit Joiner(const Value& separator) : separator(separator) {}
  std::string_view type() const override { return "Joiner"; }
  std::string_view module() const override { return "jinja2.utils."; }
  bool callable() const override { return true; }
  Value call(Interpreter& at, const Arguments& arguments) override;

  Value separator;
  bool used = false;
};

// What str.encode() gives: it can be printed and counted.
struct Bytes final : Object {
  explicit Bytes(std::string_view bytes) : bytes(bytes) {}
  std::string_view type() const override { return "bytes"; }
  bool truth() const override { return !bytes.empty(); }
  bool equals(const Object& other) const override;
  bool sized() const override { return true; }
  int64_t length(Interpreter&) override { return static_cast<int64_t>(bytes.size()); }
  void print(Interpreter& at, Buffer& out) override;

  std::string_view bytes;
};

// The values of a list or a tuple, forwards or backwards.
struct ItemIterator final : Iterator {
  explicit ItemIterator(std::span<const Value> items, bool back = false) : items(items), back(back) {}
  bool next(Interpreter& at, Value& value) override;

  std::span<const Value> items;
  bool back;
};

}  // namespace retort::data::jinja
