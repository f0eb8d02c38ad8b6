#include "comm/mesh.h"

#include <fmt/ranges.h>

#include <functional>
#include <numeric>

#include "core/error.h"

namespace retort::comm {

Mesh::Mesh(Comm& all, const Shape& shape) {
  std::vector<std::string> text;
  for (size_t a = 0; a < shape.size(); ++a) text.push_back(fmt::format("{} {}", kAxisNames[a], shape[a]));
  const int64_t ranks = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies());
  check<ConfigError>(std::ranges::all_of(shape, [](int64_t n) { return n >= 1; }) && ranks == all.size(),
                     "[mesh] the axes {} make {} ranks, and there are {}", fmt::join(text, ", "), ranks,
                     all.size());
  int64_t stride = 1;
  for (size_t a = shape.size(); a-- > 0;) {
    const int64_t mine = all.rank() / stride % shape[a], first = all.rank() - mine * stride;
    axis_rank_[a] = mine;
    if (shape[a] == 1) {
      groups_[a] = make_self_comm();
    } else if (shape[a] == ranks) {
      groups_[a] = std::shared_ptr<Comm>(std::shared_ptr<Comm>(), &all);
    } else {
      std::vector<int> along;
      for (int64_t i = 0; i < shape[a]; ++i) along.push_back(static_cast<int>(first + i * stride));
      groups_[a] = all.subgroup(along);
    }
    stride *= shape[a];
  }
}

}  // namespace retort::comm
