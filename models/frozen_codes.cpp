#include "models/frozen_codes.h"

#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/registry.h"
#include "formats/ggml_blocks.h"
#include "formats/nf4.h"

namespace retort::models {
namespace {

class GgmlCodes final : public Codes {
 public:
  explicit GgmlCodes(formats::PackedTensor packed) : packed_(std::move(packed)) {}
  at::Tensor values() const override { return formats::unpack(packed_); }
  uint64_t bytes() const override { return packed_.bytes.size(); }

 private:
  formats::PackedTensor packed_;
};

class Nf4Codes final : public Codes {
 public:
  explicit Nf4Codes(const at::Tensor& values) : packed_(formats::pack_nf4(values)) {}
  at::Tensor values() const override { return formats::unpack_nf4(packed_); }
  uint64_t bytes() const override { return packed_.bytes(); }

 private:
  formats::Nf4Tensor packed_;
};

struct Form {
  std::string name;
  int64_t block;  // a row's length must divide by it
  std::shared_ptr<const Codes> (*make)(const at::Tensor& values);
};

template <formats::GgmlType type>
std::shared_ptr<const Codes> ggml(const at::Tensor& values) {
  return std::make_shared<GgmlCodes>(formats::pack(type, values));
}

const Registry<Form>& forms() {
  static const Registry<Form> table("form of a frozen base",
                                    {{"f32", 1, nullptr},
                                     {"bf16", 1, ggml<formats::GgmlType::BF16>},
                                     {"q8_0", 32, ggml<formats::GgmlType::Q8_0>},
                                     {"q4_0", 32, ggml<formats::GgmlType::Q4_0>},
                                     {"nf4", 1, [](const at::Tensor& values) -> std::shared_ptr<const Codes> {
                                        return std::make_shared<Nf4Codes>(values);
                                      }}});
  return table;
}

}  // namespace

std::vector<std::string> frozen_code_names() { return forms().names(); }

void keep_as_codes(Parameters& parameters, const std::string& name) {
  const at::NoGradGuard no_grad;
  const Form& form = forms().at(name);
  if (form.make == nullptr) return;
  for (Parameter& p : parameters.unique()) {
    if (!p.borrowed || p.role != Role::kMatrix) continue;
    check<ConfigError>(p.shape.back() % form.block == 0,
                       "adapters.base {} wants rows that are a multiple of {}, and {} has rows of {}", name,
                       form.block, p.name, p.shape.back());
    if (!p.master.is_meta()) p.keep_as(form.make(p.master));
  }
}

}  // namespace retort::models
