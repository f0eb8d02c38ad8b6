#include <fmt/ranges.h>

#include <algorithm>

#include "comm/queued_comm.h"
#include "core/error.h"
#include "core/shape.h"

namespace retort::comm {

void check_runs(const std::vector<at::Tensor>& out, const at::Tensor& in_N,
                const std::vector<int64_t>& bounds, int rank, int size) {
  check(in_N.dim() == 1 && in_N.is_contiguous(), "[all_to_all] needs a contiguous row, got {}",
        format_shape(in_N.sizes()));
  check(std::ssize(bounds) == size + 1 && bounds.front() == 0 && bounds.back() == in_N.numel() &&
            std::ranges::is_sorted(bounds),
        "[all_to_all] bounds must rise from 0 to {} in {} steps, got {}", in_N.numel(), size,
        fmt::join(bounds, ", "));
  check(std::ssize(out) == size, "[all_to_all] needs a tensor a rank, got {} for {} ranks", out.size(), size);
  const int64_t mine = bounds[static_cast<size_t>(rank) + 1] - bounds[static_cast<size_t>(rank)];
  for (const at::Tensor& one : out)
    check(one.numel() == mine && one.is_contiguous() && one.scalar_type() == in_N.scalar_type(),
          "[all_to_all] out must have {} contiguous elements of {} a rank, got {} of {}", mine,
          c10::toString(in_N.scalar_type()), one.numel(), c10::toString(one.scalar_type()));
}

void check_messages(const std::vector<at::Tensor>& send, const std::vector<at::Tensor>& receive, int rank,
                    int size) {
  check(std::ssize(send) == size && std::ssize(receive) == size,
        "[exchange] needs a message or none a rank, got {} and {} for {} ranks", send.size(), receive.size(),
        size);
  for (const auto* messages : {&send, &receive})
    for (const at::Tensor& one : *messages)
      check(!one.defined() || one.is_contiguous(), "[exchange] needs contiguous tensors, got one of {}",
            one.defined() ? format_shape(one.sizes()) : "");
  const at::Tensor &from = send[static_cast<size_t>(rank)], &to = receive[static_cast<size_t>(rank)];
  check(from.defined() == to.defined() &&
            (!from.defined() || (from.numel() == to.numel() && from.scalar_type() == to.scalar_type())),
        "[exchange] what rank {} sends itself must be what it receives", rank);
}

}  // namespace retort::comm
