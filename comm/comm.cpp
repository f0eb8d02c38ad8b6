#include "comm/comm.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "comm/leaf_sum.h"
#include "comm/ordered_reduce.h"
#include "comm/queued_comm.h"
#include "comm/tree_sum.h"
#include "core/error.h"
#include "core/file.h"
#include "core/host_tensor.h"

namespace retort::comm {
namespace {

class SelfComm final : public Comm {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string name() const override { return "self"; }
  Pending all_reduce(at::Tensor tensor, Reduce) override {
    check_reducible(tensor.scalar_type());
    return {};
  }
  Pending sum_tree(at::Tensor nodes_PN, int64_t leaves) override {
    const std::vector<int64_t> sizes = subtrees(0, leaves);
    check_nodes(nodes_PN, std::ssize(sizes));
    const std::span<std::byte> bytes = mutable_host_bytes(nodes_PN);
    std::vector<ReduceInput> inputs;
    for (size_t i = 0; i < sizes.size(); ++i)
      inputs.push_back({bytes.data() + i * bytes.size() / sizes.size(), sizes[i]});
    ordered_reduce(nodes_PN.scalar_type(), Reduce::kSum, inputs, bytes.data(), nodes_PN[0].numel());
    return {};
  }
  Pending broadcast(at::Tensor, int root) override {
    check(root == 0, "[broadcast] root must be a rank below 1, got {}", root);
    return {};
  }
  Pending all_gather(at::Tensor out, at::Tensor in) override {
    check(out.scalar_type() == in.scalar_type() && out.numel() == in.numel(),
          "[all_gather] out must have 1 x {} elements of {}, got {} of {}", in.numel(),
          c10::toString(in.scalar_type()), out.numel(), c10::toString(out.scalar_type()));
    const at::NoGradGuard no_grad;
    out.view(-1).copy_(in.reshape(-1));
    return {};
  }
  Pending all_to_all(std::vector<at::Tensor> out, at::Tensor in_N, std::vector<int64_t> bounds) override {
    check_runs(out, in_N, bounds, 0, 1);
    const at::NoGradGuard no_grad;
    out[0].view(-1).copy_(in_N);
    return {};
  }
  Pending exchange(std::vector<at::Tensor> send, std::vector<at::Tensor> receive) override {
    check_messages(send, receive, 0, 1);
    const at::NoGradGuard no_grad;
    if (send[0].defined()) receive[0].copy_(send[0]);
    return {};
  }
  std::shared_ptr<Comm> subgroup(const std::vector<int>& ranks) override {
    check(ranks == std::vector<int>{0}, "[subgroup] must be of rank 0 alone");
    return make_self_comm();
  }
  void barrier() override {}
  [[noreturn]] void abort(const std::string& why, int exit_code) override {
    fmt::print(stderr, "{}\n", why);
    std::fflush(stderr);
    std::_Exit(exit_code);
  }
};

// The positive number of seconds in an environment variable.
double seconds_in(const char* variable, double absent) {
  const char* text = std::getenv(variable);
  if (!text || *text == '\0') return absent;
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  check<ConfigError>(end != text && *end == '\0' && seconds > 0 && seconds <= 1e6,
                     "[comm] {} must be a number of seconds in (0, 1e6], got \"{}\"", variable, text);
  return seconds;
}

}  // namespace

Pending Comm::reduce_scatter(at::Tensor out, at::Tensor in_N, std::vector<int64_t> bounds) {
  check_reducible(in_N.scalar_type());
  std::vector<at::Tensor> parts;
  for (int peer = 0; peer < size(); ++peer) parts.push_back(at::empty_like(out.detach()));
  Pending arrival = all_to_all(parts, in_N, std::move(bounds));
  return Pending(
      std::async(std::launch::deferred, [out, parts = std::move(parts), arrival = std::move(arrival)] {
        arrival.wait();
        const at::NoGradGuard no_grad;
        out.copy_(sum_in_pairs(parts));
      }).share());
}

std::shared_ptr<Comm> Comm::split(int64_t colour) {
  const at::Tensor all = at::empty({size()}, at::kLong);
  all_gather(all, at::full({1}, colour, at::kLong)).wait();
  std::vector<int> ranks;
  for (int rank = 0; const int64_t theirs : host_values<const int64_t>(all)) {
    if (theirs == colour) ranks.push_back(rank);
    ++rank;
  }
  return subgroup(ranks);
}

double Comm::reduce(double value, Reduce how) {
  const at::Tensor tensor = at::full({1}, value, at::kDouble);
  all_reduce(tensor, how).wait();
  return tensor.item<double>();
}

int64_t Comm::reduce(int64_t value, Reduce how) {
  const at::Tensor tensor = at::full({1}, value, at::kLong);
  all_reduce(tensor, how).wait();
  return tensor.item<int64_t>();
}

std::string Comm::broadcast_text(const std::string& text, int root) {
  const at::Tensor length = at::full({1}, static_cast<int64_t>(text.size()), at::kLong);
  broadcast(length, root).wait();
  const at::Tensor bytes = at::empty({length.item<int64_t>()}, at::kByte);
  if (rank() == root) std::ranges::copy(as_bytes(text), mutable_host_bytes(bytes).begin());
  broadcast(bytes, root).wait();
  const std::span<const std::byte> received = host_bytes(bytes);
  return {reinterpret_cast<const char*>(received.data()), received.size()};
}

bool Comm::all_agree(bool mine) { return reduce(static_cast<int64_t>(mine), Reduce::kMin) != 0; }

double CommOptions::default_timeout_seconds() { return seconds_in("RETORT_COMM_TIMEOUT", 600.0); }
double CommOptions::default_alone_seconds() { return seconds_in("RETORT_COMM_ALONE_TIMEOUT", 86400.0); }

std::unique_ptr<Comm> make_self_comm() { return std::make_unique<SelfComm>(); }

}  // namespace retort::comm
