// A frozen model beside the one that is trained, of which each rank has rows (train/gathered_weights.h): what is compared with
// and would be whole on every rank. Its passes are made by all ranks together, each with a batch of its own, and bring two
// groups. What no group has is whole. It has no masters. One rank, one thread.
#pragma once

#include <memory>

#include "models/stored_model.h"
#include "train/owners.h"

namespace retort::train {

class DividedModel {
 public:
  // Collective. Of a model on at::kMeta, its matrices to be multiplied in `dtype` on `device`; `replicas` as Owners'.
  DividedModel(std::unique_ptr<models::Model> shape, at::ScalarType dtype, comm::Comm& comm, int64_t replicas,
               at::Device device = at::kCPU);
  // This rank's rows, of one parameter after another. NonFiniteError for values that are not finite.
  void take(const models::ParameterValues& values);
  models::Model& model() const { return *model_; }
  GatheredWeights& weights() const { return *gathered_; }  // once they are taken

 private:
  std::unique_ptr<models::Model> model_;
  at::Device device_;
  std::unique_ptr<Owners> owners_;
  std::unique_ptr<GatheredWeights> gathered_;
};

}  // namespace retort::train
