#include "comm/ordered_reduce.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "comm/tree_sum.h"
#include "core/error.h"
#include "core/shape.h"

namespace retort::comm {
namespace {

constexpr int64_t kBlock = 1024;  // elements: a row a rank, all of them in the first-level cache

struct Sum {
  template <class T>
  static T of(T a, T b) {
    return a + b;
  }
};
// A NaN on the left differs from itself and stays; with one on the right no comparison holds, and it is
// taken.
struct Max {
  template <class T>
  static T of(T a, T b) {
    return a > b || a != a ? a : b;
  }
};
struct Min {
  template <class T>
  static T of(T a, T b) {
    return a < b || a != a ? a : b;
  }
};

template <class Acc, class Combine>
struct CombineRows {
  Acc* operator()(Acc* left, Acc* right) const {
    for (int64_t i = 0; i < kBlock; ++i) left[i] = Combine::of(left[i], right[i]);
    return left;
  }
};

template <class T, class Acc, class Combine>
void reduce_as(std::span<const ReduceInput> inputs, std::byte* out, int64_t count) {
  std::vector<Acc> rows(inputs.size() * kBlock);
  for (int64_t start = 0; start < count; start += kBlock) {
    const int64_t n = std::min(kBlock, count - start);
    TreeSum<Acc*, CombineRows<Acc, Combine>> tree;
    for (size_t r = 0; r < inputs.size(); ++r) {
      const T* in = reinterpret_cast<const T*>(inputs[r].data) + start;
      Acc* row = rows.data() + r * kBlock;
      std::transform(in, in + n, row, [](T x) { return static_cast<Acc>(x); });
      tree.push(row, inputs[r].leaves);
    }
    const Acc* total = tree.finish();
    std::transform(total, total + n, reinterpret_cast<T*>(out) + start,
                   [](Acc x) { return static_cast<T>(x); });
  }
}

template <class T, class Acc>
void reduce_by(Reduce reduce, std::span<const ReduceInput> inputs, std::byte* out, int64_t count) {
  switch (reduce) {
    case Reduce::kSum:
      return reduce_as<T, Acc, Sum>(inputs, out, count);
    case Reduce::kMax:
      return reduce_as<T, Acc, Max>(inputs, out, count);
    case Reduce::kMin:
      return reduce_as<T, Acc, Min>(inputs, out, count);
  }
}

}  // namespace

void check_reducible(at::ScalarType dtype) {
  using enum at::ScalarType;
  check(dtype == Double || dtype == Float || dtype == BFloat16 || dtype == Half || dtype == Long ||
            dtype == Int,
        "[all_reduce] dtype must be one of Double, Float, BFloat16, Half, Long, Int, got {}",
        c10::toString(dtype));
}

void check_nodes(const at::Tensor& nodes_PN, int64_t rows) {
  check(nodes_PN.dim() == 2 && nodes_PN.size(0) == rows && nodes_PN.is_contiguous(),
        "[sum_tree] needs {} contiguous rows, got {}", rows, format_shape(nodes_PN.sizes()));
  check_reducible(nodes_PN.scalar_type());
}

void ordered_reduce(at::ScalarType dtype, Reduce reduce, std::span<const ReduceInput> inputs, std::byte* out,
                    int64_t count) {
  switch (dtype) {
    case at::ScalarType::Double:
      return reduce_by<double, double>(reduce, inputs, out, count);
    case at::ScalarType::Float:
      return reduce_by<float, float>(reduce, inputs, out, count);
    case at::ScalarType::BFloat16:
      return reduce_by<c10::BFloat16, float>(reduce, inputs, out, count);
    case at::ScalarType::Half:
      return reduce_by<c10::Half, float>(reduce, inputs, out, count);
    case at::ScalarType::Long:
      return reduce_by<int64_t, int64_t>(reduce, inputs, out, count);
    case at::ScalarType::Int:
      return reduce_by<int32_t, int32_t>(reduce, inputs, out, count);
    default:
      check_reducible(dtype);
  }
}

}  // namespace retort::comm
