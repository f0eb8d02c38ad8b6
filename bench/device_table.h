// What the parts of bench_device share: where it runs, how it times, and the one table that all of them print into.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/cuda_ops.h"
#include "kernels/device_rate.h"

namespace retort::bench {

using Tensors = std::vector<at::Tensor>;
using Work = std::function<Tensors()>;

struct Place {
  at::Device device = at::kCPU;
  bool pretends = false;
  // A size of the device's, or a small one.
  int64_t size(int64_t real, int64_t small) const { return pretends ? small : real; }
  at::TensorOptions options(at::ScalarType dtype = at::kBFloat16) const {
    return at::TensorOptions(device).dtype(dtype);
  }
  at::Tensor normal(at::IntArrayRef shape, at::ScalarType dtype = at::kBFloat16) const {
    return at::randn(shape, options(at::kFloat)).to(dtype);
  }
  at::Tensor below(int64_t end, at::IntArrayRef shape) const {
    return at::randint(end, shape, options(at::kLong));
  }
  void wait() const { kernels::wait_for(device); }
};

// What this run reaches: bytes a second of a copy, operations a second of a product in bf16.
struct Ceilings {
  double copy = 0, product = 0;
};
Ceilings ceilings_of(const Place& place);

// What one run of a work takes, in ms: medians of rounds of some milliseconds, of ours and of the peer in turns.
struct Timed {
  double ours = 0;
  std::optional<double> peer = {};
  std::optional<double> ratio() const { return peer ? std::optional(ours / *peer) : std::nullopt; }
};
Timed time_of(const Place& place, const Work& ours, const Work& peer = {});

// Largest error of all results, each relative to its largest element; NaN is infinite.
double error_of(const Tensors& got, const Tensors& exact);

// What a row is held to: `reached` is to be no less than `bound`, or no more.
struct Target {
  double reached = 0, bound = 0;
  bool least = true;     // or most
  std::string of = {};   // what both are shares or multiples of: "copy", "bare products"
  bool percent = false;  // or a multiple: "1.15 x"
  bool met() const { return least ? reached >= bound : reached <= bound; }
};

// A row of the table. What it has not is "-".
struct Line {
  std::string name, shape = {};
  std::optional<double> error = {};
  double allowed = 0;
  std::string fault = {};  // what else is wrong with it
  std::optional<double> ms = {};
  std::string rate = "-";
  std::optional<double> share = {};  // of the ceiling
  std::optional<double> ratio = {};  // ours / peer
  std::optional<Target> target = {};
};

class Table {
 public:
  explicit Table(const Place& place) : place_(place), reached_(ceilings_of(place)) {}
  const Place& place() const { return place_; }
  const Ceilings& reached() const { return reached_; }
  void head(const std::string& kernels) const;
  void print(const Line& line);
  bool foot() const;  // true if nothing was wrong; a target that is missed is not

 private:
  Place place_;
  Ceilings reached_;
  int lines_ = 0, wrong_ = 0, met_ = 0, missed_ = 0;
};

// A kernel, bounded by the bytes that it must move.
struct Row {
  std::string name, shape;
  double bytes = 0;  // that must move
  Work ours, exact;  // exact: in fp64, of what ours gives
  double allowed;    // error
  Work peer = {};
  double least = 0;   // share of a copy's rate that is the target; 0: none
  Work checked = {};  // what is compared with `exact`, where runs of `ours` go on from one another
};
using Rows = std::vector<Row> (*)(const kernels::cuda::Ops& ops, const Place& place);

void print_rows(Table& table, const kernels::cuda::Ops& ops, const std::vector<Rows>& groups);

inline double count_of(int64_t a, int64_t b) { return static_cast<double>(a) * static_cast<double>(b); }

// --- the parts, a file each
std::vector<Rows> kernel_rows();       // device_kernels.cpp
std::vector<Rows> grid_rows();         // device_grids.cpp
void print_loss_layers(Table& table);  // device_layers.cpp
void print_steps(Table& table);        // device_steps.cpp

}  // namespace retort::bench
