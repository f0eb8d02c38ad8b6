#include "data/templates/format.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "data/templates/access.h"
#include "data/templates/interpreter.h"
#include "data/templates/number.h"
#include "data/templates/print.h"
#include "data/templates/text.h"
#include "data/tokenizers/unicode.h"

namespace retort::data::jinja {
namespace {

// [[fill]align][sign][#][0][width][,][.precision][type], and what % has of it.
struct Form {
  std::string fill = " ";
  char align = 0, sign = '-', type = 0, group = 0;
  bool alternate = false, zero = false;
  int64_t width = 0, precision = -1;
};

// The text as markup holds it.
Value safe(Interpreter& at, const Value& text) {
  if (text.markup()) return text;
  Buffer out(at.heap());
  add_escaped(out, text.bytes());
  return Value::text(out.take(), true);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

int64_t read_number(std::string_view text, size_t& i) {
  int64_t out = 0;
  for (; i < text.size() && is_digit(text[i]); ++i) {
    out = out * 10 + (text[i] - '0');
    if (out > 1'000'000) raise("formats to a width or precision above 1000000, the limit");
  }
  return out;
}

void pad(Interpreter& at, Buffer& out, std::string_view text, const Form& form, char align) {
  const int64_t missing = form.width - characters(text, is_ascii(text));
  const int64_t left = missing <= 0 ? 0 : align == '>' ? missing : align == '^' ? missing / 2 : 0;
  at.heap().step(static_cast<uint64_t>(std::max<int64_t>(missing, 0)));
  for (int64_t i = 0; i < left; ++i) out.add(form.fill);
  out.add(text);
  for (int64_t i = left; i < missing; ++i) out.add(form.fill);
}

std::string grouped(std::string digits, char mark) {
  const size_t whole = std::min(digits.find_first_not_of("0123456789"), digits.size());
  for (size_t i = whole; i > 3; i -= 3) digits.insert(i - 3, 1, mark);
  return digits;
}

std::string based(Integer value, int base, bool upper) {
  std::string out;
  do out += (upper ? "0123456789ABCDEF" : "0123456789abcdef")[value % base];
  while ((value /= base) > 0);
  std::reverse(out.begin(), out.end());
  return out;
}

std::string real_digits(double value, const Form& form) {  // of a value without a sign
  const char type = form.type == 0 ? 'r' : form.type;
  if (std::isnan(value) || std::isinf(value)) return std::isnan(value) ? "nan" : "inf";
  if (type == 'r' && form.precision < 0) return spelled(value);
  const int64_t precision = form.precision < 0 ? 6 : form.precision;
  switch (type) {
    case 'f':
    case 'F':
      return fmt::format("{:.{}f}", value, precision);
    case 'e':
      return fmt::format("{:.{}e}", value, precision);
    case 'E':
      return fmt::format("{:.{}E}", value, precision);
    case '%':
      return fmt::format("{:.{}f}%", value * 100, precision);
    case 'r':
    case 'g':
    case 'n':
      return fmt::format("{:.{}g}", value, std::max<int64_t>(precision, 1));
    case 'G':
      return fmt::format("{:.{}G}", value, std::max<int64_t>(precision, 1));
    default:
      raise("Unknown format code '{}' for object of type 'float'", type);
  }
}

std::string whole_digits(Integer value, const Form& form) {
  switch (form.type) {
    case 0:
    case 'd':
    case 'i':
    case 'u':
    case 'n':
      return spelled(value);
    case 'x':
      return (form.alternate ? "0x" : "") + based(value, 16, false);
    case 'X':
      return (form.alternate ? "0X" : "") + based(value, 16, true);
    case 'o':
      return (form.alternate ? "0o" : "") + based(value, 8, false);
    case 'b':
      return (form.alternate ? "0b" : "") + based(value, 2, false);
    default:
      raise("Unknown format code '{}' for object of type 'int'", form.type);
  }
}

void add_number(Interpreter& at, Buffer& out, const Value& value, const Form& form) {
  const bool whole =
      value.is_integral() && std::string_view("eEfFgG%").find(form.type) == std::string_view::npos;
  const bool negative = whole ? value.integer() < 0 : std::signbit(value.real());
  std::string digits = whole ? whole_digits(value.integer() < 0 ? -value.integer() : value.integer(), form)
                             : real_digits(std::fabs(value.real()), form);
  if (form.group != 0) digits = grouped(std::move(digits), form.group);
  const std::string sign = negative ? "-" : form.sign == '+' ? "+" : form.sign == ' ' ? " " : "";
  if (!form.zero || form.align != 0)
    return pad(at, out, sign + digits, form, form.align == 0 ? '>' : form.align);
  out.add(sign);
  Form zeros = form;
  zeros.fill = "0";
  zeros.width -= static_cast<int64_t>(sign.size());
  pad(at, out, digits, zeros, '>');
}

void add_text(Interpreter& at, Buffer& out, std::string_view text, const Form& form, char align) {
  if (form.precision >= 0) text = text.substr(0, byte_of(text, form.precision, false));
  pad(at, out, text, form, form.align == 0 ? align : form.align);
}

// --- % -------------------------------------------------------------------------------------------------

class Percent {
 public:
  Percent(Interpreter& at, const Value& format, const Value& values)
      : at_(at), format_(format.bytes()), markup_(format.markup()), values_(values) {}

  Value run() {
    Buffer out(at_.heap());
    at_.heap().read(format_.size());
    while (i_ < format_.size()) {
      const size_t mark = std::min(format_.find('%', i_), format_.size());
      out.add(format_.substr(i_, mark - i_));
      i_ = mark + 1;
      if (mark < format_.size()) convert(out);
    }
    const size_t given = values_.is(Kind::kTuple) ? values_.items().size() : 1;
    if (used_ < given && !values_.is(Kind::kDict) && !(values_.is_sequence() && values_.is(Kind::kList)))
      raise("not all arguments converted during string formatting");
    return Value::text(out.take(), markup_);
  }

 private:
  char peek() const {
    if (i_ >= format_.size()) raise("incomplete format");
    return format_[i_];
  }

  Value next() {
    if (values_.is(Kind::kTuple)) {
      if (used_ >= values_.items().size()) raise("not enough arguments for format string");
      return values_.items()[used_++];
    }
    if (used_++ > 0) raise("not enough arguments for format string");
    return values_;
  }

  void convert(Buffer& out) {
    Form form;
    Value named;
    if (peek() == '(') {
      const size_t end = format_.find(')', i_);
      if (end == format_.npos) raise("incomplete format key");
      if (!values_.is(Kind::kDict)) raise("format requires a mapping");
      const Value* found = values_.dict().find(at_.heap(), format_.substr(i_ + 1, end - i_ - 1));
      if (found == nullptr) raise("{}", in_quotes(format_.substr(i_ + 1, end - i_ - 1)));
      named = *found;
      i_ = end + 1;
    }
    for (; std::string_view("-+ #0").find(peek()) != std::string_view::npos; ++i_) {
      if (peek() == '-') form.align = '<';
      if (peek() == '+' || (peek() == ' ' && form.sign != '+')) form.sign = peek();
      if (peek() == '#') form.alternate = true;
      if (peek() == '0') form.zero = true;
    }
    form.width = star_or_number();
    if (form.width < 0) form.align = '<', form.width = -form.width;
    if (peek() == '.') {
      ++i_;
      form.precision = std::max<int64_t>(star_or_number(), 0);
    }
    while (peek() == 'l' || peek() == 'h' || peek() == 'L') ++i_;
    form.type = format_[i_++];
    if (form.type == '%') return out.add('%');
    add(out, named.missing() ? next() : named, form);
  }

  int64_t star_or_number() {
    if (peek() != '*') return read_number(format_, i_);
    ++i_;
    const int64_t number = integer_argument(next(), "*");
    if (std::abs(number) > 1'000'000) raise("formats to a width or precision above 1000000, the limit");
    return number;
  }

  void add(Buffer& out, const Value& value, Form form) {
    if (form.type == 's' || form.type == 'r' || form.type == 'a' || form.type == 'c') {
      Value text = form.type == 's' || (form.type == 'c' && value.is(Kind::kText))
                       ? text_of(at_, value)
                       : Value::text(form.type == 'c' ? code_point(value) : repr_of(at_, value));
      if (markup_) text = safe(at_, text);
      return add_text(at_, out, text.bytes(), form, '>');
    }
    if (std::string_view("diuoxXeEfFgG").find(form.type) == std::string_view::npos)
      raise("unsupported format character '{}' (0x{:x}) at index {}", form.type, static_cast<int>(form.type),
            i_ - 1);
    if (!value.is_number())
      raise("%{} format: a real number is required, not {}", form.type, type_name(value));
    if (std::string_view("eEfFgG").find(form.type) != std::string_view::npos)
      return add_number(at_, out, Value::real(value.real()), form);
    Value whole = value.is(Kind::kFloat) ? Value::integer(at_.heap(), truncated(value.real())) : value;
    add_number(at_, out, whole, form);
  }

  std::string_view code_point(const Value& value) {
    std::string out;
    const Integer number = value.is_integral() ? value.integer() : -1;
    if (number < 0 || number > 0x10FFFF) raise("%c requires int or char");
    append_utf8(out, static_cast<char32_t>(number));
    return at_.heap().copy(out);
  }

  Interpreter& at_;
  std::string_view format_;
  bool markup_;
  const Value& values_;
  size_t i_ = 0, used_ = 0;
};

// --- {} ------------------------------------------------------------------------------------------------

Form parse_form(std::string_view text) {
  Form form;
  size_t i = 0, size = 0;
  const auto at = [&](size_t place) { return place < text.size() ? text[place] : '\0'; };
  const auto aligns = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  if (!text.empty()) first_of(text, size);
  if (size > 0 && aligns(at(size))) {
    form.fill = text.substr(0, size);
    i = size;
  }
  if (aligns(at(i))) form.align = text[i++];
  if (at(i) == '+' || at(i) == '-' || at(i) == ' ') form.sign = text[i++];
  if (at(i) == '#') form.alternate = true, ++i;
  if (at(i) == '0') form.zero = true, ++i;
  form.width = read_number(text, i);
  if (at(i) == ',' || at(i) == '_') form.group = text[i++];
  if (at(i) == '.') {
    ++i;
    if (!is_digit(at(i))) raise("Format specifier missing precision");
    form.precision = read_number(text, i);
  }
  if (i < text.size()) form.type = text[i++];
  if (i < text.size()) raise("Invalid format specifier '{}'", text);
  if (form.align == '=') form.zero = true, form.align = 0;
  return form;
}

class Braces {
 public:
  Braces(Interpreter& at, const Value& format, const Arguments& arguments)
      : at_(at), format_(format.bytes()), markup_(format.markup()), arguments_(arguments) {}

  Value run() {
    Buffer out(at_.heap());
    at_.heap().read(format_.size());
    add_all(out, format_, 0);
    return Value::text(out.take(), markup_);
  }

 private:
  void add_all(Buffer& out, std::string_view text, int depth) {
    if (depth > 1) raise("Max string recursion exceeded");
    for (size_t i = 0; i < text.size();) {
      const size_t brace = std::min(text.find_first_of("{}", i), text.size());
      out.add(text.substr(i, brace - i));
      i = brace + 1;
      if (brace == text.size()) return;
      if (i < text.size() && text[i] == text[brace]) {
        out.add(text[i++]);
        continue;
      }
      if (text[brace] == '}') raise("Single '}}' encountered in format string");
      size_t end = i;
      for (int open = 1; end < text.size(); ++end) {
        if (text[end] == '{') ++open;
        if (text[end] == '}' && --open == 0) break;
      }
      if (end == text.size()) raise("expected '}}' before end of string");
      add_field(out, text.substr(i, end - i), depth);
      i = end + 1;
    }
  }

  void add_field(Buffer& out, std::string_view field, int depth) {
    const size_t colon = std::min(field.find(':'), field.size()), mark = field.substr(0, colon).find('!');
    Value value = lookup(field.substr(0, std::min(colon, mark)));
    if (mark != field.npos) {
      const std::string_view conversion = field.substr(mark + 1, colon - mark - 1);
      if (conversion == "s")
        value = text_of(at_, value);
      else if (conversion == "r")
        value = Value::text(repr_of(at_, value));
      else
        raise("Unknown conversion specifier '{}'", conversion);
    }
    Buffer form(at_.heap());
    if (colon < field.size()) add_all(form, field.substr(colon + 1), depth + 1);
    add_formatted(out, value, form.view());
  }

  void add_formatted(Buffer& out, const Value& value, std::string_view text) {
    if (text.empty() || value.is(Kind::kText)) {
      const Value plain = markup_ ? safe(at_, text_of(at_, value)) : text_of(at_, value);
      const Form form = parse_form(text);
      if (form.type != 0 && form.type != 's')
        raise("Unknown format code '{}' for object of type 'str'", form.type);
      return add_text(at_, out, plain.bytes(), form, '<');
    }
    if (!value.is_number()) raise("unsupported format string passed to {}.__format__", type_name(value));
    add_number(at_, out, value, parse_form(text));
  }

  Value lookup(std::string_view path) {
    const size_t end = std::min(path.find_first_of(".["), path.size());
    Value value = first(path.substr(0, end));
    for (size_t i = end; i < path.size();) {
      if (path[i] == '.') {
        const size_t stop = std::min(path.find_first_of(".[", i + 1), path.size());
        value = attribute(at_, value, path.substr(i + 1, stop - i - 1));
        i = stop;
        continue;
      }
      const size_t close = path.find(']', i);
      if (path[i] != '[' || close == path.npos) raise("Missing ']' in format string");
      const std::string_view key = path.substr(i + 1, close - i - 1);
      value = item(at_, value, all_digits(key) ? Value::integer(number(key)) : Value::text(key));
      i = close + 1;
    }
    return value;
  }

  Value first(std::string_view name) {
    if (name.empty() || all_digits(name)) {
      if (name.empty() != automatic_ && fields_ > 0)
        raise("cannot switch between manual field specification and automatic field numbering");
      automatic_ = name.empty();
      const auto place = name.empty() ? fields_ : static_cast<size_t>(number(name));
      ++fields_;
      if (place >= arguments_.positional.size())
        raise("Replacement index {} out of range for positional args tuple", place);
      return arguments_.positional[place];
    }
    for (const Named& one : arguments_.named)
      if (one.name == name) return one.value;
    raise("{}", in_quotes(name));
  }

  static bool all_digits(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
  }
  static int64_t number(std::string_view text) {
    size_t i = 0;
    return read_number(text, i);
  }

  Interpreter& at_;
  std::string_view format_;
  bool markup_, automatic_ = true;
  const Arguments& arguments_;
  size_t fields_ = 0;
};

}  // namespace

Value percent_formatted(Interpreter& at, const Value& format, const Value& values) {
  return Percent(at, format, values).run();
}

Value brace_formatted(Interpreter& at, const Value& format, const Arguments& arguments) {
  return Braces(at, format, arguments).run();
}

std::string formatted_time(const std::tm& time, std::string_view format) {
  constexpr size_t kLongest = 1000;
  if (format.size() > kLongest) raise("strftime_now() takes a format of at most {} bytes", kLongest);
  std::string wanted;  // Python's own: no fractions, no time zone
  for (size_t i = 0; i < format.size(); ++i) {
    const bool code = format[i] == '%' && i + 1 < format.size();
    if (code && format[i + 1] == 'f')
      wanted += "000000";
    else if (code && format[i + 1] != 'z' && format[i + 1] != 'Z')
      (wanted += '%') += format[i + 1];
    else if (!code)
      wanted += format[i];
    if (code) ++i;
  }
  std::string out(256 * (wanted.size() + 1), '\0');
  static const locale_t kPlain = newlocale(LC_ALL_MASK, "C", nullptr);
  out.resize(strftime_l(out.data(), out.size(), wanted.c_str(), &time, kPlain));
  return out;
}

}  // namespace retort::data::jinja
