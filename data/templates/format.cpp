#include "data/templates/format.h"

#include <algorithm>
#include <cmath>

#include "data/templates/interpreter.h"
#include "data/templates/number.h"
#include "data/templates/print.h"
#include "data/templates/text.h"

namespace retort::data::jinja {
namespace {

struct Form {
  std::string_view fill = " ";
  char align = 0, sign = '-', type = 0;
  bool zero = false;
  int64_t width = 0, precision = -1;
};

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
  const int64_t missing = std::max<int64_t>(form.width - characters(text, false), 0);
  const int64_t left = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  at.heap().step(static_cast<uint64_t>(missing));
  for (int64_t i = 0; i < left; ++i) out.add(form.fill);
  out.add(text);
  for (int64_t i = left; i < missing; ++i) out.add(form.fill);
}

void add_text(Interpreter& at, Buffer& out, std::string_view text, const Form& form, char align) {
  if (form.precision >= 0) text = text.substr(0, byte_of(text, form.precision, false));
  pad(at, out, text, form, form.align == 0 ? align : form.align);
}

// Without its sign.
std::string digits_of(const Value& value, const Form& form) {
  if (form.type != 'f' && value.is_integral())
    return spelled(value.integer() < 0 ? -value.integer() : value.integer());
  const double real = std::fabs(value.real());
  if (std::isfinite(real) && form.type == 'f')
    return fmt::format("{:.{}f}", real, form.precision < 0 ? 6 : form.precision);
  if (form.precision >= 0) raise("a precision without the type f is not supported");
  return spelled(real);
}

void add_number(Interpreter& at, Buffer& out, const Value& value, const Form& form) {
  const bool negative = value.is_integral() ? value.integer() < 0 : std::signbit(value.real());
  const std::string sign = negative ? "-" : form.sign == '-' ? "" : std::string(1, form.sign);
  const std::string digits = digits_of(value, form);
  if (!form.zero || form.align != 0)
    return pad(at, out, sign + digits, form, form.align == 0 ? '>' : form.align);
  out.add(sign);
  Form zeros = form;
  zeros.fill = "0";
  zeros.width -= static_cast<int64_t>(sign.size());
  pad(at, out, digits, zeros, '>');
}

// --- % -------------------------------------------------------------------------------------------------

class Percent {
 public:
  Percent(Interpreter& at, std::string_view format, std::span<const Value> values)
      : at_(at), format_(format), values_(values) {}

  Value run() {
    Buffer out(at_.heap());
    at_.heap().read(format_.size());
    while (i_ < format_.size()) {
      const size_t mark = std::min(format_.find('%', i_), format_.size());
      out.add(format_.substr(i_, mark - i_));
      i_ = mark + 1;
      if (mark < format_.size()) convert(out);
    }
    if (used_ < values_.size()) raise("not all arguments converted during string formatting");
    return Value::text(out.take());
  }

 private:
  char peek() const {
    if (i_ >= format_.size()) raise("incomplete format");
    return format_[i_];
  }

  void convert(Buffer& out) {
    Form form;
    for (; std::string_view("-+ 0").find(peek()) != std::string_view::npos; ++i_) {
      if (peek() == '-') form.align = '<';
      if (peek() == '+' || (peek() == ' ' && form.sign != '+')) form.sign = peek();
      if (peek() == '0') form.zero = true;
    }
    form.width = read_number(format_, i_);
    if (peek() == '.') form.precision = read_number(format_, ++i_);
    form.type = peek();
    ++i_;
    if (form.type == '%') return out.add('%');
    if (std::string_view("srdif").find(form.type) == std::string_view::npos)
      raise("the format %{} is not supported", form.type);
    if (used_ >= values_.size()) raise("not enough arguments for format string");
    add(out, values_[used_++], form);
  }

  void add(Buffer& out, const Value& value, const Form& form) {
    if (form.type == 's') return add_text(at_, out, text_of(at_, value).bytes(), form, '>');
    if (form.type == 'r') return add_text(at_, out, repr_of(at_, value), form, '>');
    if (!value.is_number())
      raise("%{} format: a real number is required, not {}", form.type, type_name(value));
    const bool whole = form.type != 'f' && value.is(Kind::kFloat);
    add_number(at_, out, whole ? Value::integer(at_.heap(), truncated(value.real())) : value, form);
  }

  Interpreter& at_;
  std::string_view format_;
  std::span<const Value> values_;
  size_t i_ = 0, used_ = 0;
};

// --- {} ------------------------------------------------------------------------------------------------

Form parse_form(std::string_view text) {
  Form form;
  size_t i = 0, size = 0;
  const auto at = [&](size_t place) { return place < text.size() ? text[place] : '\0'; };
  const auto aligns = [](char c) { return c == '<' || c == '>' || c == '^'; };
  if (!text.empty()) first_of(text, size);
  if (size > 0 && aligns(at(size))) {
    form.fill = text.substr(0, size);
    i = size;
  }
  if (aligns(at(i))) form.align = text[i++];
  if (at(i) == '+' || at(i) == '-' || at(i) == ' ') form.sign = text[i++];
  if (at(i) == '0') form.zero = true, ++i;
  form.width = read_number(text, i);
  if (at(i) == '.' && is_digit(at(i + 1))) form.precision = read_number(text, ++i);
  if (at(i) == 's' || at(i) == 'd' || at(i) == 'f') form.type = text[i++];
  if (i < text.size()) raise("the format specification {} is not supported", in_quotes(text));
  return form;
}

class Braces {
 public:
  Braces(Interpreter& at, std::string_view format, const Arguments& arguments)
      : at_(at), format_(format), arguments_(arguments) {}

  Value run() {
    Buffer out(at_.heap());
    at_.heap().read(format_.size());
    for (size_t i = 0; i < format_.size();) {
      const size_t brace = std::min(format_.find_first_of("{}", i), format_.size());
      out.add(format_.substr(i, brace - i));
      i = brace + 1;
      if (brace == format_.size()) break;
      if (i < format_.size() && format_[i] == format_[brace]) {
        out.add(format_[i++]);
        continue;
      }
      if (format_[brace] == '}') raise("Single '}}' encountered in format string");
      const size_t end = format_.find('}', i);
      if (end == format_.npos) raise("expected '}}' before end of string");
      add_field(out, format_.substr(i, end - i));
      i = end + 1;
    }
    return Value::text(out.take());
  }

 private:
  void add_field(Buffer& out, std::string_view field) {
    if (const size_t odd = field.find_first_of(".[!{"); odd < field.find(':'))
      raise("the format field {} is not supported", in_quotes(field));
    const size_t colon = std::min(field.find(':'), field.size());
    const Value value = lookup(field.substr(0, colon));
    const Form form = parse_form(field.substr(std::min(colon + 1, field.size())));
    if (value.is_number() && !value.is(Kind::kBool) && form.type != 's')
      return add_number(at_, out, value, form);
    if (form.type == 'd' || form.type == 'f')
      raise("Unknown format code '{}' for object of type '{}'", form.type, type_name(value));
    if (!value.is(Kind::kText) && colon + 1 < field.size())
      raise("unsupported format string passed to {}.__format__", type_name(value));
    add_text(at_, out, text_of(at_, value).bytes(), form, '<');
  }

  Value lookup(std::string_view name) {
    if (!name.empty() && !std::all_of(name.begin(), name.end(), is_digit)) {
      for (const Named& one : arguments_.named)
        if (one.name == name) return one.value;
      raise("{}", in_quotes(name));
    }
    if (name.empty() != automatic_ && fields_ > 0)
      raise("cannot switch between manual field specification and automatic field numbering");
    automatic_ = name.empty();
    size_t i = 0;
    const size_t place = automatic_ ? fields_ : static_cast<size_t>(read_number(name, i));
    ++fields_;
    if (place >= arguments_.positional.size())
      raise("Replacement index {} out of range for positional args tuple", place);
    return arguments_.positional[place];
  }

  Interpreter& at_;
  std::string_view format_;
  const Arguments& arguments_;
  bool automatic_ = true;
  size_t fields_ = 0;
};

void check_plain(const Value& format) {
  if (format.markup()) raise("formatting of escaped text is not supported");
}

}  // namespace

Value percent_formatted(Interpreter& at, const Value& format, const Value& values) {
  check_plain(format);
  return Percent(at, format.bytes(), values.is(Kind::kTuple) ? values.items() : std::span(&values, 1)).run();
}

Value brace_formatted(Interpreter& at, const Value& format, const Arguments& arguments) {
  check_plain(format);
  return Braces(at, format.bytes(), arguments).run();
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
