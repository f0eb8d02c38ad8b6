#include "data/templates/print.h"

#include <algorithm>
#include <cmath>

#include "data/templates/interpreter.h"
#include "data/templates/number.h"
#include "data/templates/text.h"
#include "data/tokenizers/unicode.h"

namespace retort::data::jinja {
namespace {

void check_depth(Interpreter& at, size_t depth) {
  at.heap().step();
  if (depth > at.heap().limits().data_depth)
    raise("prints values nested deeper than {}, the limit", at.heap().limits().data_depth);
}

void print_items(Interpreter& at, Buffer& out, std::span<const Value> items, size_t depth) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.add(", ");
    print_repr(at, out, items[i], depth + 1);
  }
}

std::string_view word(bool value) { return value ? "True" : "False"; }

// --- JSON ----------------------------------------------------------------------------------------------

void print_json_unit(Buffer& out, uint32_t unit) { out.add(fmt::format("\\u{:04x}", unit)); }

void print_json_text(Interpreter& at, Buffer& out, std::string_view bytes, bool ascii) {
  at.heap().read(bytes.size() * 2);
  out.add('"');
  size_t plain = 0, i = 0;
  const auto flush = [&] { out.add(bytes.substr(plain, i - plain)); };
  while (i < bytes.size()) {
    const auto c = static_cast<unsigned char>(bytes[i]);
    size_t size = 1;
    if (c >= 0x20 && c != '"' && c != '\\' && (c < 0x80 || !ascii)) {
      ++i;
      continue;
    }
    flush();
    switch (c) {
      case '"':
        out.add("\\\"");
        break;
      case '\\':
        out.add("\\\\");
        break;
      case '\n':
        out.add("\\n");
        break;
      case '\r':
        out.add("\\r");
        break;
      case '\t':
        out.add("\\t");
        break;
      case '\f':
        out.add("\\f");
        break;
      case '\b':
        out.add("\\b");
        break;
      default: {
        const auto value = static_cast<uint32_t>(first_of(bytes.substr(i), size));
        if (value == kMalformed)
          print_json_unit(out, 0xDC00 + c);
        else if (value < 0x10000)
          print_json_unit(out, value);
        else {
          print_json_unit(out, 0xD800 + ((value - 0x10000) >> 10));
          print_json_unit(out, 0xDC00 + ((value - 0x10000) & 0x3FF));
        }
      }
    }
    i += size;
    plain = i;
  }
  flush();
  out.add('"');
}

class JsonPrinter {
 public:
  JsonPrinter(Interpreter& at, Buffer& out, const JsonForm& form) : at_(at), out_(out), form_(form) {}

  void print(const Value& value, size_t depth) {
    check_depth(at_, depth);
    switch (value.kind()) {
      case Kind::kNone:
        return out_.add("null");
      case Kind::kBool:
        return out_.add(value.boolean() ? "true" : "false");
      case Kind::kInteger:
        return out_.add(spelled(value.integer()));
      case Kind::kFloat:
        return out_.add(real(value.real()));
      case Kind::kText:
        return print_json_text(at_, out_, value.bytes(), form_.ascii);
      case Kind::kList:
      case Kind::kTuple:
        return print_list(value.items(), depth);
      case Kind::kDict:
        return print_dict(value.dict(), depth);
      default:
        raise("Object of type {} is not JSON serializable", type_name(value));
    }
  }

 private:
  static std::string real(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return spelled(value);
  }

  void new_line(size_t depth) {
    if (!form_.indented) return;
    out_.add('\n');
    for (size_t i = 0; i < depth; ++i) out_.add(form_.indent);
    at_.heap().step(depth);
  }

  void print_list(std::span<const Value> items, size_t depth) {
    if (items.empty()) return out_.add("[]");
    out_.add('[');
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.add(form_.item);
      new_line(depth + 1);
      print(items[i], depth + 1);
    }
    new_line(depth);
    out_.add(']');
  }

  void print_dict(const Dict& dict, size_t depth) {
    if (dict.size() == 0) return out_.add("{}");
    std::span<const Dict::Entry> entries = dict.entries();
    if (form_.sorted) {
      Dict::Entry* sorted = at_.heap().array<Dict::Entry>(entries.size());
      std::copy(entries.begin(), entries.end(), sorted);
      std::stable_sort(sorted, sorted + entries.size(), [&](const Dict::Entry& a, const Dict::Entry& b) {
        return less(at_.heap(), a.key, b.key);
      });
      entries = {sorted, entries.size()};
    }
    out_.add('{');
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_.add(form_.item);
      new_line(depth + 1);
      print_key(entries[i].key);
      out_.add(form_.key);
      print(entries[i].value, depth + 1);
    }
    new_line(depth);
    out_.add('}');
  }

  void print_key(const Value& key) {
    switch (key.kind()) {
      case Kind::kText:
        return print_json_text(at_, out_, key.bytes(), form_.ascii);
      case Kind::kNone:
        return out_.add("\"null\"");
      case Kind::kBool:
        return out_.add(key.boolean() ? "\"true\"" : "\"false\"");
      case Kind::kInteger:
        return out_.add('"' + spelled(key.integer()) + '"');
      case Kind::kFloat:
        return out_.add('"' + real(key.real()) + '"');
      default:
        raise("keys must be str, int, float, bool or None, not {}", type_name(key));
    }
  }

  Interpreter& at_;
  Buffer& out_;
  const JsonForm& form_;
};

}  // namespace

void print(Interpreter& at, Buffer& out, const Value& value) {
  if (value.is(Kind::kText))
    out.add(value.bytes());
  else if (!value.undefined())
    print_repr(at, out, value);
}

void print_repr(Interpreter& at, Buffer& out, const Value& value, size_t depth) {
  const Interpreter::Deeper deeper(at);
  check_depth(at, depth);
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
      return out.add("Undefined");
    case Kind::kNone:
      return out.add("None");
    case Kind::kBool:
      return out.add(word(value.boolean()));
    case Kind::kInteger:
      return out.add(spelled(value.integer()));
    case Kind::kFloat:
      return out.add(spelled(value.real()));
    case Kind::kText:
      at.heap().read(value.bytes().size() * 4);
      if (value.markup()) out.add("Markup(");
      add_quoted(out, value.bytes());
      if (value.markup()) out.add(")");
      return;
    case Kind::kList:
      out.add('[');
      print_items(at, out, value.items(), depth);
      return out.add(']');
    case Kind::kTuple:
      out.add('(');
      print_items(at, out, value.items(), depth);
      return out.add(value.items().size() == 1 ? ",)" : ")");
    case Kind::kDict: {
      std::string_view between = "{";
      for (const Dict::Entry& entry : value.dict().entries()) {
        out.add(between);
        print_repr(at, out, entry.key, depth + 1);
        out.add(": ");
        print_repr(at, out, entry.value, depth + 1);
        between = ", ";
      }
      return out.add(between == "{" ? "{}" : "}");
    }
    case Kind::kObject:
      return value.object().print(at, out);
  }
}

Value text_of(Interpreter& at, const Value& value) {
  if (value.is(Kind::kText)) return value;
  Buffer out(at.heap());
  print(at, out, value);
  return Value::text(out.take());
}

std::string_view repr_of(Interpreter& at, const Value& value) {
  Buffer out(at.heap());
  print_repr(at, out, value);
  return out.take();
}

void print_json(Interpreter& at, Buffer& out, const Value& value, const JsonForm& form) {
  JsonPrinter(at, out, form).print(value, 0);
}

}  // namespace retort::data::jinja
