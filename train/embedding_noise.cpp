// B rows, T tokens, D channels.
#include "train/embedding_noise.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/host_tensor.h"
#include "core/random.h"
#include "core/upload.h"

namespace retort::train {
namespace {

// For each token how many its document has in the row: documents are runs of one number.
std::vector<size_t> document_lengths(const data::Batch& batch) {
  const auto tokens = static_cast<size_t>(batch.tokens_BT.size(1));
  std::vector<size_t> out(static_cast<size_t>(batch.tokens_BT.numel()), tokens);
  if (!batch.document_BT.defined()) return out;
  const at::Tensor host_BT = batch.document_BT.cpu().contiguous();
  const std::span<const int64_t> documents = host_values<const int64_t>(host_BT);
  for (size_t begin = 0, end = 0; begin < out.size(); begin = end) {
    const size_t row_end = begin - begin % tokens + tokens;
    while (end < row_end && documents[end] == documents[begin]) ++end;
    std::fill(out.data() + begin, out.data() + end, end - begin);
  }
  return out;
}

}  // namespace

at::Tensor EmbeddingNoise::operator()(const data::Batch& batch, int64_t width) const {
  if (alpha == 0.0) return {};
  const int64_t rows = batch.tokens_BT.size(0), tokens = batch.tokens_BT.size(1);
  RETORT_ASSERT(std::ssize(batch.samples) == rows);
  const std::vector<size_t> lengths = document_lengths(batch);
  const at::Tensor out_BTD = at::empty({rows, tokens, width}, at::kFloat);
  const std::span<float> values = host_values<float>(out_BTD);
  at::parallel_for(0, rows * tokens, /*grain=*/16, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const auto sample = static_cast<uint64_t>(batch.samples[static_cast<size_t>(n / tokens)]);
      const Random random(seed, "train/embedding_noise", 0, sample);
      const double scale = alpha / std::sqrt(static_cast<double>(lengths[static_cast<size_t>(n)]) *
                                             static_cast<double>(width));
      for (int64_t d = 0; d < width; ++d) {
        const double u = 2.0 * random.uniform(static_cast<uint64_t>(n % tokens * width + d)) - 1.0;
        values[static_cast<size_t>(n * width + d)] = static_cast<float>(scale * u);
      }
    }
  });
  return upload(out_BTD, batch.tokens_BT.device());
}

}  // namespace retort::train
