#include "data/templates/value.h"

#include <algorithm>
#include <bit>

#include "data/templates/objects.h"
#include "data/templates/order.h"
#include "data/templates/raised.h"
#include "data/templates/text.h"

namespace retort::data::jinja {

Value Value::integer(Heap& heap, Integer value) {
  if (value >= INT64_MIN && value <= INT64_MAX) return integer(static_cast<int64_t>(value));
  return wide(*heap.make<Integer>(value));
}

Value Value::wide(const Integer& value) {
  Value out(Kind::kInteger);
  out.flag_ = kWide;
  out.wide_ = &value;
  return out;
}

Value Value::text(std::string_view bytes, bool markup) {
  Value out(Kind::kText);
  out.flag_ = static_cast<uint8_t>((is_ascii(bytes) ? kAscii : 0) | (markup ? kMarkup : 0));
  out.size_ = static_cast<uint32_t>(bytes.size());
  out.text_ = bytes.data();
  return out;
}

Value Value::part(std::string_view bytes) const {
  Value out = ascii() ? *this : text(bytes, markup());
  out.size_ = static_cast<uint32_t>(bytes.size());
  out.text_ = bytes.data();
  return out;
}

Value Value::as_markup(bool markup) const {
  Value out = *this;
  out.flag_ = static_cast<uint8_t>((flag_ & kAscii) | (markup ? kMarkup : 0));
  return out;
}

Value Value::group(std::span<const Value> items) {
  Value out = tuple(items);
  out.flag_ = kGroup;
  return out;
}

Value Value::undefined(std::string_view message) {
  Value out(Kind::kUndefined);
  out.flag_ = kMessage;
  out.size_ = static_cast<uint32_t>(message.size());
  out.text_ = message.data();
  return out;
}

Value Value::undefined_name(std::string_view name) {
  Value out = undefined(name);
  out.flag_ = kName;
  return out;
}

Value Value::undefined_attribute(Heap& heap, const Value& owner, std::string_view name) {
  if (owner.is(Kind::kObject) || owner.is(Kind::kText))
    return undefined(heap.copy(fmt::format("'{}' has no attribute {}", owner_name(owner), in_quotes(name))));
  Value out = undefined(name);
  out.flag_ = kAttribute;
  out.owner_ = static_cast<uint8_t>(owner.kind());
  return out;
}

Value Value::unsafe_attribute(Heap& heap, const Value& owner, std::string_view name) {
  return undefined(heap.copy(
      fmt::format("access to attribute {} of '{}' object is unsafe.", in_quotes(name), type_name(owner))));
}

std::string Value::undefined_message() const {
  if (flag_ == kMessage) return std::string(bytes());
  if (flag_ == kName) return fmt::format("{} is undefined", in_quotes(bytes()));
  return fmt::format("'{}' has no attribute {}", owner_name(Value(static_cast<Kind>(owner_))),
                     in_quotes(bytes()));
}

bool Value::same(const Value& other) const {
  if (kind_ != other.kind_) return false;
  if (kind_ == Kind::kUndefined) return text_ == other.text_ && size_ == other.size_;
  if (kind_ == Kind::kInteger) return integer() == other.integer();
  if (kind_ == Kind::kText || is_sequence())
    return size_ == other.size_ && (text_ == other.text_ || size_ == 0);
  return integer_ == other.integer_;
}

namespace {
constexpr size_t kFew = 8;  // entries that are looked through one by one
}

Dict::Dict(Heap& heap, size_t capacity) : entries_(heap.array<Entry>(capacity)) {
  if (capacity <= kFew) return;
  const size_t buckets = std::bit_ceil(2 * capacity);
  buckets_ = heap.array<uint32_t>(buckets);
  mask_ = static_cast<uint32_t>(buckets - 1);
}

uint32_t* Dict::bucket(Heap& heap, const Value& key) const {
  for (size_t at = hash(heap, key);; ++at) {
    uint32_t& bucket = buckets_[at & mask_];
    heap.step();
    if (bucket == 0 || equal(heap, entries_[bucket - 1].key, key)) return &bucket;
  }
}

const Value* Dict::find(Heap& heap, const Value& key) const {
  if (buckets_ == nullptr) {
    for (uint32_t i = 0; i < size_; ++i)
      if (equal(heap, entries_[i].key, key)) return &entries_[i].value;
    return nullptr;
  }
  const uint32_t entry = *bucket(heap, key);
  return entry == 0 ? nullptr : &entries_[entry - 1].value;
}

const Value* Dict::find(Heap& heap, std::string_view key) const {
  if (buckets_ != nullptr) {
    for (size_t at = hash_text(key);; ++at) {
      const uint32_t entry = buckets_[at & mask_];
      heap.step();
      if (entry == 0) return nullptr;
      const Entry& found = entries_[entry - 1];
      if (found.key.is(Kind::kText) && found.key.bytes() == key) return &found.value;
    }
  }
  for (uint32_t i = 0; i < size_; ++i)
    if (entries_[i].key.is(Kind::kText) && entries_[i].key.bytes() == key) return &entries_[i].value;
  return nullptr;
}

void Dict::set(Heap& heap, const Value& key, const Value& value) {
  if (buckets_ == nullptr) {
    for (uint32_t i = 0; i < size_; ++i)
      if (equal(heap, entries_[i].key, key)) {
        entries_[i].value = value;
        return;
      }
    entries_[size_++] = {key, value};
    return;
  }
  uint32_t* const place = bucket(heap, key);
  if (*place != 0) {
    entries_[*place - 1].value = value;
    return;
  }
  entries_[size_] = {key, value};
  *place = ++size_;
}

void Items::add(const Value& value) {
  heap_.step();
  if (size_ == room_) {
    room_ = room_ == 0 ? 8 : 2 * room_;
    Value* more = heap_.array<Value>(room_);
    std::copy(items_, items_ + size_, more);
    items_ = more;
  }
  items_[size_++] = value;
}

std::string_view type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInteger:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kText:
      return value.markup() ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return value.is_group() ? "_GroupTuple" : "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kObject:
      return value.object().type();
  }
  return "";
}

std::string owner_name(const Value& value) {
  if (value.is(Kind::kNone)) return "None";
  if (value.is(Kind::kObject)) return fmt::format("{}{} object", value.object().module(), type_name(value));
  if (value.is(Kind::kText) && value.markup()) return "markupsafe.Markup object";
  return fmt::format("{} object", type_name(value));
}

bool truth(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInteger:
      return value.integer() != 0;
    case Kind::kFloat:
      return value.real() != 0;
    case Kind::kText:
      return !value.bytes().empty();
    case Kind::kList:
    case Kind::kTuple:
      return !value.items().empty();
    case Kind::kDict:
      return value.dict().size() != 0;
    case Kind::kObject:
      return value.object().truth();
  }
  return false;
}

void raise_undefined(const Value& value) { raise("{}", value.undefined_message()); }

}  // namespace retort::data::jinja
