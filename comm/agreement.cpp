#include "comm/agreement.h"

#include <fmt/ranges.h>

#include <charconv>
#include <vector>

#include "comm/together.h"
#include "core/error.h"

namespace retort::comm {
namespace {

constexpr size_t kMostNamed = 8;

// Length and text, one after another: a text may hold any byte.
std::string packed(const Facts& facts) {
  std::string out;
  for (const auto& [name, value] : facts)
    out += fmt::format("{}:{}{}:{}", name.size(), name, value.size(), value);
  return out;
}

std::string take(std::string_view& text) {
  size_t length = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
  RETORT_ASSERT(error == std::errc() && *end == ':');
  text.remove_prefix(static_cast<size_t>(end - text.data()) + 1);
  std::string out(text.substr(0, length));
  text.remove_prefix(length);
  return out;
}

Facts unpacked(std::string_view text) {
  Facts facts;
  while (!text.empty()) {
    std::string name = take(text);
    facts[std::move(name)] = take(text);
  }
  return facts;
}

std::string shown(const Facts& facts, const std::string& name) {
  const auto found = facts.find(name);
  if (found == facts.end()) return "absent";
  return found->second.empty() ? "\"\"" : found->second;
}

std::vector<std::string> differences(const Facts& first, const Facts& mine) {
  Facts all = first;
  all.insert(mine.begin(), mine.end());
  std::vector<std::string> out;
  for (const auto& [name, value] : all)
    if (shown(first, name) != shown(mine, name))
      out.push_back(
          fmt::format("{} is {} there and {} on rank 0", name, shown(mine, name), shown(first, name)));
  if (out.size() > kMostNamed) {
    const size_t more = out.size() - kMostNamed;
    out.resize(kMostNamed);
    out.push_back(fmt::format("and {} more", more));
  }
  return out;
}

}  // namespace

void must_agree(Comm& comm, const Facts& mine) {
  if (comm.size() == 1) return;
  const Facts first = unpacked(comm.broadcast_text(packed(mine)));
  together(comm, [&] {
    const std::vector<std::string> differ = differences(first, mine);
    check<ConfigError>(differ.empty(), "differs from rank 0: {}", fmt::join(differ, "; "));
  });
}

}  // namespace retort::comm
