#include "core/shape.h"

#include "core/error.h"

namespace retort {

std::string format_shape(at::IntArrayRef shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) out += ", ";
    out += shape[i] < 0 ? "*" : std::to_string(shape[i]);
  }
  return out + "]";
}

void check_shape(std::string_view where, std::string_view name, const at::Tensor& tensor,
                 std::initializer_list<int64_t> expected) {
  check(tensor.defined(), "[{}] {} must be {}, got an undefined tensor", where, name, format_shape(expected));
  bool same = tensor.dim() == static_cast<int64_t>(expected.size());
  for (size_t i = 0; same && i < expected.size(); ++i) {
    const int64_t want = expected.begin()[i];
    same = want < 0 || tensor.size(static_cast<int64_t>(i)) == want;
  }
  check(same, "[{}] {} must be {}, got {}", where, name, format_shape(expected),
        format_shape(tensor.sizes()));
}

}  // namespace retort
