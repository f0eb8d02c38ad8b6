#include "plan/gathered.h"

#include <algorithm>
#include <set>
#include <vector>

#include "models/weight_groups.h"

namespace retort::plan {
namespace {

using models::Parameter;
using models::Role;

bool is_matrix(Role role) { return role == Role::kMatrix || role == Role::kEmbedding || role == Role::kHead; }

Elements sum_of(const std::set<const Parameter*>& parameters) {
  Elements out;
  for (const Parameter* p : parameters)
    (is_matrix(p->role) ? out.matrices : out.f32) += static_cast<double>(p->numel());
  return out;
}

void add(Elements& sum, const Elements& more) {
  sum.matrices += more.matrices;
  sum.f32 += more.f32;
}

// Pairs of groups as GroupReads tells them: forward, then backward to the first layer.
std::vector<std::pair<size_t, size_t>> passes(size_t groups) {
  std::vector<std::pair<size_t, size_t>> out;
  for (size_t g = 0; g + 1 < groups; ++g) out.emplace_back(g, g + 1);
  for (size_t g = groups - 1; g > 1; --g) out.emplace_back(g, g - 1);
  out.emplace_back(1, 1);
  return out;
}

Elements missing(const std::set<const Parameter*>& wanted, const std::set<const Parameter*>& here) {
  std::set<const Parameter*> fresh;
  std::ranges::set_difference(wanted, here, std::inserter(fresh, fresh.end()));
  return sum_of(fresh);
}

}  // namespace

Gathered gathered_by(models::Model& model, const std::string& base) {
  Gathered out;
  models::WeightGroups* stack = model.weight_groups();
  if (stack == nullptr) return out;
  std::vector<std::set<const Parameter*>> groups;
  std::set<const Parameter*> all, here;
  for (const auto& group : stack->groups()) {
    groups.emplace_back();
    for (const Parameter* p : group)
      if (base == "f32" || !p->borrowed || p->role != Role::kMatrix) groups.back().insert(p), all.insert(p);
  }
  out.divided = sum_of(all);
  out.backward.resize(groups.size());
  std::set<const Parameter*> kept = groups.back();  // of the forward pass before, for its head
  for (const auto& [now, next] : passes(groups.size())) {
    std::set<const Parameter*> wanted = groups[now];
    wanted.insert(groups[next].begin(), groups[next].end());
    add(out.brought, missing(wanted, here));
    if (now < next) add(out.passed, missing(wanted, kept)), kept = wanted;
    here = wanted;
    const Elements whole = sum_of(here);
    if (whole.all() > out.at_once.all()) out.at_once = whole;
    if (now >= next) out.backward[now] = whole;
  }
  return out;
}

}  // namespace retort::plan
