#include "data/templates/number.h"

#include <charconv>
#include <cmath>

#include "data/templates/format.h"
#include "data/templates/interpreter.h"
#include "data/templates/text.h"

namespace retort::data::jinja {
namespace {

std::string_view spelling(Operator operation) {
  switch (operation) {
    case Operator::kAdd:
      return "+";
    case Operator::kSubtract:
      return "-";
    case Operator::kMultiply:
      return "*";
    case Operator::kDivide:
      return "/";
    case Operator::kFloorDivide:
      return "//";
    case Operator::kModulo:
      return "%";
    case Operator::kPower:
      return "** or pow()";
  }
  return "";
}

[[noreturn]] void too_wide() { raise("makes an integer beyond 128 bits, the limit"); }

Integer floor_quotient(Integer a, Integer b) {
  const Integer quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Integer power(Integer base, Integer exponent) {
  Integer out = 1;
  if (base == 0 || base == 1) return exponent == 0 ? 1 : base;
  if (base == -1) return exponent % 2 == 0 ? 1 : -1;
  if (exponent > 127) too_wide();
  for (; exponent > 0; --exponent)
    if (__builtin_mul_overflow(out, base, &out)) too_wide();
  return out;
}

Value of_integers(Heap& heap, Operator operation, Integer a, Integer b) {
  Integer out = 0;
  switch (operation) {
    case Operator::kAdd:
      if (__builtin_add_overflow(a, b, &out)) too_wide();
      break;
    case Operator::kSubtract:
      if (__builtin_sub_overflow(a, b, &out)) too_wide();
      break;
    case Operator::kMultiply:
      if (__builtin_mul_overflow(a, b, &out)) too_wide();
      break;
    case Operator::kDivide:
      if (b == 0) raise("division by zero");
      return Value::real(static_cast<double>(a) / static_cast<double>(b));
    case Operator::kFloorDivide:
      if (b == 0) raise("integer division or modulo by zero");
      if (b == -1 && __builtin_sub_overflow(Integer{0}, a, &out)) too_wide();
      out = floor_quotient(a, b);
      break;
    case Operator::kModulo:
      if (b == 0) raise("integer modulo by zero");
      out = b == -1 ? 0 : a - floor_quotient(a, b) * b;
      break;
    case Operator::kPower:
      if (b < 0 && a == 0) raise("0.0 cannot be raised to a negative power");
      if (b < 0) return Value::real(std::pow(static_cast<double>(a), static_cast<double>(b)));
      out = power(a, b);
  }
  return Value::integer(heap, out);
}

double remainder_of(double a, double b) {  // with the sign of b
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

Value of_reals(Operator operation, double a, double b) {
  switch (operation) {
    case Operator::kAdd:
      return Value::real(a + b);
    case Operator::kSubtract:
      return Value::real(a - b);
    case Operator::kMultiply:
      return Value::real(a * b);
    case Operator::kDivide:
      if (b == 0) raise("float division by zero");
      return Value::real(a / b);
    case Operator::kFloorDivide: {
      if (b == 0) raise("float floor division by zero");
      const double quotient = (a - remainder_of(a, b)) / b;
      const double whole = std::floor(quotient);
      return Value::real(quotient - whole > 0.5 ? whole + 1
                         : quotient == 0        ? std::copysign(0.0, a / b)
                                                : whole);
    }
    case Operator::kModulo:
      if (b == 0) raise("float modulo");
      return Value::real(remainder_of(a, b));
    case Operator::kPower: {
      if (a == 0 && b < 0) raise("0.0 cannot be raised to a negative power");
      if (a < 0 && b != std::floor(b))
        raise("a power of a negative number is complex, which is not supported");
      const double out = std::pow(a, b);
      if (std::isinf(out) && std::isfinite(a) && std::isfinite(b))
        raise("(34, 'Numerical result out of range')");
      return Value::real(out);
    }
  }
  return {};
}

Value repeated(Heap& heap, const Value& value, Integer count) {
  const size_t times = count < 0 ? 0 : static_cast<size_t>(std::min<Integer>(count, Integer{1} << 40));
  if (value.is(Kind::kText)) {
    const std::string_view bytes = value.bytes();
    if (bytes.empty() || times == 0) return value.part(bytes.substr(0, 0));
    heap.check_text(times > heap.limits().text ? times : bytes.size() * times);
    char* out = heap.text(bytes.size() * times);
    for (size_t i = 0; i < times; ++i) std::memcpy(out + i * bytes.size(), bytes.data(), bytes.size());
    return Value::text({out, bytes.size() * times}, value.markup());
  }
  const auto items = value.items();
  const size_t size = items.empty() ? 0 : times;
  heap.step(size * items.size());
  Value* out = heap.array<Value>(size * items.size());
  for (size_t i = 0; i < size; ++i) std::copy(items.begin(), items.end(), out + i * items.size());
  const std::span<const Value> all(out, size * items.size());
  return value.is(Kind::kList) ? Value::list(all) : Value::tuple(all);
}

Value joined_texts(Heap& heap, const Value& a, const Value& b) {
  const bool markup = a.markup() || b.markup();
  Buffer out(heap);
  for (const Value* one : {&a, &b}) {
    if (markup && !one->markup())
      add_escaped(out, one->bytes());
    else
      out.add(one->bytes());
  }
  return Value::text(out.take(), markup);
}

Value added(Heap& heap, const Value& a, const Value& b) {
  if (a.is(Kind::kText) && b.is(Kind::kText)) return joined_texts(heap, a, b);
  if (a.is(Kind::kText) && !a.markup()) raise("can only concatenate str (not \"{}\") to str", type_name(b));
  if (!a.is_sequence()) raise("unsupported operand type(s) for +: '{}' and '{}'", type_name(a), type_name(b));
  if (a.kind() != b.kind())
    raise("can only concatenate {} (not \"{}\") to {}", type_name(a), type_name(b), type_name(a));
  const auto left = a.items(), right = b.items();
  heap.step(left.size() + right.size());
  Value* out = heap.array<Value>(left.size() + right.size());
  std::copy(right.begin(), right.end(), std::copy(left.begin(), left.end(), out));
  const std::span<const Value> all(out, left.size() + right.size());
  return a.is(Kind::kList) ? Value::list(all) : Value::tuple(all);
}

bool repeats(const Value& value) { return value.is(Kind::kText) || value.is_sequence(); }

}  // namespace

Value arithmetic(Interpreter& at, Operator operation, const Value& a, const Value& b) {
  Heap& heap = at.heap();
  if (a.is_integral() && b.is_integral()) return of_integers(heap, operation, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return of_reals(operation, a.real(), b.real());
  if (a.is(Kind::kText) && operation == Operator::kModulo) return percent_formatted(at, a, b);
  if (a.undefined()) raise_undefined(a);
  if (b.undefined()) raise_undefined(b);
  if (operation == Operator::kAdd) return added(heap, a, b);
  if (operation == Operator::kMultiply && (repeats(a) || repeats(b))) {
    const Value& sequence = repeats(a) ? a : b;
    const Value& count = repeats(a) ? b : a;
    if (!count.is_integral()) raise("can't multiply sequence by non-int of type '{}'", type_name(count));
    return repeated(heap, sequence, count.integer());
  }
  raise("unsupported operand type(s) for {}: '{}' and '{}'", spelling(operation), type_name(a), type_name(b));
}

Value negated(Heap& heap, const Value& value, bool negative) {
  if (value.undefined()) raise_undefined(value);
  if (value.is(Kind::kFloat)) return Value::real(negative ? -value.real() : value.real());
  if (!value.is_integral())
    raise("bad operand type for unary {}: '{}'", negative ? "-" : "+", type_name(value));
  Integer out = value.integer();
  if (negative && __builtin_sub_overflow(Integer{0}, out, &out)) too_wide();
  return Value::integer(heap, out);
}

std::string spelled(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char digits[40];
  const char* end = std::to_chars(digits, digits + sizeof digits, value, std::chars_format::scientific).ptr;
  std::string_view all(digits, static_cast<size_t>(end - digits));
  const size_t e = all.find('e');
  int exponent = 0;
  std::from_chars(all.data() + e + (all[e + 1] == '+' ? 2 : 1), end, exponent);
  std::string sign = all[0] == '-' ? "-" : "", mantissa;
  for (const char c : all.substr(0, e))
    if (c >= '0' && c <= '9') mantissa += c;
  if (exponent < -4 || exponent >= 16) {
    const std::string rest = mantissa.size() > 1 ? "." + mantissa.substr(1) : "";
    return fmt::format("{}{}{}e{}{:02}", sign, mantissa[0], rest, exponent < 0 ? '-' : '+',
                       std::abs(exponent));
  }
  if (exponent < 0) return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + mantissa;
  const auto whole = static_cast<size_t>(exponent) + 1;
  if (mantissa.size() <= whole) return sign + mantissa + std::string(whole - mantissa.size(), '0') + ".0";
  return sign + mantissa.substr(0, whole) + "." + mantissa.substr(whole);
}

std::string spelled(Integer value) { return fmt::format("{}", value); }

std::optional<Integer> parse_integer(std::string_view text, int base) {
  text = strip(text, nullptr, true, true);
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  const auto prefixed = [&](char letter) {
    return text.size() > 2 && text[0] == '0' && (text[1] | 0x20) == letter;
  };
  for (const auto& [letter, radix] : {std::pair('x', 16), {'o', 8}, {'b', 2}})
    if ((base == radix || base == 0) && prefixed(letter)) {
      text.remove_prefix(text[2] == '_' ? 3 : 2);
      base = radix;
      break;
    }
  if (base == 0) base = 10;
  Integer out = 0;
  bool digit_before = false;
  if (text.empty() || text.back() == '_') return std::nullopt;
  for (const char c : text) {
    if (c == '_' && digit_before) {
      digit_before = false;
      continue;
    }
    const int digit = c >= '0' && c <= '9'                     ? c - '0'
                      : (c | 0x20) >= 'a' && (c | 0x20) <= 'z' ? (c | 0x20) - 'a' + 10
                                                               : 99;
    if (digit >= base) return std::nullopt;
    if (__builtin_mul_overflow(out, Integer{base}, &out) || __builtin_add_overflow(out, Integer{digit}, &out))
      too_wide();
    digit_before = true;
  }
  return negative ? -out : out;
}

std::optional<double> parse_real(std::string_view text) {
  text = strip(text, nullptr, true, true);
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](size_t place) {
      return place < text.size() && text[place] >= '0' && text[place] <= '9';
    };
    if (text[i] == '_' && i > 0 && digit(i - 1) && digit(i + 1)) continue;
    plain += static_cast<char>(text[i] >= 'A' && text[i] <= 'Z' ? text[i] | 0x20 : text[i]);
  }
  std::string_view rest = plain;
  const bool negative = rest.starts_with('-');
  if (negative || rest.starts_with('+')) rest.remove_prefix(1);
  if (rest == "infinity") rest = "inf";
  if (rest.starts_with('-') || rest.starts_with('+') || rest.find('(') != rest.npos) return std::nullopt;
  double out = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), out);
  if (end != rest.data() + rest.size() || rest.empty() || error == std::errc::invalid_argument)
    return std::nullopt;
  if (error == std::errc::result_out_of_range)
    out = std::strtod(plain.c_str() + (rest.data() - plain.data()), nullptr);
  return negative ? -out : out;
}

Integer truncated(double value) {
  if (std::isnan(value)) raise("cannot convert float NaN to integer");
  if (std::isinf(value)) raise("cannot convert float infinity to integer");
  if (std::fabs(value) >= std::ldexp(1.0, 127)) too_wide();
  return static_cast<Integer>(value);
}

double rounded(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 323) return value;
  const std::string text = fmt::format("{:.{}f}", value, digits);  // exact, half to even
  return std::strtod(text.c_str(), nullptr);
}

}  // namespace retort::data::jinja
