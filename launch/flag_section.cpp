#include "launch/flag_section.h"

#include <algorithm>
#include <charconv>
#include <type_traits>

#include <CLI/CLI.hpp>
#include "core/error.h"
#include "core/nearest.h"

namespace retort::launch {

CLI::Validator whole(int64_t low, int64_t high) {
  const bool open = high == std::numeric_limits<int64_t>::max();
  const std::string rule = open ? fmt::format(">= {}", low) : fmt::format("in [{}, {}]", low, high);
  return {[=](std::string& text) {
            int64_t value = 0;
            const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
            const bool fits = error == std::errc() && end == text.data() + text.size() && !text.empty();
            return fits && value >= low && value <= high
                       ? std::string()
                       : fmt::format("must be a whole number {}, got \"{}\"", rule, text);
          },
          rule};
}

FlagSection::FlagSection(CLI::App& verb, std::set<std::string> only, std::set<std::string> without)
    : verb_(verb), only_(std::move(only)), without_(std::move(without)) {}

std::string FlagSection::flag_of(std::string_view key) {
  std::string name = "--" + std::string(key.substr(key.rfind('.') + 1));  // npos + 1: from its start
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

void FlagSection::visit(Key key, Value value, const Check& check) {
  const std::string key_name(key.name);
  if (without_.contains(key_name) || (!only_.empty() && !only_.contains(key_name))) return;
  const std::string name = flag_of(key.name);
  const std::string doc = std::string(key.doc) + (check.text.empty() ? "" : " (" + check.text + ")");
  std::visit(
      [&](auto* target) {
        using T = std::remove_pointer_t<decltype(target)>;
        if constexpr (std::is_same_v<T, bool>) {
          verb_.add_flag(*target ? name + ",!--no-" + name.substr(2) : name, *target, doc);
        } else if constexpr (requires { target->begin()->size(); } ||
                             std::is_same_v<T, std::vector<int64_t>> ||
                             std::is_same_v<T, std::vector<double>>) {
          verb_.add_option(name, *target, doc)->take_all()->allow_extra_args(false);
        } else {
          verb_.add_option(name, *target, doc)->capture_default_str();
          flags_.push_back({name, [target] { return fmt::format("{}", *target); }, check});
        }
      },
      value);
}

void FlagSection::verify() const {
  for (const Flag& flag : flags_)
    check<ConfigError>(!flag.check.holds || flag.check.holds(), "{} must be {}, got {}{}", flag.name,
                       flag.check.text, flag.value(), did_you_mean(flag.value(), flag.check.choices));
}

}  // namespace retort::launch
