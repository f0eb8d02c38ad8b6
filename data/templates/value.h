// The values of the template language: Python's, as far as templates see them. A Value is 16 bytes; what it
// points to lies in the rendering's Heap (or in the template, or in the conversation) and is never changed,
// but for namespaces and loops. So copies and slices are free, and equal pointers mean the same object.
//
//   missing     no value: a variable that is not set, an argument that was not given
//   undefined   Jinja's: prints nothing, is false and empty; it knows what to say when it is used otherwise
//   integer     128 bits; beyond them a template is refused. Python's have no end
//   text        UTF-8, counted in characters (text.h); `markup` is markupsafe's, which escapes what is added
//   object      what else has a type of its own in Python or Jinja (objects.h)
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "data/templates/heap.h"

namespace retort::data::jinja {

using Integer = __int128;

enum class Kind : uint8_t {
  kMissing,
  kUndefined,
  kNone,
  kBool,
  kInteger,
  kFloat,
  kText,
  kList,
  kTuple,
  kDict,
  kObject
};

class Dict;
struct Object;

class Value {
 public:
  Value() = default;

  static Value none() { return Value(Kind::kNone); }
  static Value boolean(bool value) {
    Value out(Kind::kBool);
    out.integer_ = value;
    return out;
  }
  static Value integer(Heap& heap, Integer value);
  static Value integer(int64_t value) {
    Value out(Kind::kInteger);
    out.integer_ = value;
    return out;
  }
  static Value wide(const Integer& value);  // which must outlive it
  static Value real(double value) {
    Value out(Kind::kFloat);
    out.real_ = value;
    return out;
  }
  // `bytes` must outlive the value.
  static Value text(std::string_view bytes, bool markup = false);
  static Value list(std::span<const Value> items) { return Value(Kind::kList, items); }
  static Value tuple(std::span<const Value> items) { return Value(Kind::kTuple, items); }
  static Value group(std::span<const Value> items);  // (grouper, list), with names, as groupby makes
  static Value dict(const Dict* dict) {
    Value out(Kind::kDict);
    out.dict_ = dict;
    return out;
  }
  static Value object(Object* object) {
    Value out(Kind::kObject);
    out.object_ = object;
    return out;
  }
  // A variable that is not set; an attribute that `owner` lacks, or one that the sandbox forbids; or with a
  // message of its own. `name` and `message` must outlive the value.
  static Value undefined_name(std::string_view name);
  static Value undefined_attribute(Heap& heap, const Value& owner, std::string_view name);
  static Value unsafe_attribute(Heap& heap, const Value& owner, std::string_view name);
  static Value undefined(std::string_view message);

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool missing() const { return kind_ == Kind::kMissing; }
  bool undefined() const { return kind_ == Kind::kUndefined; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }
  bool is_integral() const { return kind_ == Kind::kInteger || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }

  bool boolean() const { return integer_ != 0; }
  Integer integer() const { return flag_ == kWide ? *wide_ : integer_; }
  double real() const { return kind_ == Kind::kFloat ? real_ : static_cast<double>(integer()); }
  std::string_view bytes() const { return {text_, size_}; }
  bool ascii() const { return (flag_ & kAscii) != 0; }
  bool markup() const { return (flag_ & kMarkup) != 0; }
  std::span<const Value> items() const { return {items_, size_}; }
  bool is_group() const { return flag_ == kGroup; }
  const Dict& dict() const { return *dict_; }
  Object& object() const { return *object_; }

  // A part of this text, which keeps what is known of it.
  Value part(std::string_view bytes) const;
  Value as_markup(bool markup) const;
  std::string undefined_message() const;
  bool same(const Value& other) const;  // Python's `is`

 private:
  // By kind: of an integer, a tuple, an undefined; texts have two bits.
  static constexpr uint8_t kWide = 1, kGroup = 1, kName = 0, kAttribute = 1, kMessage = 2, kAscii = 1,
                           kMarkup = 2;

  explicit Value(Kind kind) : kind_(kind) {}
  Value(Kind kind, std::span<const Value> items)
      : kind_(kind), size_(static_cast<uint32_t>(items.size())), items_(items.data()) {}

  Kind kind_ = Kind::kMissing;
  uint8_t flag_ = 0;
  uint8_t owner_ = 0;  // of an undefined attribute: the owner's kind
  uint32_t size_ = 0;
  union {
    int64_t integer_ = 0;
    double real_;
    const Integer* wide_;
    const char* text_;
    const Value* items_;
    const Dict* dict_;
    Object* object_;
  };
};
static_assert(sizeof(Value) == 16);

// Keys and values in the order of insertion. Filled once, then left alone.
class Dict {
 public:
  struct Entry {
    Value key, value;
  };
  // Room for `capacity` entries.
  Dict(Heap& heap, size_t capacity);
  // Sets or replaces, as Python: a key that is equal to one that is there keeps that one's place.
  void set(Heap& heap, const Value& key, const Value& value);
  const Value* find(Heap& heap, const Value& key) const;
  const Value* find(Heap& heap, std::string_view key) const;  // of texts that the template names
  std::span<const Entry> entries() const { return {entries_, size_}; }
  size_t size() const { return size_; }

  int32_t message = -1;  // which message of the conversation this is

 private:
  uint32_t* bucket(Heap& heap, const Value& key) const;

  Entry* entries_;
  uint32_t* buckets_ = nullptr;  // entry + 1, 0 where free; none for a few entries
  uint32_t size_ = 0, mask_ = 0;
};

// Values that become a list, in the heap.
class Items {
 public:
  explicit Items(Heap& heap) : heap_(heap) {}
  void add(const Value& value);
  std::span<const Value> all() const { return {items_, size_}; }
  std::span<Value> all() { return {items_, size_}; }
  size_t size() const { return size_; }

 private:
  Heap& heap_;
  Value* items_ = nullptr;
  size_t size_ = 0, room_ = 0;
};

// Python's name of a value's type: "str", "NoneType".
std::string_view type_name(const Value& value);
// As Jinja names the owner of what is undefined: "dict object", "None".
std::string owner_name(const Value& value);

bool truth(const Value& value);
// Raises what an undefined value says when it is used.
[[noreturn]] void raise_undefined(const Value& value);

}  // namespace retort::data::jinja
