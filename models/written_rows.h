// Which rows of a checkpoint's tensor a rank writes, of ranks that have them alike: a run of blocks each, so that every row
// has one writer. The rule of train/state_shares.h, and of the plan for the copy that a save keeps (plan/saved_copy.h).
#pragma once

#include <algorithm>

#include "kernels/row_blocks.h"

namespace retort::models {

// Of `rows`, which `holders` ranks have, those of number `holder`.
inline kernels::RowBlock written_rows(const kernels::RowBlocks& rows, int64_t holder, int64_t holders) {
  const auto at = [&](int64_t number) {
    return std::min(rows.end, rows.begin + rows.count() * number / holders * rows.step);
  };
  return {at(holder), at(holder + 1)};
}

}  // namespace retort::models
