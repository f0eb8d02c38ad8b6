#include "data/templates/text_methods.h"

#include <utf8proc.h>

#include <algorithm>

#include "data/templates/access.h"
#include "data/templates/format.h"
#include "data/templates/interpreter.h"
#include "data/templates/print.h"
#include "data/tokenizers/unicode.h"

namespace retort::data::jinja {
namespace {

constexpr size_t kNowhere = std::string_view::npos;

Value made(Interpreter& at, const Value& like, std::string_view bytes) {
  return Value::text(at.heap().copy(bytes), like.markup());
}

// Markup escapes what is put into it.
Value as_part_of(Interpreter& at, const Value& whole, const Value& part) {
  if (!whole.markup() || part.markup()) return part;
  Buffer out(at.heap());
  add_escaped(out, part.bytes());
  return Value::text(out.take());
}

// --- parts ---------------------------------------------------------------------------------------------

template <bool left, bool right>
Value strip_text(Interpreter& at, const Call& call) {
  at.heap().read(call.self.bytes().size());
  if (!call.given(0) || call[0].is(Kind::kNone))
    return call.self.part(strip(call.self.bytes(), nullptr, left, right));
  const std::string_view set = text_argument(call[0], "strip arg");
  if (set.size() > 64) at.heap().step(set.size() * call.self.bytes().size() / 32);
  return call.self.part(strip(call.self.bytes(), &set, left, right));
}

// At white space; empty parts are dropped.
Value words(Heap& heap, const Value& text, int64_t most, bool from_right) {
  Items out(heap);
  std::string_view rest = strip(text.bytes(), nullptr, true, true);
  while (!rest.empty()) {
    size_t cut = kNowhere, size = 0;
    if (most < 0 || static_cast<int64_t>(out.size()) < most) {
      for (size_t i = 0; i < rest.size(); i += size) {
        if (!is_space(first_of(rest.substr(i), size))) continue;
        cut = i;
        if (!from_right) break;
      }
    }
    if (cut == kNowhere) {
      out.add(text.part(rest));
      break;
    }
    const std::string_view left = strip(rest.substr(0, cut), nullptr, false, true),
                           right = strip(rest.substr(cut), nullptr, true, false);
    out.add(text.part(from_right ? right : left));
    rest = from_right ? left : right;
  }
  if (from_right) std::reverse(out.all().begin(), out.all().end());
  return Value::list(out.all());
}

template <bool from_right>
Value split(Interpreter& at, const Call& call) {
  Heap& heap = at.heap();
  const std::string_view bytes = call.self.bytes();
  heap.read(2 * bytes.size());
  const int64_t most = call.given(1) ? integer_argument(call[1], "maxsplit") : -1;
  if (!call.given(0) || call[0].is(Kind::kNone)) {
    if (from_right && most < 0) return words(heap, call.self, most, false);
    if (from_right) heap.step(bytes.size() / 4 * static_cast<size_t>(std::min<int64_t>(most, 1000)));
    return words(heap, call.self, most, from_right);
  }
  const std::string_view mark = text_argument(call[0], "separator");
  if (mark.empty()) raise("empty separator");
  Items out(heap);
  size_t begin = 0, end = bytes.size();
  while (most < 0 || static_cast<int64_t>(out.size()) < most) {
    const size_t found =
        from_right ? rfind(heap, bytes.substr(0, end), mark) : find(heap, bytes, mark, begin);
    if (found == kNowhere) break;
    out.add(call.self.part(from_right ? bytes.substr(found + mark.size(), end - found - mark.size())
                                      : bytes.substr(begin, found - begin)));
    (from_right ? end : begin) = from_right ? found : found + mark.size();
  }
  out.add(call.self.part(bytes.substr(begin, end - begin)));
  if (from_right) std::reverse(out.all().begin(), out.all().end());
  return Value::list(out.all());
}

Value split_lines(Interpreter& at, const Call& call) {
  return Value::list(lines(at, call.self, call.given(0) && truth(call[0])));
}

template <bool from_right>
Value partition(Interpreter& at, const Call& call) {
  const std::string_view bytes = call.self.bytes(), mark = text_argument(call[0], "separator");
  if (mark.empty()) raise("empty separator");
  const size_t found = from_right ? rfind(at.heap(), bytes, mark) : find(at.heap(), bytes, mark);
  Value* out = at.heap().array<Value>(3);
  const Value nothing = call.self.part(bytes.substr(0, 0));
  if (found == kNowhere) {
    out[0] = out[1] = out[2] = nothing;
    out[from_right ? 2 : 0] = call.self;
  } else {
    out[0] = call.self.part(bytes.substr(0, found));
    out[1] = call.self.part(bytes.substr(found, mark.size()));
    out[2] = call.self.part(bytes.substr(found + mark.size()));
  }
  return Value::tuple({out, 3});
}

template <bool prefix>
Value remove(Interpreter& at, const Call& call) {
  at.heap().read(call.self.bytes().size());
  const std::string_view bytes = call.self.bytes(), part = text_argument(call[0], "argument");
  if (prefix) return bytes.starts_with(part) ? call.self.part(bytes.substr(part.size())) : call.self;
  const bool ends = bytes.ends_with(part) && !part.empty();
  return ends ? call.self.part(bytes.substr(0, bytes.size() - part.size())) : call.self;
}

// --- looking -------------------------------------------------------------------------------------------

// The bytes between two optional positions, as a slice has them; `begin` is where they begin.
std::string_view between(Interpreter& at, const Call& call, size_t parameter, size_t& begin) {
  const std::string_view bytes = call.self.bytes();
  begin = 0;
  if (!call.given(parameter) && !call.given(parameter + 1)) return bytes;
  const Value part = slice(at, call.self, call[parameter], call[parameter + 1], {});
  const bool beyond = call.given(parameter) && call[parameter].is_integral() &&
                      call[parameter].integer() > length(at, call.self);
  begin = beyond ? kNowhere : static_cast<size_t>(part.bytes().data() - bytes.data());
  return part.bytes();
}

template <bool starts>
Value starts_or_ends(Interpreter& at, const Call& call) {
  size_t begin = 0;
  const std::string_view bytes = between(at, call, 1, begin);
  const auto holds = [&](const Value& part) {
    if (!part.is(Kind::kText))
      raise("{} first arg must be str or a tuple of str, not {}", starts ? "startswith" : "endswith",
            type_name(part));
    at.heap().read(part.bytes().size());
    return begin != kNowhere && (starts ? bytes.starts_with(part.bytes()) : bytes.ends_with(part.bytes()));
  };
  if (!call[0].is(Kind::kTuple)) return Value::boolean(holds(call[0]));
  for (const Value& part : call[0].items())
    if (holds(part)) return Value::boolean(true);
  return Value::boolean(false);
}

template <bool from_right, bool raises>
Value position(Interpreter& at, const Call& call) {
  size_t begin = 0;
  const std::string_view bytes = between(at, call, 1, begin), part = text_argument(call[0], "argument");
  const size_t found = begin == kNowhere ? kNowhere
                       : from_right      ? rfind(at.heap(), bytes, part)
                                         : find(at.heap(), bytes, part);
  if (found == kNowhere && raises) raise("substring not found");
  if (found == kNowhere) return Value::integer(-1);
  return Value::integer(characters(call.self.bytes().substr(0, begin + found), call.self.ascii()));
}

Value count_parts(Interpreter& at, const Call& call) {
  size_t begin = 0;
  const std::string_view bytes = between(at, call, 1, begin), part = text_argument(call[0], "argument");
  at.heap().read(2 * bytes.size());
  if (begin == kNowhere) return Value::integer(0);
  if (part.empty()) return Value::integer(characters(bytes, false) + 1);
  int64_t count = 0;
  for (size_t i = 0; (i = find(at.heap(), bytes, part, i)) != kNowhere; i += part.size()) ++count;
  return Value::integer(count);
}

// --- making --------------------------------------------------------------------------------------------

template <Case wanted>
Value change_case(Interpreter& at, const Call& call) {
  return changed(at, call.self, wanted);
}

Value replace(Interpreter& at, const Call& call) {
  const int64_t count = call.given(2) ? integer_argument(call[2], "count") : -1;
  text_argument(call[1], "replace() argument 2");
  const std::string_view after = as_part_of(at, call.self, call[1]).bytes();
  const Value out = replaced(at, call.self, text_argument(call[0], "replace() argument 1"), after, count);
  return out.as_markup(call.self.markup());
}

Value join(Interpreter& at, const Call& call) {
  const auto items = listed(at, call[0]);
  Value* texts = at.heap().array<Value>(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is(Kind::kText) && !call.self.markup())
      raise("sequence item {}: expected str instance, {} found", i, type_name(items[i]));
    texts[i] = as_part_of(at, call.self, text_of(at, items[i]));
  }
  return joined(at, call.self.bytes(), {texts, items.size()}).as_markup(call.self.markup());
}

Value format(Interpreter& at, const Call& call) { return brace_formatted(at, call.self, call.all); }

// `left` of the missing characters go before the text.
Value padded(Interpreter& at, const Value& text, int64_t width, std::string_view fill,
             int64_t (*left)(int64_t, int64_t)) {
  const int64_t missing = width - length(at, text);
  if (missing <= 0) return text;
  const int64_t before = left(missing, width);
  at.heap().check_text(static_cast<size_t>(missing));
  at.heap().step(static_cast<size_t>(missing));
  Buffer out(at.heap());
  for (int64_t i = 0; i < before; ++i) out.add(fill);
  out.add(text.bytes());
  for (int64_t i = before; i < missing; ++i) out.add(fill);
  return Value::text(out.take(), text.markup());
}

template <int64_t (*left)(int64_t, int64_t)>
Value pad(Interpreter& at, const Call& call) {
  const std::string_view fill = call.given(1) ? text_argument(call[1], "fill character") : " ";
  if (characters(fill, false) != 1) raise("The fill character must be exactly one character long");
  return padded(at, call.self, integer_argument(call[0], "width"), fill, left);
}

int64_t none_left(int64_t, int64_t) { return 0; }
int64_t all_left(int64_t missing, int64_t) { return missing; }
int64_t half_left(int64_t missing, int64_t width) { return missing / 2 + (missing & width & 1); }

Value zero_fill(Interpreter& at, const Call& call) {
  const int64_t width = integer_argument(call[0], "width");
  const std::string_view bytes = call.self.bytes();
  const bool sign = bytes.starts_with('-') || bytes.starts_with('+');
  const Value digits =
      padded(at, call.self.part(bytes.substr(sign ? 1 : 0)), width - (sign ? 1 : 0), "0", all_left);
  return sign ? made(at, call.self, std::string(bytes.substr(0, 1)) += digits.bytes()) : digits;
}

Value encode(Interpreter& at, const Call& call) {
  const std::string_view name = call.given(0) ? text_argument(call[0], "encoding") : "utf-8";
  if (name != "utf-8" && name != "utf8" && name != "UTF-8")
    raise("encode() to {} is not supported", in_quotes(name));
  return Value::object(at.heap().make<Bytes>(call.self.bytes()));
}

// --- asking --------------------------------------------------------------------------------------------

// True for a text with a character, all of which the function accepts.
template <bool (*accepts)(char32_t)>
Value all_are(Interpreter& at, const Call& call) {
  const std::string_view bytes = call.self.bytes();
  at.heap().read(4 * bytes.size());
  for (size_t i = 0, size = 0; i < bytes.size(); i += size)
    if (!accepts(first_of(bytes.substr(i), size))) return Value::boolean(false);
  return Value::boolean(!bytes.empty());
}

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }
bool is_alpha(char32_t c) { return c < kMalformed && character_classes()[c] == CharacterClass::kLetter; }
bool is_numeric(char32_t c) { return c < kMalformed && character_classes()[c] == CharacterClass::kNumber; }
bool is_digit(char32_t c) {
  return (c < kMalformed && category(c) == UTF8PROC_CATEGORY_ND) || c == 0xB2 || c == 0xB3 || c == 0xB9 ||
         c == 0x2070 || (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089);
}
bool is_alphanumeric(char32_t c) { return is_alpha(c) || is_numeric(c); }

template <bool upper>
Value is_case(Interpreter& at, const Call& call) {
  const std::string_view bytes = call.self.bytes();
  at.heap().read(4 * bytes.size());
  bool cased = false;
  for (size_t i = 0, size = 0; i < bytes.size(); i += size) {
    const char32_t c = first_of(bytes.substr(i), size);
    if (!is_cased(c)) continue;
    const auto character = static_cast<utf8proc_int32_t>(c);
    if ((upper ? utf8proc_isupper(character) : utf8proc_islower(character)) == 0)
      return Value::boolean(false);
    cased = true;
  }
  return Value::boolean(cased);
}

}  // namespace

Value changed(Interpreter& at, const Value& text, Case wanted) {
  at.heap().read(8 * text.bytes().size());
  Buffer out(at.heap());
  add_case(out, text.bytes(), wanted);
  return Value::text(out.take(), text.markup());
}

Value replaced(Interpreter& at, const Value& text, std::string_view before, std::string_view after,
               int64_t count) {
  const std::string_view bytes = text.bytes();
  Buffer out(at.heap());
  at.heap().read(2 * bytes.size());
  size_t begin = 0;
  for (size_t i = 0; count != 0 && i <= bytes.size(); --count) {
    at.heap().step();
    const size_t found = before.empty() ? i : find(at.heap(), bytes, before, i);
    if (found == kNowhere) break;
    out.add(bytes.substr(begin, found - begin));
    out.add(after);
    begin = i = found + before.size();
    if (before.empty() && i < bytes.size()) {  // between any two characters
      size_t size = 0;
      first_of(bytes.substr(i), size);
      i += size;
    } else if (before.empty()) {
      break;
    }
  }
  out.add(bytes.substr(begin));
  return Value::text(out.take());
}

Value joined(Interpreter& at, std::string_view between, std::span<const Value> texts) {
  Buffer out(at.heap());
  for (size_t i = 0; i < texts.size(); ++i) {
    at.heap().step();
    if (i > 0) out.add(between);
    print(at, out, texts[i]);
  }
  return Value::text(out.take());
}

Value centered(Interpreter& at, const Value& text, int64_t width) {
  return padded(at, text, width, " ", half_left);
}

std::span<const Value> lines(Interpreter& at, const Value& text, bool keep_ends) {
  const std::string_view bytes = text.bytes();
  at.heap().read(4 * bytes.size());
  Items out(at.heap());
  for (size_t begin = 0, i = 0, size = 0; begin < bytes.size(); begin = i) {
    size_t end = begin;
    while (end < bytes.size() && !is_line_break(first_of(bytes.substr(end), size))) end += size;
    i = std::min(end + (end < bytes.size() ? size : 0), bytes.size());
    if (bytes.substr(end).starts_with("\r\n")) ++i;
    out.add(text.part(bytes.substr(begin, (keep_ends ? i : end) - begin)));
  }
  return std::as_const(out).all();
}

const std::vector<Builtin>& text_methods() {
  static const std::vector<Builtin> table = {
      {"strip", {"chars"}, 0, strip_text<true, true>},
      {"lstrip", {"chars"}, 0, strip_text<true, false>},
      {"rstrip", {"chars"}, 0, strip_text<false, true>},
      {"split", {"sep", "maxsplit"}, 0, split<false>},
      {"rsplit", {"sep", "maxsplit"}, 0, split<true>},
      {"splitlines", {"keepends"}, 0, split_lines},
      {"partition", {"sep"}, 1, partition<false>},
      {"rpartition", {"sep"}, 1, partition<true>},
      {"removeprefix", {"prefix"}, 1, remove<true>},
      {"removesuffix", {"suffix"}, 1, remove<false>},
      {"startswith", {"prefix", "start", "end"}, 1, starts_or_ends<true>},
      {"endswith", {"suffix", "start", "end"}, 1, starts_or_ends<false>},
      {"find", {"sub", "start", "end"}, 1, position<false, false>},
      {"rfind", {"sub", "start", "end"}, 1, position<true, false>},
      {"index", {"sub", "start", "end"}, 1, position<false, true>},
      {"rindex", {"sub", "start", "end"}, 1, position<true, true>},
      {"count", {"sub", "start", "end"}, 1, count_parts},
      {"upper", {}, 0, change_case<Case::kUpper>},
      {"lower", {}, 0, change_case<Case::kLower>},
      {"title", {}, 0, change_case<Case::kTitle>},
      {"capitalize", {}, 0, change_case<Case::kCapital>},
      {"swapcase", {}, 0, change_case<Case::kSwap>},
      {"replace", {"old", "new", "count"}, 2, replace},
      {"join", {"iterable"}, 1, join},
      {"format", {"*"}, 0, format},
      {"center", {"width", "fillchar"}, 1, pad<half_left>},
      {"ljust", {"width", "fillchar"}, 1, pad<none_left>},
      {"rjust", {"width", "fillchar"}, 1, pad<all_left>},
      {"zfill", {"width"}, 1, zero_fill},
      {"encode", {"encoding", "errors"}, 0, encode},
      {"isdigit", {}, 0, all_are<is_digit>},
      {"isalpha", {}, 0, all_are<is_alpha>},
      {"isalnum", {}, 0, all_are<is_alphanumeric>},
      {"isspace", {}, 0, all_are<is_space>},
      {"isupper", {}, 0, is_case<true>},
      {"islower", {}, 0, is_case<false>}};
  return table;
}

}  // namespace retort::data::jinja
