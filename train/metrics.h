// A run's report of its steps, in three places: lines of metrics.jsonl (docs/formats.md has their layout),
// TensorBoard scalars, and the console. The file holds no wall-clock fact, so that runs with one seed write
// the same bytes; rates go to TensorBoard. A run that continues drops the lines after its checkpoint's step
// and writes TensorBoard's events again from the rest, so neither holds a step twice. A line that cannot be
// written (full disk) causes one warning and waits for the next try: training goes on. Rank 0 only; one
// thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/log.h"
#include "formats/json.h"
#include "formats/tensorboard.h"
#include "train/step.h"

namespace retort::train {

std::string rate_text(double flops);  // a second: "250 GFLOP/s"

struct MetricsOptions {
  int64_t steps = 0;       // of the whole run, for the progress line
  int64_t log_every = 10;  // steps between lines
  double tokens_per_step = 0;
  std::vector<std::string> part_names;
  std::string counted = "labels";  // what the objective counts
  int64_t tokens = 0;              // and seconds that the run had before it starts or continues here
  double seconds = 0;
  double flops_per_token = 0;  // and FLOP/s that the devices reach in products; 0: no share is told
  double ceiling = 0;
};

// How far a run has come.
struct Covered {
  int64_t tokens = 0;
  double seconds = 0;
  std::map<std::string, double> epochs;  // passes over each source
};

class Metrics {
 public:
  // Continues after `done` updates; 0 begins a new file.
  Metrics(FileSystem& files, Log& log, const Path& directory, int64_t done, MetricsOptions options);
  void step(const StepStats& stats, const Covered& covered);  // after the update stats.step
  void validation(int64_t done, const std::map<std::string, double>& figures);
  // Whether the validation after `done` updates is in the file.
  bool has_validation(int64_t done) const { return validated_ == done; }
  void sync();    // before a checkpoint, which promises the lines up to its step
  void finish();  // the progress line's last state

 private:
  void write(const formats::Json& line);
  void open();
  void draw(const formats::Json& line, double tokens_per_second = 0.0);
  double share(double tokens_per_second) const;  // of the ceiling

  FileSystem& files_;
  Log& log_;
  Path path_;
  MetricsOptions options_;
  std::unique_ptr<WritableFile> file_;  // none yet, or none since an error
  uint64_t good_bytes_ = 0;             // at the head of the file at path_: whole lines to keep
  std::string pending_;                 // lines not written yet
  bool warned_ = false;
  int64_t validated_ = -1;
  std::unique_ptr<formats::TensorboardWriter> board_;
  Progress progress_;
  std::string note_;
  double first_tokens_, first_seconds_;  // of this process
  double last_tokens_, last_seconds_;    // at the last line, for the rate since
};

}  // namespace retort::train
