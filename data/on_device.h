// A batch for a model on a device.
#pragma once

#include <array>

#include "data/batch_stream.h"

namespace retort::data {

// What a model and a loss on its rows read of a batch, some of it undefined.
inline std::array<at::Tensor*, 4> read_by_models(Batch& batch) {
  return {&batch.tokens_BT, &batch.labels_BT, &batch.positions_BT, &batch.document_BT};
}

// With that copied there. The rows' places in their corpora stay on the host, which looks up there what is stored beside
// them. The batch itself on the CPU.
Batch on_device(const Batch& batch, const at::Device& device);

}  // namespace retort::data
