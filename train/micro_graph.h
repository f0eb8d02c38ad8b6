// Micro-batches as graphs of the device (kernels/device_graph.h): forward, loss and backward of one, recorded for each shape
// of its batch and repeated by one call, instead of being enqueued operation by operation. A batch is copied to where the
// graph reads it. Gradients and figures are where it leaves them; gradients go to GradSync in the order in which
// backward made them, so the bits and the collectives of a step are those without graphs, on every rank by itself.
//
// The first micro-batch of a shape runs as ever, and makes what later ones reuse. So does the second, and is recorded and repeated
// beside it. From the third on it is repeated, if that gave figures and gradients of the same bits; that comparison is one
// more time that the host waits. Where it did not, or recording fails, the log is warned, and all run as ever from then
// on. One thread.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "core/log.h"
#include "data/batch_stream.h"
#include "kernels/device_graph.h"
#include "models/model.h"
#include "train/grad_sync.h"
#include "train/trained.h"

namespace retort::train {

// Why what the model enqueues is more than its batch's shape tells, so that it cannot be repeated; "": it is not.
std::string not_repeatable(models::Model& model);
// What forbids to repeat micro-batches: what their objective says of itself (train/objective.h), else the model.
std::string not_repeatable(const std::string& objective, models::Model& model);

class MicroGraphs {
 public:
  // Forward, loss and backward: the figures. The loss's gradient is 1 / divisor, an f64 of the device's.
  using Pass = std::function<at::Tensor(const data::Batch& batch, const at::Tensor& divisor)>;
  static constexpr size_t kMostShapes = 4;  // the latest

  // What it is given outlives it. capture: nullptr: there are no graphs. log: nullptr: nobody hears.
  MicroGraphs(const Trained& trained, GradSync& sync, Pass pass, kernels::CaptureGraph capture, Log* log);
  void discard() { shapes_.clear(); }  // the model does something else from now on
  // For a while: all run without, and what there is of graphs stays.
  void run_all_once(bool once) { all_once_ = once; }
  uint64_t bytes() const;           // that graphs hold
  void begin_step(double divisor);  // of its micro-batches. Graphs that read weights from elsewhere go
  // This rank's micro-batch `index`: its figures.
  at::Tensor run(int64_t index, const data::Batch& batch);
  at::Tensor run_once(int64_t index, const data::Batch& batch);  // without a graph

 private:
  using Key = std::vector<std::vector<int64_t>>;
  struct Shape {
    Key key;
    bool seen = false;
    data::Batch inputs = {};  // what the graph reads
    std::unique_ptr<kernels::DeviceGraph> graph = {};
    at::Tensor figures = {};  // what it leaves
    std::vector<GradSync::Made> made = {};
  };
  static Key key_of(data::Batch batch);
  std::vector<const void*> addresses() const;
  Shape& shape_of(const data::Batch& batch);
  at::Tensor record(Shape& shape, int64_t index, const data::Batch& batch);
  void capture(Shape& shape, const data::Batch& batch);
  static void replay(Shape& shape, data::Batch batch);
  void give_up(const std::string& why);

  const Trained& trained_;
  GradSync& sync_;
  Pass pass_;
  kernels::CaptureGraph capture_;
  Log* log_;
  bool all_once_ = false;
  at::Tensor divisor_;
  std::vector<const void*> addresses_;
  std::list<Shape> shapes_;  // the latest first
};

}  // namespace retort::train
