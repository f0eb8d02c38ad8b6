// A batch for a model on a device.
#pragma once

#include "data/batch_stream.h"

namespace retort::data {

// What a model and a loss on its rows read is copied there: tokens, labels, positions, documents. The rows' places in
// their corpora stay on the host, which looks up there what is stored beside them. The batch itself on the CPU.
Batch on_device(const Batch& batch, const at::Device& device);

}  // namespace retort::data
