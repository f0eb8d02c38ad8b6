#include "models/weight_groups.h"

#include <ATen/core/grad_mode.h>

namespace retort::models {

void GroupReads::forward(int64_t group) const {
  if (!use_) return;
  const bool last = group + 1 == groups_;
  use_(group, !last ? group + 1 : at::GradMode::is_enabled() ? group - 1 : -1);
}

// A hook sees the whole gradient of `made`, so all that came after it in the forward pass is done with its weights.
void GroupReads::backward(int64_t group, const at::Tensor& made) const {
  if (!use_ || !at::GradMode::is_enabled() || !made.requires_grad()) return;
  made.register_hook([this, group](const at::Tensor&) {
    if (!use_) return;
    group == 0 ? use_(-1, -1) : use_(group, group > 1 ? group - 1 : -1);
  });
}

}  // namespace retort::models
