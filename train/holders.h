// What holds the memory of training, by the names of a plan's parts (plan/memory.h), so that the two can be compared row by row:
// bytes of the tensors that are there between two steps, each storage once. What a step needs besides is the peak without them:
// `activations`, with the loss's rows. `other` is what is in use between steps and nothing here knows: batches, tables,
// teachers that ranks divide; on the host the program itself. One rank's.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "train/memory_use.h"
#include "train/step.h"

namespace retort::train {

struct Holder {
  std::string what;
  uint64_t bytes = 0;
  std::string remedy = {};  // what to change in a recipe, when there is too little
};
// The largest first. micro_batches: of this rank.
std::vector<Holder> holders_of(const StepParts& parts, int64_t micro_batches);
// Of a model that is not trained, or not yet: what lies where it multiplies.
std::vector<Holder> holders_of(const models::Parameters& parameters);
uint64_t bytes_of(const std::vector<Holder>& holders);
// "optimizer 4.0 GB, weights 2.0 GB, ..."; with what is free where that is known.
std::string text_of(const std::vector<Holder>& holders, const std::optional<MemoryUse>& use = {});
// A Markdown table of them, of activations and other, whose sum `all` is the most that was in use, and of what is free.
std::string table_of(std::vector<Holder> holders, const std::optional<MemoryUse>& use);

// What an error of LibTorch's or of the C++ library says when memory was refused; "" for any other error.
std::string refusal_of_memory(const std::exception& error);
// Does `work`. ConfigError where it is refused memory on `device`: what was done ("step 4"), what holds memory there and what to change,
// `remedy` and that of the largest holder.
void name_holders(const std::string& doing, const at::Device& device,
                  const std::function<std::vector<Holder>()>& holders, const std::string& remedy,
                  const std::function<void()>& work);

}  // namespace retort::train
