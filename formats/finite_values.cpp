#include "formats/finite_values.h"

#include <fmt/ranges.h>

#include <optional>

#include "core/error.h"

namespace retort::formats {
namespace {

struct Place {
  std::string index;  // "[3, 7]"
  double value;
};

std::optional<Place> first_not_finite(const at::Tensor& values) {
  const at::NoGradGuard no_grad;
  const at::Tensor flat = values.detach().to(at::kFloat).flatten();
  const at::Tensor finite = flat.isfinite();
  if (finite.all().item<bool>()) return std::nullopt;
  int64_t at = finite.to(at::kByte).argmin().item<int64_t>();
  const double value = flat[at].item<double>();
  std::vector<int64_t> index(static_cast<size_t>(values.dim()));
  for (size_t d = index.size(); d-- > 0; at /= values.size(static_cast<int64_t>(d)))
    index[d] = at % values.size(static_cast<int64_t>(d));
  return Place{fmt::format("{}", index), value};
}

void check_held(std::string_view where, const std::string& name, const at::Tensor& written,
                const std::string& type) {
  if (const auto place = first_not_finite(written))
    fail<ConfigError>("{} {}{} is beyond the range of {}: write bf16 or f32", where, name, place->index,
                      type);
}

constexpr const char* kHalfRange = "f16, whose largest number is 65504";

}  // namespace

void check_finite(std::string_view where, const std::string& name, const at::Tensor& values) {
  if (const auto place = first_not_finite(values))
    fail<NonFiniteError>("{} {}: its weights must be finite, and {} is {}", where, name, place->index,
                         place->value);
}

void check_in_range(std::string_view where, const std::string& name, const at::Tensor& written) {
  if (!written.is_floating_point()) return;
  const at::ScalarType type = written.scalar_type();
  check_held(where, name, written,
             type == at::kHalf       ? kHalfRange
             : type == at::kBFloat16 ? "bf16"
             : type == at::kFloat    ? "f32"
                                     : c10::toString(type));
}

void check_in_range(std::string_view where, const std::string& name, const PackedTensor& written) {
  const std::string& type = ggml_type_info(written.type).name;
  check_held(where, name, unpack(written), type == "f16" ? kHalfRange : type);
}

void check_scales(std::string_view where, const std::string& name, const at::Tensor& scale) {
  if (const auto place = first_not_finite(scale))
    fail<ConfigError>("{} {}: the scale {} is beyond the range of its grid: write bf16 or f32", where, name,
                      place->index);
}

}  // namespace retort::formats
