#include "comm/staged_comm.h"

#include <ATen/core/grad_mode.h>

#include <future>

namespace retort::comm {
namespace {

class StagedComm final : public Comm {
 public:
  explicit StagedComm(Comm& host) : host_(host) {}
  explicit StagedComm(std::shared_ptr<Comm> host) : kept_(std::move(host)), host_(*kept_) {}
  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  std::string name() const override { return host_.name(); }

  Pending all_reduce(at::Tensor tensor, Reduce reduce) override {
    if (tensor.is_cpu()) return host_.all_reduce(tensor, reduce);
    const at::Tensor here = tensor.detach().cpu();
    return then(host_.all_reduce(here, reduce), {{tensor, here}});
  }
  Pending sum_tree(at::Tensor nodes_PN, int64_t leaves) override {
    if (nodes_PN.is_cpu()) return host_.sum_tree(nodes_PN, leaves);
    const at::Tensor here = nodes_PN.detach().cpu();
    return then(host_.sum_tree(here, leaves), {{nodes_PN[0], here[0]}});
  }
  Pending broadcast(at::Tensor tensor, int root) override {
    if (tensor.is_cpu()) return host_.broadcast(tensor, root);
    const at::Tensor here = rank() == root ? tensor.detach().cpu() : room_for(tensor);
    Pending arrival = host_.broadcast(here, root);
    return rank() == root ? arrival : then(std::move(arrival), {{tensor, here}});
  }
  Pending all_gather(at::Tensor out, at::Tensor in) override {
    if (in.is_cpu() && out.is_cpu()) return host_.all_gather(out, in);
    const at::Tensor here = room_for(out);
    return then(host_.all_gather(here, in.detach().cpu()), {{out, here}});
  }
  Pending all_to_all(std::vector<at::Tensor> out, at::Tensor in_N, std::vector<int64_t> bounds) override {
    if (in_N.is_cpu()) return host_.all_to_all(std::move(out), in_N, std::move(bounds));
    std::vector<at::Tensor> here;
    std::vector<Arrived> arrived;
    for (const at::Tensor& one : out) {
      here.push_back(room_for(one));
      arrived.push_back({one, here.back()});
    }
    return then(host_.all_to_all(here, in_N.detach().cpu(), std::move(bounds)), std::move(arrived));
  }
  Pending exchange(std::vector<at::Tensor> send, std::vector<at::Tensor> receive) override {
    std::vector<Arrived> arrived;
    for (at::Tensor& one : send)
      if (one.defined() && !one.is_cpu()) one = one.detach().cpu();
    for (at::Tensor& one : receive) {
      if (!one.defined() || one.is_cpu()) continue;
      arrived.push_back({one, room_for(one)});
      one = arrived.back().on_host;
    }
    return then(host_.exchange(std::move(send), std::move(receive)), std::move(arrived));
  }
  Flight* flight() override { return host_.flight(); }
  std::shared_ptr<Comm> subgroup(const std::vector<int>& ranks) override {
    return std::make_shared<StagedComm>(host_.subgroup(ranks));
  }
  void barrier() override { host_.barrier(); }
  [[noreturn]] void abort(const std::string& why, int exit_code) override {
    host_.abort(why, exit_code);
    std::terminate();  // not reached; GCC does not see that through the virtual call
  }

 private:
  struct Arrived {
    at::Tensor on_device, on_host;
  };
  static at::Tensor room_for(const at::Tensor& x) {
    return at::empty_like(x.detach(), x.options().device(at::kCPU));
  }
  // The copies are made by whoever waits first.
  static Pending then(Pending arrival, std::vector<Arrived> arrived) {
    if (arrived.empty()) return arrival;
    return Pending(
        std::async(std::launch::deferred, [arrival = std::move(arrival), arrived = std::move(arrived)] {
          arrival.wait();
          const at::NoGradGuard no_grad;
          for (const Arrived& one : arrived) one.on_device.copy_(one.on_host);
        }).share());
  }

  std::shared_ptr<Comm> kept_;  // of a subgroup
  Comm& host_;
};

}  // namespace

std::unique_ptr<Comm> make_staged_comm(Comm& host) { return std::make_unique<StagedComm>(host); }

}  // namespace retort::comm
