#include "tests/fake_device/host_operator.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "tests/fake_device/fake_device.h"
#include "tests/fake_device/graph.h"
#include "tests/fake_device/memory.h"
#include "tests/fake_device/streams.h"

namespace retort::testing {
namespace {

using c10::IValue;

bool on_device(const at::Tensor& x) { return x.defined() && x.device().type() == fake_device().type(); }

c10::Storage storage_on_host(const c10::Storage& storage) {
  c10::DataPtr data(Memory::get().readable(storage.data()), at::kCPU);
  return {c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data), nullptr, false};
}

at::Tensor in_storage(const at::Tensor& like, c10::Storage storage, c10::DispatchKey key) {
  at::Tensor out =
      at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), like.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  if (like.unsafeGetTensorImpl()->is_wrapped_number()) out.unsafeGetTensorImpl()->set_wrapped_number(true);
  return out;
}

// One call: the device's tensors and their host views. Tensors that share storage still do.
class Call {
 public:
  explicit Call(const c10::OperatorHandle& op) : op_(op) {}

  std::optional<at::Device> operator()(torch::jit::Stack* stack) {
    const auto arguments = op_.schema().arguments();
    const size_t first = stack->size() - arguments.size();
    for (size_t i = 0; i < arguments.size(); ++i) {
      const c10::AliasInfo* alias = arguments[i].alias_info();
      IValue& value = (*stack)[first + i];
      value = host_value(value, alias != nullptr && alias->isWrite());
    }
    const c10::DeviceIndex device = where_.value_or(fake_device()).index();
    Graph* const graph = Graph::under_way(device);
    if (graph != nullptr)
      for (size_t i = first; i < stack->size(); ++i) arguments_.push_back(kept((*stack)[i]));
    op_.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
    for (Resized& x : resized_) {
      if (x.host.numel() == 0) continue;
      x.device.resize_(x.host.sizes());
      Streams::get().writes(x.device);
      on_host(x.device).copy_(x.host);
    }
    for (size_t i = stack->size() - op_.schema().returns().size(); i < stack->size(); ++i)
      (*stack)[i] = device_value((*stack)[i]);
    if (graph != nullptr) graph->add(again());
    return where_;
  }

 private:
  struct Pair {
    at::Tensor device, host;
  };
  // Repeats the call in the same memory; newly allocated results are copied to where the first ones are.
  std::function<void()> again() const {
    std::vector<std::pair<at::Tensor, at::Tensor>> sized;  // from, to
    for (const Resized& x : resized_)
      if (x.host.numel() > 0) sized.emplace_back(x.host, on_host(x.device));
    return [op = op_, arguments = arguments_, sized, results = results_] {
      torch::jit::Stack stack = arguments;
      op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack);
      for (const auto& [from, to] : sized) to.copy_(from);
      size_t next = 0;
      for (const IValue& value : stack)
        if (value.isTensor() || value.isTensorList())
          for (const at::Tensor& x :
               value.isTensor() ? std::vector{value.toTensor()} : value.toTensorVector())
            if (const at::Tensor& to = results.at(next++); to.defined()) to.copy_(x);
    };
  }

  using Resized = Pair;

  IValue host_value(const IValue& value, bool written) {
    if (value.isTensor()) return host(value.toTensor(), written);
    if (value.isTensorList()) {
      c10::List<at::Tensor> out;
      for (const at::Tensor& x : value.toTensorVector()) out.push_back(host(x, written));
      return out;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> out;
      for (const std::optional<at::Tensor>& x : value.toOptionalTensorVector())
        out.push_back(x ? std::optional(host(*x, written)) : std::nullopt);
      return out;
    }
    if (!value.isDevice()) return value;
    if (value.toDevice().has_index()) where_ = value.toDevice();
    return IValue(at::Device(at::kCPU));
  }

  at::Tensor host(const at::Tensor& x, bool written) {
    if (!on_device(x)) {
      // A device reads nothing of the host's but single numbers, which travel with the launch.
      TORCH_CHECK(!x.defined() || x.dim() == 0, "fake device: ", op_.schema().name(),
                  " got tensors of the host and of the device");
      return x;
    }
    TORCH_CHECK(!where_ || *where_ == x.device(), "fake device: ", op_.schema().name(), " got tensors of ",
                *where_, " and ", x.device());
    where_ = x.device();
    if (written && x.numel() == 0) {  // the operator may give it its size
      resized_.push_back({x, at::empty({0}, x.options().device(at::kCPU))});
      pairs_.push_back(resized_.back());
      return resized_.back().host;
    }
    written ? Streams::get().writes(x) : Streams::get().reads(x);
    for (const Pair& pair : pairs_)
      if (pair.device.is_same(x)) return pair.host;
    pairs_.push_back({x, in_storage(x, shared_storage(x), c10::DispatchKey::CPU)});
    return pairs_.back().host;
  }

  c10::Storage shared_storage(const at::Tensor& x) const {
    for (const Pair& pair : pairs_)
      if (pair.device.is_alias_of(x) && pair.host.storage().nbytes() > 0) return pair.host.storage();
    return storage_on_host(x.storage());
  }

  // As an argument of a graph, which takes a number of the host's as it is now.
  IValue kept(const IValue& value) const {
    if (value.isTensor()) return kept(value.toTensor());
    if (!value.isTensorList()) return value;
    c10::List<at::Tensor> out;
    for (const at::Tensor& x : value.toTensorVector()) out.push_back(kept(x));
    return out;
  }

  at::Tensor kept(const at::Tensor& x) const {
    if (!x.defined() || std::ranges::any_of(pairs_, [&](const Pair& pair) { return pair.host.is_same(x); }))
      return x;
    at::Tensor out = x.clone();
    out.unsafeGetTensorImpl()->set_wrapped_number(x.unsafeGetTensorImpl()->is_wrapped_number());
    return out;
  }

  IValue device_value(const IValue& value) {
    if (value.isTensor()) return device(value.toTensor());
    if (!value.isTensorList()) return value;
    c10::List<at::Tensor> out;
    for (const at::Tensor& x : value.toTensorVector()) out.push_back(device(x));
    return out;
  }

  at::Tensor device(const at::Tensor& x) {
    at::Tensor& fresh = results_.emplace_back();
    if (!x.defined()) return x;
    for (const Pair& pair : pairs_)
      if (pair.host.is_same(x)) return pair.device;
    for (const Pair& pair : pairs_)  // a view of an argument
      if (pair.host.is_alias_of(x))
        return in_storage(x, pair.device.storage(), c10::DispatchKey::PrivateUse1);
    at::Tensor out =
        at::empty_strided(x.sizes(), x.strides(), x.options().device(where_.value_or(fake_device())));
    Streams::get().writes(out);
    fresh = on_host(out);
    fresh.copy_(x);
    return out;
  }

  const c10::OperatorHandle& op_;
  std::optional<at::Device> where_;  // that all of the call's tensors are on
  std::vector<Pair> pairs_;
  std::vector<Resized> resized_;
  torch::jit::Stack arguments_;      // on the host, of a call that a graph does again
  std::vector<at::Tensor> results_;  // where fresh ones are, one after another
};

}  // namespace

at::Tensor on_host(const at::Tensor& x) {
  return in_storage(x, storage_on_host(x.storage()), c10::DispatchKey::CPU);
}

at::Tensor input(const at::Tensor& x) {
  Streams::get().reads(x);
  return on_host(x);
}
at::Tensor output(const at::Tensor& x) {
  Streams::get().writes(x);
  return on_host(x);
}

void enqueue(const at::Tensor& on, const std::function<void()>& work) {
  if (Graph* const graph = Graph::under_way(on.device().index())) return graph->add(work);
  work();
}

std::optional<at::Device> run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const at::AutoDispatchBelowADInplaceOrView below;
  return Call{op}(stack);
}

}  // namespace retort::testing
