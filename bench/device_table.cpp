#include "bench/device_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bench/paired.h"
#include "core/error.h"

namespace retort::bench {

Ceilings ceilings_of(const Place& place) {
  const at::Tensor from = at::empty({place.size(int64_t{1} << 31, 1 << 16)}, place.options()),
                   to = from.clone();
  const double copy = time_of(place, [&]() -> Tensors { return {to.copy_(from)}; }).ours;
  const int64_t n = place.size(8192, 64);
  const at::Tensor a = place.normal({n, n}), b = place.normal({n, n});
  at::Tensor out = at::empty_like(a);
  const double product = time_of(place, [&]() -> Tensors { return {at::mm_out(out, a, b.t())}; }).ours;
  return {2e3 * static_cast<double>(from.nbytes()) / copy,
          2e3 * count_of(n, n) * static_cast<double>(n) / product};
}

Timed time_of(const Place& place, const Work& ours, const Work& peer) {
  constexpr double kRound = 15;  // ms
  const auto run = [&](const Work& work, int launches) {
    return time_once([&] {
             for (int i = 0; i < launches; ++i) work();
             place.wait();
           })
        .wall_ms;
  };
  const auto launches_of = [&](const Work& work) {
    run(work, 1);  // warms up
    return place.pretends ? 1 : static_cast<int>(std::clamp(kRound / run(work, 1), 1.0, 50.0));
  };
  const int launches = launches_of(ours), peers = peer ? launches_of(peer) : 0;
  std::vector<double> mine, other;
  for (int round = 0; round < (place.pretends ? 2 : 7); ++round) {
    mine.push_back(run(ours, launches) / launches);
    if (peer) other.push_back(run(peer, peers) / peers);
  }
  return {quartiles(mine).median, peer ? std::optional(quartiles(other).median) : std::nullopt};
}

double error_of(const Tensors& got, const Tensors& exact) {
  RETORT_ASSERT(got.size() == exact.size());
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const at::Tensor want = exact[i].to(at::kDouble);
    const double scale = std::max(want.abs().max().item<double>(), 1e-30);
    const double e = (got[i].to(at::kDouble) - want).abs().max().item<double>() / scale;
    worst = std::isnan(e) ? INFINITY : std::max(worst, e);
  }
  return worst;
}

void Table::head(const std::string& kernels) const {
  fmt::print(
      "{} kernels{}; this run's ceilings: copy {:.2f} TB/s, bf16 product {:.0f} TFLOP/s\n\n"
      "error: the largest, relative to the largest element; WRONG is beyond what rounding explains. Of the "
      "ceiling: of the "
      "copy's rate where the rate is in GB/s, of the product's where it is in TFLOP/s. Ours / peer: time, "
      "beside LibTorch's "
      "own or what the row names. The last columns show each target and what was reached.\n\n"
      "| what | shape | error | ms | rate | of the ceiling | ours / peer | target | reached |\n"
      "|---|---|---|---|---|---|---|---|---|\n",
      kernels, place_.pretends ? ", pretended: times, shares and targets mean nothing" : "",
      reached_.copy * 1e-12, reached_.product * 1e-12);
}

void Table::print(const Line& line) {
  const auto or_none = [](const std::optional<double>& value, fmt::format_string<const double&> form) {
    return value ? fmt::format(form, *value) : "-";
  };
  const bool inexact = line.error && !(*line.error <= line.allowed), wrong = inexact || !line.fault.empty();
  ++lines_, wrong_ += wrong ? 1 : 0;
  std::string target = "-", reached = "-";
  if (line.target) {
    const Target& t = *line.target;
    const auto say = [&](double value) {
      return t.percent ? fmt::format("{:.1f} %", 100 * value) : fmt::format("{:.3f} x", value);
    };
    target = fmt::format("{} {}{} {}", t.least ? ">=" : "<=", say(t.bound), t.percent ? " of" : "", t.of);
    reached = fmt::format("{}: {}", t.met() ? "met" : "missed", say(t.reached));
    ++(t.met() ? met_ : missed_);
  }
  std::string error = or_none(line.error, "{:.1e}");
  if (wrong) error += " WRONG";
  if (!line.fault.empty()) error += " " + line.fault;
  fmt::print("| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n", line.name,
             line.shape.empty() ? "-" : line.shape, error, or_none(line.ms, "{:.3f}"), line.rate,
             line.share ? fmt::format("{:.0f} %", 100 * *line.share) : "-", or_none(line.ratio, "{:.2f}"),
             target, reached);
  std::fflush(stdout);
}

bool Table::foot() const {
  fmt::print("\n{} rows: {} wrong; of {} targets {} met, {} missed{}\n", lines_, wrong_, met_ + missed_, met_,
             missed_, place_.pretends ? ", which means nothing: pretended" : "");
  return wrong_ == 0;
}

void print_rows(Table& table, const kernels::cuda::Ops& ops, const std::vector<Rows>& groups) {
  for (const Rows& group : groups)
    for (const Row& row : group(ops, table.place())) {
      const Tensors got = row.checked ? row.checked() : row.ours();
      const double error = error_of(got, row.exact());
      const Timed timed = time_of(table.place(), row.ours, row.peer);
      const double rate = 1e3 * row.bytes / timed.ours, share = rate / table.reached().copy;
      Line line{
          row.name, row.shape,    error, row.allowed, {}, timed.ours, fmt::format("{:.0f} GB/s", rate * 1e-9),
          share,    timed.ratio()};
      if (row.least > 0) line.target = {share, row.least, true, "copy", true};
      table.print(line);
    }
}

}  // namespace retort::bench
