// A batch for a model on a device.
#pragma once

#include <array>

#include "data/batch_stream.h"

namespace retort::data {

// What a model and a loss on its rows read of a batch on their device, some of it undefined.
inline std::array<at::Tensor*, 3> read_by_models(Batch& batch) {
  return {&batch.tokens_BT, &batch.labels_BT, &batch.positions_BT};
}

// With that copied there. Documents stay on the host, which must know their lengths (models/document_mask.h), and so do
// the rows' places in their corpora, where it looks up what is stored beside them. The batch itself on the CPU.
Batch on_device(const Batch& batch, const at::Device& device);

}  // namespace retort::data
