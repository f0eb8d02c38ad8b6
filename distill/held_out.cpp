#include "distill/held_out.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/host_tensor.h"
#include "data/on_device.h"

namespace retort::distill {

HeldOutScore score_held_out(train::Objective& objective, models::Model& model, const AnswerBatches& rows,
                            const at::Device& device, comm::Comm& comm) {
  const at::NoGradGuard no_grad;
  const std::vector<std::string> names = objective.part_names();
  const auto width =
      static_cast<size_t>(std::ssize(names) + 2);  // the loss, how many it is of, and the parts
  const at::Tensor all = at::zeros({rows.size(), static_cast<int64_t>(width)}, at::kDouble);
  const std::span<double> values = host_values<double>(all);
  for (int64_t first = 0; first < rows.size(); first += comm.size()) {  // ranks ask for weights together
    const int64_t n = first + comm.rank();
    const data::Batch batch = rows.batch(std::min(n, rows.size() - 1));
    const train::LossSum one = objective(model, data::on_device(batch, device));
    if (n >= rows.size()) continue;
    const std::span<double> out = values.subspan(static_cast<size_t>(n) * width, width);
    out[0] = one.sum.item<double>();
    out[1] = static_cast<double>(objective.counted().in(batch));
    for (size_t i = 0; i < names.size(); ++i) out[i + 2] = one.parts.at(i).item<double>();
  }
  comm.all_reduce(all, comm::Reduce::kSum).wait();  // each row has one rank's numbers and zeros
  std::vector<double> sums(width);
  for (size_t i = 0; i < values.size(); ++i) sums[i % width] += values[i];
  HeldOutScore score{.loss = sums[0] / sums[1], .count = static_cast<int64_t>(sums[1]), .parts = {}};
  std::vector<double> means;
  for (size_t i = 2; i < width; ++i) means.push_back(sums[i] / sums[1]);
  means = objective.figures(std::move(means));
  for (size_t i = 0; i < names.size(); ++i) score.parts[names[i]] = means[i];
  return score;
}

}  // namespace retort::distill
