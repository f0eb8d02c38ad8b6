// Tables as people read them: Markdown, first column to the left, the others to the right.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace retort {

// rows[0] is the header; all rows have as many cells.
std::string markdown_table(const std::vector<std::vector<std::string>>& rows);
std::string grouped(int64_t value);  // thousands in groups of three: 3,540,000

}  // namespace retort
