#include "core/table.h"

#include <fmt/format.h>

#include <algorithm>

namespace retort {

std::string markdown_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string out;
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t i = 0; i < widths.size(); ++i)
      out += i == 0 ? fmt::format("| {:<{}} |", rows[r][i], widths[i])
                    : fmt::format(" {:>{}} |", rows[r][i], widths[i]);
    out += "\n";
    if (r > 0) continue;
    for (size_t i = 0; i < widths.size(); ++i)
      out += i == 0 ? "|" + std::string(widths[i] + 2, '-') + "|" : std::string(widths[i] + 1, '-') + ":|";
    out += "\n";
  }
  return out;
}

std::string grouped(int64_t value) {
  std::string digits = std::to_string(value);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

}  // namespace retort
