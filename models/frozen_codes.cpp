#include "models/frozen_codes.h"

#include <ATen/core/grad_mode.h>

#include <mutex>
#include <unordered_map>

#include "core/error.h"
#include "core/registry.h"
#include "formats/device_codes.h"
#include "models/moved_codes.h"

namespace retort::models {
namespace {

// What is on a device; values() are the host's even so.
class ThereCodes : public Codes {
 public:
  at::Tensor values() const final { return made(at::kFloat).cpu(); }
  virtual at::Tensor made(at::ScalarType dtype) const = 0;
};

class DeviceCodes final : public ThereCodes {
 public:
  DeviceCodes(kernels::PackedCodes packed, std::vector<int64_t> shape, uint64_t bytes)
      : packed_(std::move(packed)), shape_(std::move(shape)), bytes_(bytes) {}
  at::Tensor made(at::ScalarType dtype) const override {
    return kernels::unpack_codes(packed_, shape_, dtype);
  }
  uint64_t bytes() const override { return bytes_; }

 private:
  kernels::PackedCodes packed_;
  std::vector<int64_t> shape_;
  uint64_t bytes_;
};

// bf16 is no code: it is what is multiplied.
class DeviceValues final : public ThereCodes {
 public:
  explicit DeviceValues(at::Tensor values) : values_(std::move(values)) {}
  at::Tensor made(at::ScalarType dtype) const override { return values_.to(dtype); }
  uint64_t bytes() const override { return values_.nbytes(); }

 private:
  at::Tensor values_;
};

// Remembers where it has moved, for as long as a model has what is there.
class HostCodes : public Codes {
 public:
  std::shared_ptr<const Codes> moved_to(const at::Device& device) const {
    const std::lock_guard lock(mutex_);
    std::weak_ptr<const Codes>& known = there_[device];
    std::shared_ptr<const Codes> codes = known.lock();
    if (!codes) known = codes = on(device);
    return codes;
  }

 protected:
  virtual std::shared_ptr<const Codes> on(const at::Device& device) const = 0;

 private:
  mutable std::mutex mutex_;
  mutable std::unordered_map<at::Device, std::weak_ptr<const Codes>> there_;
};

class GgmlCodes final : public HostCodes {
 public:
  explicit GgmlCodes(formats::PackedTensor packed) : packed_(std::move(packed)) {}
  at::Tensor values() const override { return formats::unpack(packed_); }
  uint64_t bytes() const override { return packed_.bytes.size(); }

 private:
  std::shared_ptr<const Codes> on(const at::Device& device) const override {
    if (packed_.type == formats::GgmlType::BF16)
      return std::make_shared<DeviceValues>(values().to(at::kBFloat16).to(device));
    return std::make_shared<DeviceCodes>(formats::device_codes(packed_).to(device), packed_.shape, bytes());
  }
  formats::PackedTensor packed_;
};

class Nf4Codes final : public HostCodes {
 public:
  explicit Nf4Codes(const at::Tensor& values) : packed_(formats::pack_nf4(values)) {}
  at::Tensor values() const override { return formats::unpack_nf4(packed_); }
  uint64_t bytes() const override { return packed_.bytes(); }

 private:
  std::shared_ptr<const Codes> on(const at::Device& device) const override {
    return std::make_shared<DeviceCodes>(formats::device_codes(packed_).to(device), packed_.shape, bytes());
  }
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

std::shared_ptr<const Codes> moved_codes(const std::shared_ptr<const Codes>& codes,
                                         const at::Device& device) {
  const auto* const host = dynamic_cast<const HostCodes*>(codes.get());
  return host == nullptr || device.is_cpu() ? codes : host->moved_to(device);
}

at::Tensor values_on(const Codes& codes, const at::Device& device, at::ScalarType dtype) {
  const auto* const there = dynamic_cast<const ThereCodes*>(&codes);
  return (there == nullptr ? codes.values() : there->made(dtype)).to(device, dtype);
}

std::vector<std::string> frozen_code_names() { return forms().names(); }

void keep_as_codes(Parameters& parameters, const std::string& name, const ParameterValues& values) {
  const at::NoGradGuard no_grad;
  const Form& form = forms().at(name);
  if (form.make == nullptr) return;
  for (Parameter& p : parameters.unique()) {
    if (!p.borrowed || p.role != Role::kMatrix) continue;
    check<ConfigError>(p.shape.back() % form.block == 0,
                       "adapters.base {} wants rows that are a multiple of {}, and {} has rows of {}", name,
                       form.block, p.name, p.shape.back());
    if (values || !p.master.is_meta()) p.keep_as(form.make(f32_of(values, p)));
  }
}

}  // namespace retort::models
