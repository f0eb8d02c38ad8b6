#include "core/document_lengths.h"

#include <algorithm>
#include <vector>

#include "core/host_tensor.h"
#include "core/shape.h"

namespace retort {

DocumentLengths document_lengths(const at::Tensor& document_BT) {
  check_shape("document lengths", "document_BT", document_BT, {-1, -1});
  const at::Tensor numbers = document_BT.contiguous();
  const std::span<const int64_t> document = host_values<const int64_t>(numbers);
  const int64_t tokens = document_BT.size(1), count = document_BT.numel();
  std::vector<int32_t> cumulative;
  DocumentLengths out;
  for (int64_t i = 0; i <= count; ++i) {
    const auto at = static_cast<size_t>(i);
    if (i < count && i % tokens != 0 && document[at] == document[at - 1]) continue;
    if (!cumulative.empty()) out.longest = std::max(out.longest, i - cumulative.back());
    cumulative.push_back(static_cast<int32_t>(i));
  }
  out.cumulative = at::tensor(cumulative, at::kInt);
  return out;
}

}  // namespace retort
