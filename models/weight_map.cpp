#include "models/weight_map.h"

#include <ATen/Parallel.h>

#include "core/error.h"

namespace retort::models {
namespace {

bool stays_f32(Role role) {
  return role == Role::kNorm || role == Role::kBias || role == Role::kPositions || role == Role::kScale ||
         is_adapter(role);
}

// From here on a parameter is worth all threads; below, one, since starting them takes as long as its work.
constexpr int64_t kLarge = 1 << 19;

// work(p, its place) of each: of the large ones one by one, of the small ones a thread each.
template <typename Work>
void spread(const Parameters& parameters, const Work& work) {
  int64_t place = 0, values = 0;
  const bool on_device = !parameters.unique().front().working.is_cpu();  // where all follow one another
  for (const Parameter& p : parameters.unique()) {
    if (on_device || p.numel() >= kLarge)
      work(p, place);
    else
      values += p.numel();
    ++place;
  }
  if (values == 0) return;
  at::parallel_for(0, values, at::internal::GRAIN_SIZE, [&](int64_t begin, int64_t end) {
    int64_t i = 0, first = 0;  // value of a parameter; whoever has it does the parameter's work
    for (const Parameter& p : parameters.unique()) {
      const int64_t count = p.numel() >= kLarge ? 0 : p.numel();
      if (count > 0 && begin <= first && first < end) work(p, i);
      first += count;
      ++i;
    }
  });
}

void refresh(const Parameter& p, WeightMap& map) {
  const at::NoGradGuard no_grad;
  map.apply_into(p, p.master, p.working);
}

bool is_copy(const Parameter& p) { return !p.codes && !p.working.is_alias_of(p.master); }

}  // namespace

void bind_working(Parameters& parameters, WeightMap& map, at::ScalarType matrix_dtype) {
  const at::NoGradGuard no_grad;
  for (Parameter& p : parameters.unique()) {
    const at::ScalarType dtype = stays_f32(p.role) ? at::kFloat : matrix_dtype;
    const bool shares = dtype == at::kFloat && map.identity_for(p);
    if (p.placement.owns_all(p.shape)) p.placement.owned = map.blocks(p);  // what is divided stays so
    if (p.codes) {  // values are made in this dtype when they are multiplied
      p.working = p.working.to(dtype);
      continue;
    }
    const at::Tensor used = p.placement.used.of(p.master);
    const at::Device device = p.placement.device;  // where a frozen master need not be
    p.working = shares ? used.detach().to(device)
                       : at::empty(used.sizes(), used.options().device(device).dtype(dtype));
    if (is_copy(p) && !p.master.is_meta()) refresh(p, map);
    p.working.requires_grad_(!p.frozen);
  }
}

void refresh_working(Parameters& parameters, WeightMap& map) {
  spread(parameters, [&](const Parameter& p, int64_t) {
    if (is_copy(p)) refresh(p, map);
  });
}

std::vector<kernels::WorkingCopy> copies_in_update(const Parameters& parameters, const WeightMap& map) {
  std::vector<kernels::WorkingCopy> out;
  for (const Parameter& p : parameters.unique()) {
    kernels::WorkingCopy& copy = out.emplace_back();
    if (p.frozen || !is_copy(p)) continue;
    const kernels::WorkingCopy wanted{p.working.detach(), map.fitted_grid(p)};
    if ((wanted.grid || map.identity_for(p)) && kernels::writes_copy(p.master, wanted)) copy = wanted;
  }
  return out;
}

void refresh_trained(Parameters& parameters, WeightMap& map,
                     const std::vector<kernels::WorkingCopy>& written) {
  RETORT_ASSERT(written.empty() || written.size() == parameters.unique().size());
  spread(parameters, [&](const Parameter& p, int64_t i) {
    const bool done = !written.empty() && written[static_cast<size_t>(i)].values.defined();
    if (!p.frozen && is_copy(p) && !done) refresh(p, map);
  });
}

std::vector<at::Tensor> pull_back(const Parameters& parameters, WeightMap& map,
                                  const std::vector<at::Tensor>& working) {
  RETORT_ASSERT(working.size() == parameters.unique().size());
  std::vector<at::Tensor> masters = working;
  const auto pull = [&](const Parameter& p, int64_t i) {
    const at::NoGradGuard no_grad;
    at::Tensor& gradient = masters[static_cast<size_t>(i)];
    gradient = map.pull_back(p, gradient);
  };
  spread(parameters, [&](const Parameter& p, int64_t i) {
    if (!p.frozen && p.role != Role::kScale) pull(p, i);
  });
  for (int64_t i = 0; const Parameter& p : parameters.unique()) {
    if (!p.frozen && p.role == Role::kScale) pull(p, i);
    ++i;
  }
  return masters;
}

}  // namespace retort::models
