// Where a run is: what a checkpoint says of it beside its tensors, in its manifest under extra.train. The same on every rank
// but for the seconds, and a pure function of the steps taken, so that a run which goes on elsewhere decides alike.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include "data/batch_stream.h"
#include "formats/json.h"
#include "train/guard.h"

namespace retort::train {

// Of validations: the lowest figure (negative where more is better), its step, and how many there have been since.
struct BestFigure {
  double figure = std::numeric_limits<double>::infinity();
  int64_t step = -1, since = 0;
  int64_t counted = -1;  // the last step that was counted: a run that goes on elsewhere validates there again

  bool known() const { return step >= 0; }
  void take(double now, int64_t at);
};

struct RunState {
  Guard guard;
  int64_t step = 0, tokens = 0;
  double loss = std::numeric_limits<double>::quiet_NaN();
  int64_t unlabelled = 0;  // steps
  double seconds = 0;
  int64_t failed_saves = 0;  // in a row, of this process
  BestFigure best = {};

  // keeps_best: the checkpoint of the lowest figure is there, and is the stage's model.
  void write(formats::Json& train, bool keeps_best) const;
  // Json::exception, or CheckpointError that names `source`, where something is not there or no number.
  void read(const formats::Json& train, const std::string& source);
};

// What a run reads, and how far it is: R G micro-batches a step of the stream's rows.
class DataPosition {
 public:
  DataPosition(const data::BatchStream& stream, int64_t micro_batches)
      : stream_(stream), rows_(micro_batches * stream.options().rows) {}

  // A run can only be continued with the same samples if this stays.
  formats::Json batch() const;
  // How far each source is read after so many steps: [{"name", "digest", "weight", "samples", "epochs"}].
  formats::Json sources(int64_t steps) const;
  std::map<std::string, double> epochs(int64_t steps) const;

 private:
  const data::BatchStream& stream_;
  int64_t rows_;  // of a step
};

}  // namespace retort::train
