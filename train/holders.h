// What holds the memory of training, by what it is for: bytes of the tensors that are there between two steps, each
// storage once. What a step needs besides (activations, the loss's rows, batches) is what is left of a process's or a
// device's use. One rank's.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "train/step.h"

namespace retort::train {

struct Holder {
  std::string what;
  uint64_t bytes = 0;
  std::string remedy = {};  // what to change in a recipe, when there is too little
};
// The largest first. micro_batches: of this rank.
std::vector<Holder> holders_of(const StepParts& parts, int64_t micro_batches);
// "optimizer 4.0 GB, masters 2.0 GB, ..."
std::string text_of(const std::vector<Holder>& holders);

// What an error of LibTorch's or of the C++ library says when memory was refused; "" for any other error.
std::string refusal_of_memory(const std::exception& error);
// ConfigError of a step that was refused memory: what is there between steps is known; the rest is the step's own, which grows
// with the rows of a micro-batch.
[[noreturn]] void fail_of_memory(int64_t step, const std::string& refusal, const std::vector<Holder>& holders,
                                 int64_t rows);

}  // namespace retort::train
