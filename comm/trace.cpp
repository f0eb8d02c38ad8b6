#include "comm/trace.h"

#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include <numeric>
#include <optional>

#include "comm/queued_comm.h"
#include "core/error.h"
#include "core/host_tensor.h"
#include "core/shape.h"

namespace retort::comm {
namespace {

std::string text_of(const at::Tensor& x) {
  return x.defined() ? fmt::format("{} {}", x.numel(), c10::toString(x.scalar_type())) : "";
}

class TraceComm final : public Comm {
 public:
  TraceComm(std::vector<Trace::Call>& calls, std::vector<int> group, int place)
      : calls_(calls), group_(std::move(group)), rank_(place) {}
  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(group_.size()); }
  std::string name() const override { return "trace"; }

  Pending all_reduce(at::Tensor tensor, Reduce reduce) override {
    return note(fmt::format("all_reduce {} of {}", static_cast<int>(reduce), text_of(tensor)));
  }
  Pending sum_tree(at::Tensor nodes_PN, int64_t leaves) override {
    return note(fmt::format("sum_tree of {}, {} leaves a rank", text_of(nodes_PN), leaves));
  }
  Pending broadcast(at::Tensor tensor, int root) override {
    return note(
        fmt::format("broadcast from rank {} of {}", group_.at(static_cast<size_t>(root)), text_of(tensor)));
  }
  Pending all_gather(at::Tensor out, at::Tensor in) override {  // as if all had the same
    const at::NoGradGuard no_grad;
    out.view({size(), -1}).copy_(in.reshape({1, -1}).expand({size(), -1}));
    return note(fmt::format("all_gather of {}", text_of(in)));
  }
  Pending all_to_all(std::vector<at::Tensor> out, at::Tensor in_N, std::vector<int64_t> bounds) override {
    check_runs(out, in_N, bounds, rank_, size());
    return note(fmt::format("all_to_all of {}, cut at {}", text_of(in_N), fmt::join(bounds, ", ")));
  }
  Pending exchange(std::vector<at::Tensor> send, std::vector<at::Tensor> receive) override {
    check_messages(send, receive, rank_, size());
    note("exchange");
    for (const at::Tensor& one : send) calls_.back().sends.push_back(text_of(one));
    for (const at::Tensor& one : receive) calls_.back().receives.push_back(text_of(one));
    return {};
  }
  void barrier() override { note("barrier"); }
  [[noreturn]] void abort(const std::string& why, int) override { throw CommError(why); }
  std::shared_ptr<Comm> subgroup(const std::vector<int>& ranks) override {
    std::vector<int> members;
    int place = -1;
    for (const int rank : ranks) {
      if (rank == rank_) place = static_cast<int>(members.size());
      members.push_back(group_.at(static_cast<size_t>(rank)));
    }
    check(place >= 0, "[subgroup] must have rank {} among its ranks", rank_);
    return std::make_shared<TraceComm>(calls_, std::move(members), place);
  }

 private:
  Pending note(std::string what) {
    calls_.push_back({group_, std::move(what), {}, {}});
    return {};
  }

  std::vector<Trace::Call>& calls_;
  const std::vector<int> group_;
  const int rank_;
};

// What differs between what one rank sends another and what that expects.
std::string unlike(const Trace::Call& from, size_t sender, const Trace::Call& to, size_t receiver) {
  const std::string &sent = from.sends[receiver], &expected = to.receives[sender];
  if (sent == expected) return "";
  const auto shown = [](const std::string& text) { return text.empty() ? std::string("nothing") : text; };
  return fmt::format("rank {} sends rank {} {}, which expects {}", from.group[sender], from.group[receiver],
                     shown(sent), shown(expected));
}

}  // namespace

std::unique_ptr<Comm> Trace::rank(int rank) {
  std::vector<int> all(calls_.size());
  std::iota(all.begin(), all.end(), 0);
  return std::make_unique<TraceComm>(calls_.at(static_cast<size_t>(rank)), std::move(all), rank);
}

std::string Trace::problem() const {
  std::vector<size_t> next(calls_.size());
  const auto head = [&](int rank) -> const Call* {
    const auto r = static_cast<size_t>(rank);
    return next[r] < calls_[r].size() ? &calls_[r][next[r]] : nullptr;
  };
  // All of the group are at a call of this group: whether they agree; nothing while some are elsewhere.
  const auto meet = [&](const Call& call) -> std::optional<std::string> {
    for (const int peer : call.group)
      if (head(peer) == nullptr || head(peer)->group != call.group) return std::nullopt;
    for (size_t a = 0; a < call.group.size(); ++a) {
      const Call& one = *head(call.group[a]);
      if (one.what != call.what)
        return fmt::format("rank {} calls {}, rank {} calls {}", call.group.front(),
                           head(call.group.front())->what, call.group[a], one.what);
      for (size_t b = 0; b < one.sends.size(); ++b)
        if (std::string problem = unlike(one, a, *head(call.group[b]), b); !problem.empty()) return problem;
    }
    return "";
  };
  for (bool moves = true; moves;) {
    moves = false;
    for (int rank = 0; rank < static_cast<int>(calls_.size()); ++rank) {
      const Call* const call = head(rank);
      if (call == nullptr || call->group.front() != rank) continue;
      const std::optional<std::string> problem = meet(*call);
      if (!problem) continue;
      if (!problem->empty())
        return fmt::format("call {} of rank {}: {}", next[static_cast<size_t>(rank)], rank, *problem);
      for (const int peer : std::vector<int>(call->group)) ++next[static_cast<size_t>(peer)];
      moves = true;
    }
  }
  std::vector<std::string> waiting;
  for (int rank = 0; rank < static_cast<int>(calls_.size()); ++rank)
    if (const Call* const call = head(rank))
      waiting.push_back(fmt::format("rank {} in call {}, {} among ranks {}", rank,
                                    next[static_cast<size_t>(rank)], call->what,
                                    fmt::join(call->group, ", ")));
  return waiting.empty() ? "" : fmt::format("wait for ever: {}", fmt::join(waiting, "; "));
}

}  // namespace retort::comm
