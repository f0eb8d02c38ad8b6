// Filters of texts; what is no text is taken as str() of it where jinja2 does so.
#include <algorithm>

#include "data/templates/access.h"
#include "data/templates/filters.h"
#include "data/templates/format.h"
#include "data/templates/interpreter.h"
#include "data/templates/number.h"
#include "data/templates/print.h"
#include "data/templates/text.h"
#include "data/templates/text_methods.h"
#include "data/tokenizers/unicode.h"

namespace retort::data::jinja {
namespace {

template <Case wanted>
Value change_case(Interpreter& at, const Call& call) {
  return changed(at, text_of(at, call.self), wanted);
}

// The first letter of each word; words begin after white space and -({[<, not after quotes as in str.title().
Value title(Interpreter& at, const Call& call) {
  const Value text = text_of(at, call.self);
  const std::string_view bytes = text.bytes();
  at.heap().read(8 * bytes.size());
  Buffer out(at.heap());
  for (size_t i = 0, size = 0; i < bytes.size();) {
    const auto breaks = [&](size_t place) {
      const char32_t c = first_of(bytes.substr(place), size);
      return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    };
    size_t end = i;
    const bool gap = breaks(i);
    while (end < bytes.size() && breaks(end) == gap) end += size;
    const std::string_view part = bytes.substr(i, end - i);
    first_of(part, size);
    if (!gap) add_case(out, part.substr(0, size), Case::kUpper);
    if (gap)
      out.add(part);
    else
      add_case(out, part.substr(size), Case::kLower);
    i = end;
  }
  return Value::text(out.take());
}

Value trim(Interpreter& at, const Call& call) {
  return run(at, *find_method(Value::text(""), "strip"), text_of(at, call.self), call.all);
}

Value replace(Interpreter& at, const Call& call) {
  const Value count = call.given(2) && !call[2].is(Kind::kNone) ? call[2] : Value::integer(-1);
  const Value before = text_of(at, call[0]), after = text_of(at, call[1]);
  return replaced(at, text_of(at, call.self), before.bytes(), after.bytes(),
                  integer_argument(count, "count"));
}

Value string(Interpreter& at, const Call& call) { return text_of(at, call.self); }

Value escape(Interpreter& at, const Call& call) {
  const Value text = text_of(at, call.self);
  if (text.markup()) return text;
  at.heap().read(text.bytes().size());
  Buffer out(at.heap());
  add_escaped(out, text.bytes());
  return Value::text(out.take(), true);
}

Value safe(Interpreter& at, const Call& call) { return text_of(at, call.self).as_markup(true); }

Value center(Interpreter& at, const Call& call) {
  return centered(at, text_of(at, call.self), call.given(0) ? integer_argument(call[0], "width") : 80);
}

Value indent(Interpreter& at, const Call& call) {
  const bool first = call.given(1) && truth(call[1]), blank = call.given(2) && truth(call[2]);
  const Value text = arithmetic(at, Operator::kAdd, call.self, Value::text("\n"));
  if (!text.is(Kind::kText)) raise("can only indent str, not {}", type_name(call.self));
  std::string_view space;
  if (call.given(0) && call[0].is(Kind::kText)) {
    space = call[0].bytes();
  } else {
    const int64_t width = call.given(0) ? integer_argument(call[0], "width") : 4;
    Buffer spaces(at.heap());
    spaces.repeat(' ', static_cast<size_t>(std::max<int64_t>(width, 0)));
    space = spaces.take();
  }
  Buffer out(at.heap());
  if (first) out.add(space);
  const auto all = lines(at, text, false);
  for (size_t i = 0; i < all.size(); ++i) {
    if (i > 0) out.add('\n');
    if (i > 0 && (blank || !all[i].bytes().empty())) out.add(space);
    out.add(all[i].bytes());
  }
  return Value::text(out.take(), text.markup());
}

Value truncate(Interpreter& at, const Call& call) {
  const Value& text = call.self;
  const int64_t wanted = call.given(0) ? integer_argument(call[0], "length") : 255;
  const bool kill = call.given(1) && truth(call[1]);
  const Value end = call.given(2) ? call[2] : Value::text("...");
  const int64_t leeway = call.given(3) && !call[3].is(Kind::kNone) ? integer_argument(call[3], "leeway") : 5;
  const int64_t room = wanted - length(at, end);
  if (room < 0) raise("expected length >= {}, got {}", length(at, end), wanted);
  if (leeway < 0) raise("expected leeway >= 0, got {}", leeway);
  if (length(at, text) <= wanted + leeway) return text;
  Value kept = slice(at, text, {}, Value::integer(room), {});
  if (!kept.is(Kind::kText)) raise("can only truncate str, not {}", type_name(text));
  const size_t space = kept.bytes().rfind(' ');
  if (!kill && space != std::string_view::npos) kept = kept.part(kept.bytes().substr(0, space));
  return arithmetic(at, Operator::kAdd, kept, end);
}

Value word_count(Interpreter& at, const Call& call) {
  const Value text = text_of(at, call.self);
  const std::string_view bytes = text.bytes();
  at.heap().read(4 * bytes.size());
  int64_t count = 0;
  bool inside = false;
  for (size_t i = 0, size = 0; i < bytes.size(); i += size) {
    const char32_t c = first_of(bytes.substr(i), size);
    const bool word = c < kMalformed && is_word(c);
    count += word && !inside ? 1 : 0;
    inside = word;
  }
  return Value::integer(count);
}

Value format(Interpreter& at, const Call& call) {
  if (!call.all.named.empty()) raise("format() with named values is not supported");
  return percent_formatted(at, text_of(at, call.self), Value::tuple(call.all.positional));
}

}  // namespace

const std::vector<Builtin>& text_filters() {
  static const std::vector<Builtin> table = {
      {"upper", {}, 0, change_case<Case::kUpper>},
      {"lower", {}, 0, change_case<Case::kLower>},
      {"capitalize", {}, 0, change_case<Case::kCapital>},
      {"title", {}, 0, title},
      {"trim", {"chars"}, 0, trim},
      {"replace", {"old", "new", "count"}, 2, replace},
      {"string", {}, 0, string},
      {"escape", {}, 0, escape},
      {"e", {}, 0, escape},
      {"safe", {}, 0, safe},
      {"center", {"width"}, 0, center},
      {"indent", {"width", "first", "blank"}, 0, indent},
      {"truncate", {"length", "killwords", "end", "leeway"}, 0, truncate},
      {"wordcount", {}, 0, word_count},
      {"format", {"*"}, 0, format}};
  return table;
}

}  // namespace retort::data::jinja
