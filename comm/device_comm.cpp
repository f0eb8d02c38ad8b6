#include "comm/device_comm.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "comm/deadline.h"
#include "comm/flight.h"
#include "comm/ordered_reduce.h"
#include "comm/queued_comm.h"
#include "comm/tree_sum.h"
#include "core/error.h"
#include "core/host_tensor.h"

namespace retort::comm {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr int64_t kTextBytes = 96;  // of a call, with a 0 at the end, compared between ranks

// The elements of a dense tensor in the order of memory.
at::Tensor row_of(const at::Tensor& x) { return x.detach().as_strided({x.numel()}, {1}); }
at::Tensor bytes_of(const at::Tensor& x) { return row_of(x).view(at::kByte); }

template <Reduce reduce>
struct Combine {
  at::Tensor operator()(const at::Tensor& left, const at::Tensor& right) const {
    if constexpr (reduce == Reduce::kSum) return left.add(right);
    if constexpr (reduce == Reduce::kMax) return at::maximum(left, right);
    if constexpr (reduce == Reduce::kMin) return at::minimum(left, right);
  }
};

// The nodes of all ranks, in order, as one: in f32 where elements are narrower.
struct Node {
  at::Tensor value;
  int64_t leaves;
};
template <Reduce reduce>
at::Tensor in_order(const std::vector<Node>& nodes) {
  TreeSum<at::Tensor, Combine<reduce>> tree;
  for (const Node& node : nodes) {
    const at::ScalarType type = node.value.scalar_type();
    const bool narrow = type == at::kBFloat16 || type == at::kHalf;
    tree.push(narrow ? node.value.to(at::kFloat) : node.value, node.leaves);
  }
  return tree.finish();
}
at::Tensor in_order(Reduce reduce, const std::vector<Node>& nodes) {
  switch (reduce) {
    case Reduce::kMax:
      return in_order<Reduce::kMax>(nodes);
    case Reduce::kMin:
      return in_order<Reduce::kMin>(nodes);
    case Reduce::kSum:
      break;
  }
  return in_order<Reduce::kSum>(nodes);
}

class DeviceComm final : public Comm {
 public:
  // What groups of one wire share.
  struct Link {
    Link(std::unique_ptr<DeviceWire> way, Comm& host, double timeout, LeafSum sum)
        : wire(*way),
          sum_of(std::move(sum)),
          watch(std::move(way), host.rank(), timeout, [flight = host.flight()](const std::string& why) {
            if (flight != nullptr) flight->fail(why);
          }) {
      watch.launch(
          "joining", [this] { wire.join(); }, Deadline::kLeast);
    }
    DeviceWire& wire;  // the watch's
    const LeafSum sum_of;
    LaunchWatch watch;
    std::optional<c10::Stream> stream;
  };

  DeviceComm(Comm& host, std::shared_ptr<Link> link)
      : host_(host), link_(std::move(link)), members_(static_cast<size_t>(host.size())) {
    std::iota(members_.begin(), members_.end(), 0);
  }
  DeviceComm(std::shared_ptr<Comm> host, std::shared_ptr<Link> link, std::vector<int> members)
      : kept_(std::move(host)), host_(*kept_), link_(std::move(link)), members_(std::move(members)) {}
  ~DeviceComm() override {
    if (kept_) return;
    if (std::uncaught_exceptions() > 0) link_->watch.give_up("it is left after an error");
    if (!link_->watch.drain()) return;
    try {
      link_->watch.launch("leaving", [this] { link_->wire.leave(); });
    } catch (const CommError& error) {  // all that was asked for is done
      fmt::print(stderr, "{}\n", error.what());
    }
  }

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  std::string name() const override { return link_->wire.name(); }
  Flight* flight() override { return host_.flight(); }

  Pending all_reduce(at::Tensor tensor, Reduce reduce) override {
    if (tensor.is_cpu()) return host_.all_reduce(tensor, reduce);
    check_reducible(tensor.scalar_type());
    constexpr const char* kNames[] = {"sum", "max", "min"};
    return start(fmt::format("all_reduce {} of {}", kNames[static_cast<int>(reduce)], text_of(tensor)),
                 {tensor}, [=, this] { reduce_all(row_of(tensor).unsqueeze(0), reduce, 1); });
  }
  Pending sum_tree(at::Tensor nodes_PN, int64_t leaves) override {
    if (nodes_PN.is_cpu()) return host_.sum_tree(nodes_PN, leaves);
    check_reducible(nodes_PN.scalar_type());
    check_nodes(nodes_PN, most_subtrees(leaves, size()));
    return start(fmt::format("sum_tree over {} leaves a rank, of {}", leaves, text_of(nodes_PN)), {nodes_PN},
                 [=, this] { reduce_all(nodes_PN.detach().flatten(1), Reduce::kSum, leaves); });
  }
  Pending broadcast(at::Tensor tensor, int root) override {
    if (tensor.is_cpu()) return host_.broadcast(tensor, root);
    check(root >= 0 && root < size(), "[broadcast] root must be a rank below {}, got {}", size(), root);
    return start(fmt::format("broadcast from rank {} of {}", root, text_of(tensor)), {tensor},
                 [=, this] { spread(bytes_of(tensor), root); });
  }
  Pending all_gather(at::Tensor out, at::Tensor in) override {
    if (in.is_cpu()) return host_.all_gather(out, in);
    check(out.is_contiguous() && in.is_contiguous() && out.scalar_type() == in.scalar_type() &&
              out.numel() == in.numel() * size(),
          "[all_gather] out must be contiguous with {} x {} elements of {}, got {} of {}", size(), in.numel(),
          c10::toString(in.scalar_type()), out.numel(), c10::toString(out.scalar_type()));
    return start("all_gather of " + text_of(in), {out, in}, [=, this] {
      gather(Tensors(members_.size(), bytes_of(in)), bytes_of(out).view({size(), -1}).unbind(0));
    });
  }
  Pending all_to_all(Tensors out, at::Tensor in_N, std::vector<int64_t> bounds) override {
    if (in_N.is_cpu()) return host_.all_to_all(std::move(out), in_N, std::move(bounds));
    check_runs(out, in_N, bounds, rank(), size());
    Tensors all = out;
    all.push_back(in_N);
    return start("all_to_all of " + text_of(in_N), std::move(all), [=, this] {
      Tensors send;
      for (size_t peer = 0; peer < out.size(); ++peer)
        send.push_back(in_N.detach().slice(0, bounds[peer], bounds[peer + 1]));
      gather(send, out);
    });
  }
  Pending exchange(Tensors send, Tensors receive) override {
    check_messages(send, receive, rank(), size());
    Tensors all;
    for (const Tensors* messages : {&send, &receive})
      for (const at::Tensor& one : *messages)
        if (one.defined()) all.push_back(one);
    // A rank without messages calls as the others do, and whether tensors are on devices is the same on all.
    if (all.empty() || all.front().is_cpu()) return host_.exchange(std::move(send), std::move(receive));
    return start_after(compare_messages(send, receive), numbered("exchange"), std::move(all),
                       [=, this] { gather(send, receive); });
  }

  std::shared_ptr<Comm> subgroup(const std::vector<int>& ranks) override {
    std::shared_ptr<Comm> host = host_.subgroup(ranks);
    std::vector<int> members;
    for (const int rank : ranks) members.push_back(members_[static_cast<size_t>(rank)]);
    return std::make_shared<DeviceComm>(std::move(host), link_, std::move(members));
  }
  void barrier() override { host_.barrier(); }
  [[noreturn]] void abort(const std::string& why, int exit_code) override {
    link_->watch.give_up(why);
    host_.abort(why, exit_code);
    std::terminate();  // not reached; GCC does not see that through the virtual call
  }

 private:
  static std::string text_of(const at::Tensor& x) {
    return fmt::format("{} {}", x.numel(), c10::toString(x.scalar_type()));
  }

  // Ranks that call the same give the same text.
  Pending compare(const std::string& call) {
    const at::Tensor mine = at::zeros({kTextBytes}, at::kByte),
                     all = at::zeros({size(), kTextBytes}, at::kByte);
    std::memcpy(mutable_host_bytes(mine).data(), call.data(), std::min<size_t>(call.size(), kTextBytes - 1));
    const Pending there = host_.all_gather(all, mine);
    return Pending(std::async(std::launch::deferred, [=, rank = rank()] {
                     there.wait();
                     for (int64_t peer = 0; peer < all.size(0); ++peer)
                       retort::check<CommError>(
                           all[peer].equal(mine), "ranks call different collectives: rank {} {}, rank {} {}",
                           rank, call, peer,
                           reinterpret_cast<const char*>(host_bytes(all[peer].contiguous()).data()));
                   }).share());
  }
  // What two ranks trade has one size for both; a message that the other does not expect is the host's to tell.
  Pending compare_messages(const Tensors& send, const Tensors& receive) {
    Tensors sizes(send.size()), theirs(send.size());
    for (size_t peer = 0; peer < send.size(); ++peer) {
      if (send[peer].defined())
        sizes[peer] = at::full({1}, static_cast<int64_t>(send[peer].nbytes()), at::kLong);
      if (receive[peer].defined()) theirs[peer] = at::zeros({1}, at::kLong);
    }
    const Pending there = host_.exchange(sizes, theirs);
    return Pending(std::async(std::launch::deferred, [=, rank = rank()] {
                     there.wait();
                     for (size_t peer = 0; peer < theirs.size(); ++peer)
                       retort::check<CommError>(
                           !theirs[peer].defined() ||
                               theirs[peer].item<int64_t>() == static_cast<int64_t>(receive[peer].nbytes()),
                           "rank {} expects {} bytes of rank {}, which sends {}", rank,
                           receive[peer].defined() ? receive[peer].nbytes() : 0, peer,
                           theirs[peer].defined() ? theirs[peer].item<int64_t>() : 0);
                   }).share());
  }

  Pending start(const std::string& what, Tensors tensors, const std::function<void()>& body) {
    const std::string call = numbered(what);
    return start_after(compare(call), call, std::move(tensors), body);
  }
  std::string numbered(const std::string& what) { return fmt::format("{} (number {})", what, calls_++); }
  // `tensors` stay until the caller's stream waits for the operation.
  Pending start_after(Pending compared, const std::string& call, Tensors tensors,
                      const std::function<void()>& body) {
    const at::Device device = tensors.front().device();
    for (const at::Tensor& x : tensors)
      check(x.device() == device && x.is_non_overlapping_and_dense(),
            "[{}] needs dense tensors of {}, got {}", name(), device.str(),
            x.device() == device ? "a strided view" : x.device().str());
    link_->watch.check();
    const c10::impl::VirtualGuardImpl guard(device.type());
    if (!link_->stream) link_->stream = guard.getStreamFromGlobalPool(device, true);
    c10::Event before(device.type());
    before.record(guard.getStream(device));
    before.block(*link_->stream);
    const auto begun = std::make_shared<c10::Event>(device.type()),
               done = std::make_shared<c10::Event>(device.type());
    {
      const at::NoGradGuard no_grad;
      const c10::StreamGuard on(*link_->stream);
      begun->record(*link_->stream);
      call_ = call;
      body();
      done->record(*link_->stream);
    }
    for (const at::Tensor& x : tensors) x.record_stream(*link_->stream);  // a wait may fail, or never come
    // The watch's thread has no device of its own: where it asked with none, CUDA would open a context on the first GPU.
    const auto answer = [guard, device](const c10::Event& event) {
      guard.setDevice(device);
      return event.query();
    };
    link_->watch.add({call, [=] { return answer(*begun); }, [=] { return answer(*done); }});
    return Pending(std::async(std::launch::deferred, [=, link = link_, tensors = std::move(tensors)] {
                     try {
                       compared.wait();
                     } catch (const CommError& error) {
                       link->watch.give_up(error.what());
                       throw;
                     }
                     link->watch.check();
                     done->block(guard.getStream(device));
                   }).share());
  }

  // Of this group's ranks, to them and from them, this one's to itself.
  void gather(const Tensors& send, const Tensors& receive) {
    const auto world = static_cast<size_t>(1 + *std::ranges::max_element(members_));
    Tensors out(world), in(world);
    for (size_t peer = 0; peer < members_.size(); ++peer) {
      const at::Tensor &to = send[peer], &from = receive[peer];
      if (static_cast<int>(peer) == rank()) {
        const bool there =
            to.defined() && to.is_alias_of(from) && to.storage_offset() == from.storage_offset();
        if (to.defined() && !there) from.detach().copy_(to.view_as(from));
        continue;
      }
      const auto number = static_cast<size_t>(members_[peer]);
      if (to.defined() && to.numel() > 0) out[number] = to;
      if (from.defined() && from.numel() > 0) in[number] = from;
    }
    link_->watch.launch(call_, [&] { link_->wire.trade(out, in, *link_->stream); });
  }

  // A row cut into one run a rank, as evenly as possible where each begins at a whole vector of kernels.
  Tensors slices_of(const at::Tensor& row_N) const {
    constexpr int64_t kVector = 8;  // elements
    Tensors out;
    const int64_t count = row_N.numel(), ranks = size();
    for (int64_t begin = 0, peer = 1; peer <= ranks; ++peer) {
      const int64_t end = peer == ranks ? count : count * peer / ranks / kVector * kVector;
      out.push_back(row_N.slice(0, begin, end));
      begin = end;
    }
    return out;
  }

  // Row 0 becomes the sum. Each rank adds its run of all rows and sends it to the others.
  void reduce_all(const at::Tensor& rows_PN, Reduce reduce, int64_t leaves) {
    const auto mine = static_cast<size_t>(rank());
    std::vector<Tensors> theirs;  // by row, of a rank each
    for (const at::Tensor& row : rows_PN.unbind(0)) {
      const Tensors send = slices_of(row);
      Tensors& of_row = theirs.emplace_back();
      for (size_t peer = 0; peer < send.size(); ++peer)
        of_row.push_back(peer == mine ? send[mine] : at::empty_like(send[mine]));
      gather(send, of_row);
    }
    const Tensors whole = slices_of(rows_PN[0]);
    const at::Tensor sum = combined(reduce, std::move(theirs), leaves).to(whole[mine].scalar_type());
    gather(Tensors(whole.size(), sum), whole);
  }

  // What all ranks have, by row, of which a rank has one a subtree of its run of leaves.
  at::Tensor combined(Reduce reduce, std::vector<Tensors> rows, int64_t leaves) const {
    // One row: subtrees of one size, whose tree is that of as many leaves.
    if (reduce == Reduce::kSum && rows.size() == 1) return link_->sum_of(std::move(rows.front()));
    std::vector<Node> nodes;
    for (int64_t peer = 0; peer < size(); ++peer)
      for (size_t row = 0; const int64_t of : subtrees(peer * leaves, (peer + 1) * leaves))
        nodes.push_back({rows[row++][static_cast<size_t>(peer)], of});
    return in_order(reduce, nodes);
  }

  // The root gives each rank a run, which sends it to the others.
  void spread(const at::Tensor& bytes_N, int root) {
    const Tensors runs = slices_of(bytes_N);
    const auto mine = static_cast<size_t>(rank());
    Tensors send(runs.size()), receive(runs.size());
    if (rank() == root) send = runs;
    receive[static_cast<size_t>(root)] = runs[mine];
    gather(send, receive);
    gather(Tensors(runs.size(), runs[mine]), runs);
  }

  std::shared_ptr<Comm> kept_;  // of a subgroup
  Comm& host_;
  std::shared_ptr<Link> link_;
  std::vector<int> members_;  // by their numbers on the wire
  int64_t calls_ = 0;
  std::string call_;  // the one that is being launched
};

}  // namespace

std::unique_ptr<Comm> make_device_comm(Comm& host, std::unique_ptr<DeviceWire> wire, LeafSum sum_of,
                                       const CommOptions& options) {
  return std::make_unique<DeviceComm>(
      host,
      std::make_shared<DeviceComm::Link>(std::move(wire), host, options.timeout_seconds, std::move(sum_of)));
}

}  // namespace retort::comm
