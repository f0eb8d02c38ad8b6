#include "train/grad_sync.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <optional>
#include <utility>

#include "comm/tree_sum.h"
#include "core/error.h"
#include "train/scattered_sum.h"

namespace retort::train {
namespace {

// True when nothing else reads the tensor's memory. Backward may give two parameters views of one tensor.
bool alone(const at::Tensor& tensor) { return tensor.storage().use_count() == 1; }

// An undefined tensor stands for zeros, and adding it turns -0 into +0, as zeros would.
struct AddGradients {
  at::Tensor operator()(at::Tensor left, at::Tensor right) const {
    if (!left.defined()) std::swap(left, right);  // a sum of two does not depend on their order
    if (!left.defined()) return left;
    if (!right.defined()) return alone(left) ? left.add_(0.0) : left.add(0.0);
    return alone(left) ? left.add_(right) : left.add(right);
  }
};

}  // namespace

struct GradSync::State {
  using Sum = comm::TreeSum<at::Tensor, AddGradients>;
  struct Entry {
    const models::Parameter* parameter = nullptr;
    at::Tensor working;
    size_t place = 0;                                         // in all()
    torch::autograd::PostAccumulateGradHook* hook = nullptr;  // ours, owned by `working`
    Sum sum;                                                  // over this rank's micro-batches
    size_t bucket = 0;
    at::Tensor nodes_PN;   // in its bucket: the sums of this rank's subtrees (comm/tree_sum.h)
    bool arrived = false;  // in this micro-batch
  };
  struct Bucket {
    at::Tensor
        flat_PN;  // a row a subtree of this rank's micro-batches, one where their number is a power of two
    int64_t parameters = 0;
    int64_t missing = 0;  // parameters whose local sums are not in there yet
    comm::Pending reduction;
  };
  struct Hook final : torch::autograd::PostAccumulateGradHook {
    Hook(State& state, size_t index) : state(state), index(index) {}
    void operator()(const at::Tensor&) override {
      if (state.under_way || state.made != nullptr) state.arrive(index);
    }
    State& state;
    size_t index;
  };

  State(const Trained& trained, comm::Comm& group, int64_t count, int64_t bucket_bytes, const Owners* owners)
      : comm(group), micro_batches(count), subtrees(comm::most_subtrees(count, group.size())) {
    check<ConfigError>(count >= 1, "[grad_sync] a step needs at least 1 micro-batch, got {}", count);
    for (size_t place = 0; const models::Parameter* p : trained.all()) {
      if (!p->frozen) add(*p, place);
      ++place;
    }
    gradients.resize(trained.all().size());
    if (owners != nullptr && owners->divides_gradients()) {
      std::vector<const models::Parameter*> parameters;
      for (const Entry& e : entries) parameters.push_back(e.parameter);
      scattered = std::make_unique<ScatteredSum>(std::move(parameters), *owners, count, bucket_bytes);
    } else if (comm.size() > 1) {
      fill_buckets(bucket_bytes);
    }
    for (size_t i = 0; i < entries.size(); ++i) {
      auto hook = std::make_unique<Hook>(*this, i);
      entries[i].hook = hook.get();
      torch::autograd::impl::set_post_acc_grad_hooks(entries[i].working, std::move(hook));
    }
  }

  ~State() {
    for (Entry& e : entries)  // a younger GradSync may have taken the slot
      if (auto& slot = torch::autograd::impl::post_acc_grad_hooks(e.working); e.hook && slot.get() == e.hook)
        slot.reset();
  }

  void add(const models::Parameter& p, size_t place) {
    check<InternalError>(p.working.defined() && p.working.is_leaf() && p.working.requires_grad(),
                         "[grad_sync] {} needs a working leaf that requires grad", p.name);
    Entry& e = entries.emplace_back();
    e.sum = Sum(comm.rank() * micro_batches);
    e.parameter = &p;
    e.working = p.working;
    e.place = place;
  }

  void fill_buckets(int64_t bucket_bytes) {
    std::vector<models::GradientSize> sizes;
    for (const Entry& e : entries) sizes.push_back({e.working.numel(), at::kFloat});
    for (const models::GradientBucket& one : models::gradient_buckets(sizes, bucket_bytes)) {
      Bucket& bucket = buckets.emplace_back();
      bucket.parameters = std::ssize(one.members);
      const at::TensorOptions options = entries[one.members.front()].working.options();
      bucket.flat_PN = at::zeros({subtrees, one.elements}, options.dtype(at::kFloat).requires_grad(false));
      for (int64_t used = 0; const size_t i : one.members) {
        Entry& e = entries[i];
        e.bucket = buckets.size() - 1;
        e.nodes_PN = bucket.flat_PN.narrow(1, used, e.working.numel());
        gradients[e.place] = owned(*e.parameter, e.nodes_PN[0].view(e.working.sizes()));
        used += e.working.numel();
      }
    }
  }

  // Takes entry i's gradient of this micro-batch, whether backward made one or not.
  void arrive(size_t i) {
    const at::NoGradGuard no_grad;
    at::Tensor gradient = std::exchange(entries[i].working.mutable_grad(), at::Tensor());
    made == nullptr ? take(i, std::move(gradient)) : made->push_back({i, std::move(gradient)});
  }

  void take(size_t i, at::Tensor gradient) {
    Entry& e = entries[i];
    check<InternalError>(!e.arrived,
                         "[grad_sync] {} got a second gradient in one micro-batch: call backward() once",
                         e.parameter->name);
    e.arrived = true;
    if (fingerprints_G.defined() && gradient.defined()) {
      const auto bits = gradient.element_size() == 2 ? at::kShort : at::kInt;
      fingerprints_G[*under_way].add_(gradient.contiguous().view({-1}).view(bits).sum());
    }
    if (scattered) return scattered->add(i, std::move(gradient));
    if (micro_batches > 1 && gradient.defined()) gradient = gradient.to(at::kFloat);
    e.sum.push(std::move(gradient));
    if (*under_way + 1 == micro_batches) settle(i);
  }

  // Entry i's local sum is complete.
  void settle(size_t i) {
    Entry& e = entries[i];
    if (buckets.empty()) {
      gradients[e.place] = e.sum.finish();
      return;
    }
    for (int64_t row = 0; const at::Tensor& node : e.sum.take()) {
      const at::Tensor out_N = e.nodes_PN[row++];
      node.defined() ? out_N.copy_(node.reshape({-1})) : out_N.zero_();
    }
    --buckets[e.bucket].missing;
    for (; started < buckets.size() && buckets[started].missing == 0; ++started)
      buckets[started].reduction = comm.sum_tree(buckets[started].flat_PN, micro_batches);
  }

  comm::Comm& comm;
  const int64_t micro_batches, subtrees;
  std::vector<Entry> entries;               // the trained parameters, as all()
  std::vector<Bucket> buckets;              // none in a group of one, or where gradients are divided
  std::unique_ptr<ScatteredSum> scattered;  // where they are
  std::vector<at::Tensor>
      gradients;       // as all(): views of the buckets, or the local or scattered sums themselves
  size_t started = 0;  // buckets whose reduction has
  int64_t next = 0;    // micro-batch
  std::optional<int64_t> under_way;   // micro-batch between begin and end
  std::vector<Made>* made = nullptr;  // where gradients go that belong to no micro-batch
  at::Tensor fingerprints_G;
};

GradSync::GradSync(const Trained& trained, comm::Comm& comm, int64_t micro_batches, int64_t bucket_bytes,
                   const Owners* owners)
    : state_(std::make_unique<State>(trained, comm, micro_batches, bucket_bytes, owners)) {}

GradSync::~GradSync() = default;

void GradSync::begin_step(bool fingerprints) {
  State& s = *state_;
  s.fingerprints_G.reset();
  if (fingerprints && !s.entries.empty())
    s.fingerprints_G = at::zeros({s.micro_batches}, s.entries.front().working.options().dtype(at::kLong));
  for (State::Bucket& bucket : s.buckets) {
    bucket.reduction.wait();  // of a step that ended in an exception
    bucket.reduction = {};
    bucket.missing = bucket.parameters;
  }
  for (State::Entry& e : s.entries) e.sum.clear();
  if (s.scattered) s.scattered->begin_step();
  if (s.buckets.empty()) s.gradients.assign(s.gradients.size(), {});
  s.started = 0;
  s.next = 0;
  s.under_way.reset();
}

void GradSync::begin_micro_batch(int64_t index) {
  State& s = *state_;
  check<InternalError>(!s.under_way && index == s.next && index < s.micro_batches,
                       "[grad_sync] the next micro-batch must be {} of {}, got {}", s.next, s.micro_batches,
                       index);
  for (State::Entry& e : s.entries) {
    e.arrived = false;
    e.working.mutable_grad().reset();
  }
  s.under_way = index;
}

std::vector<GradSync::Made> GradSync::made_by(const std::function<void()>& pass) {
  State& s = *state_;
  check<InternalError>(!s.under_way && s.made == nullptr, "[grad_sync] a micro-batch is under way");
  for (State::Entry& e : s.entries) e.working.mutable_grad().reset();
  std::vector<Made> made;
  s.made = &made;
  try {
    pass();
  } catch (...) {
    s.made = nullptr;
    throw;
  }
  s.made = nullptr;
  return made;
}

void GradSync::add_micro_batch(int64_t index, const std::vector<Made>& made) {
  const at::NoGradGuard no_grad;
  const bool others_follow = index + 1 < state_->micro_batches;
  // What is kept beyond the next pass needs memory of its own; what is not f32 has it once it is.
  const auto kept = [&](const at::Tensor& gradient) {
    const bool as_it_is = gradient.defined() && (state_->scattered || gradient.scalar_type() == at::kFloat);
    return others_follow && as_it_is ? gradient.clone() : gradient;
  };
  begin_micro_batch(index);
  for (const Made& one : made) state_->take(one.parameter, kept(one.gradient));
  end_micro_batch(index);
}

void GradSync::end_micro_batch(int64_t index) {
  State& s = *state_;
  check<InternalError>(s.under_way == index, "[grad_sync] micro-batch {} was not begun", index);
  for (size_t i = s.entries.size(); i-- > 0;)
    if (!s.entries[i].arrived) s.arrive(i);
  s.under_way.reset();
  s.next = index + 1;
}

const std::vector<at::Tensor>& GradSync::finish() {
  State& s = *state_;
  check<InternalError>(s.next == s.micro_batches, "[grad_sync] {} of {} micro-batches are done", s.next,
                       s.micro_batches);
  for (State::Bucket& bucket : s.buckets) bucket.reduction.wait();
  if (!s.buckets.empty()) return s.gradients;
  if (s.scattered) {
    std::vector<at::Tensor> sums = s.scattered->finish();
    for (size_t i = 0; i < sums.size(); ++i) s.gradients[s.entries[i].place] = std::move(sums[i]);
    return s.gradients;
  }
  const at::NoGradGuard no_grad;
  for (const State::Entry& e : s.entries) {
    at::Tensor& gradient = s.gradients[e.place];
    if (!gradient.defined()) gradient = at::zeros(e.working.sizes(), e.working.options().dtype(at::kFloat));
    gradient = gradient.to(at::kFloat).contiguous();
    if (!alone(gradient)) gradient = gradient.clone();
    gradient = owned(*e.parameter, gradient);
  }
  return s.gradients;
}

at::Tensor GradSync::fingerprints_G() const { return state_->fingerprints_G; }

}  // namespace retort::train
