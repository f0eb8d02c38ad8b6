#include "launch/flag_section.h"

#include <algorithm>
#include <type_traits>

#include <CLI/CLI.hpp>
#include "core/error.h"
#include "core/nearest.h"

namespace retort::launch {

FlagSection::FlagSection(CLI::App& verb, std::set<std::string> without)
    : verb_(verb), without_(std::move(without)) {}

void FlagSection::visit(Key key, Value value, const Check& check) {
  if (without_.contains(std::string(key.name))) return;
  std::string name = "--" + std::string(key.name);
  std::replace(name.begin(), name.end(), '_', '-');
  const std::string doc = std::string(key.doc) + (check.text.empty() ? "" : " (" + check.text + ")");
  std::visit(
      [&](auto* target) {
        using T = std::remove_pointer_t<decltype(target)>;
        if constexpr (std::is_same_v<T, bool>) {
          verb_.add_flag(name, *target, doc);
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
