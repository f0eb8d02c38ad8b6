// What each rank writes of a checkpoint's tensors: of masters and the optimizer's state the rows that it owns, and of what
// several ranks have whole a part each, block by block (models/placement.h). Every row has one writer. No collective.
#pragma once

#include <map>
#include <string>

#include "comm/comm.h"
#include "formats/safetensors.h"
#include "train/checkpoint_writer.h"
#include "train/optimizer.h"
#include "train/owners.h"

namespace retort::train {

struct StateShares {
  formats::NamedTensors weights, optimizer;  // on at::kMeta
  std::map<std::string, Share> shares;       // this rank's, views of what is trained
};

// No owners: every rank has all. What is borrowed is left out.
StateShares shares_of(const Trained& trained, const Optimizer& optimizer, const Owners* owners,
                      const comm::Comm& comm);

}  // namespace retort::train
