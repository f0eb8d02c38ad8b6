#include "plan/memory.h"

#include <algorithm>

#include "comm/tree_sum.h"
#include "core/error.h"

namespace retort::plan {
namespace {

constexpr double kF32 = 4.0, kId = 8.0;
constexpr double kBucket = 8 << 20;     // bytes at least (train/grad_sync.h)
constexpr int64_t kWaitingBatches = 5;  // of the prefetcher, with the one in the making
constexpr int64_t kScoringRows = 16;    // eval/perplexity.h

double real(int64_t x) { return static_cast<double>(x); }

// The f32 sums of whole micro-batches that are alive while the last one runs, and when it is done.
int64_t sums_before(const Batch& batch) {
  size_t most = 0;
  for (int64_t g = 0; g < std::min<int64_t>(batch.micro_batches, 4096); ++g)
    most = std::max(most, comm::subtrees(0, g).size());
  return static_cast<int64_t>(most);
}

// The same of owned rows, to whose tree a turn of all ranks adds its micro-batches at once.
int64_t turns_before(const Batch& batch) {
  size_t most = 0;
  for (int64_t g = 0; g < std::min<int64_t>(batch.micro_batches, 4096); ++g)
    most = std::max(most, comm::subtrees(0, g * batch.shards()).size());
  return static_cast<int64_t>(most);
}

class Step {
 public:
  // kGradients and kParameters: with their own gradients and weights; the moments of AdamW are whole as under kNone.
  Step(const Workload& work, Policy policy)
      : w_(work),
        tokens_(real(work.batch.tokens())),
        e_(work.element()),
        scatters_(policy >= Policy::kGradients && work.batch.shards() > 1),
        gathers_(policy == Policy::kParameters && work.batch.shards() > 1) {}

  std::vector<Moment> all() const {
    std::vector<Moment> out;
    if (!w_.teachers.empty()) out.push_back({"teacher", teacher()});
    out.push_back({"loss", loss()});
    out.push_back({"backward", backward()});
    out.push_back({"gradients", gradients()});
    out.push_back({"update", update()});
    if (gathers_ && w_.starts_whole) out.push_back({"start", start()});
    if (ends_whole() || (w_.validates && (copies() || gathers_)))
      out.push_back({"validation", ends_whole() || !gathers_ ? whole_validation() : streamed_validation()});
    return out;
  }

 private:
  // What is there at every moment.
  Memory base() const {
    const ParameterCount& p = w_.parameters;
    Memory m;
    m.states.weights = kF32 * real(p.trained() + p.frozen() - p.coded) + p.code_bytes;
    m.states.weights -= elsewhere();
    if (copies()) m.states.working = e_ * real(p.trained_matrices + p.frozen_matrices - p.coded);
    m.states.working -= working_elsewhere();
    m.states.optimizer = 2 * kF32 * real(p.trained());
    m.states.gradients = buckets();
    m.teacher = (kId + kF32) * w_.labels * tokens_;
    for (const TeacherLoad& teacher : w_.teachers) m.teacher += teacher.weights;
    const double ids = kId * (w_.batch.documents ? 5 : 3) * tokens_;
    m.data = real(w_.batch.micro_batches + kWaitingBatches) * ids + w_.tables + collective();
    return m;
  }
  // Among ranks: what is reduced, a row for each subtree of a rank's micro-batches.
  double subtree_rows() const {
    return real(
        comm::most_subtrees(w_.batch.micro_batches, static_cast<int>(std::min<int64_t>(w_.batch.ranks, 64))));
  }
  double shards() const { return real(w_.batch.shards()); }
  // Of groups: the sums of each one's run, in rows of a tree.
  double rows_across() const {
    const Batch& b = w_.batch;
    if (!scatters_ || b.replicas == 1) return 0;
    return real(comm::most_subtrees(b.micro_batches * b.shards(),
                                    static_cast<int>(std::min<int64_t>(b.replicas, 64))));
  }
  bool copies() const { return w_.bf16 || w_.on_grid; }  // of the masters, which are multiplied
  // Of masters and of working copies, on the other ranks alone.
  double elsewhere() const {
    const double divided = gathers_                ? w_.gathered.divided.all()
                           : scatters_ && copies() ? real(w_.parameters.trained_matrices)
                                                   : 0;
    return kF32 * divided * (1 - 1 / shards());
  }
  double working_elsewhere() const {
    return gathers_ && copies() ? e_ * w_.gathered.divided.matrices * (1 - 1 / shards()) : 0;
  }
  double whole_groups() const { return gathers_ ? w_.gathered.at_once.bytes(e_) : 0; }
  // Of one bucket, full, or of the largest parameter: what is sent, or what has come.
  double bucket() const {
    return std::min(e_ * real(w_.parameters.trained()), std::max(kBucket, e_ * real(w_.parameters.largest)));
  }
  double under_way() const { return scatters_ ? 2 * 2 * bucket() : 0; }
  double buckets() const {
    if (scatters_) return 0;
    return w_.batch.ranks > 1 ? subtree_rows() * kF32 * real(w_.parameters.trained()) : 0;
  }
  // The worker's buffer: one bucket of all ranks' slices.
  double collective() const {
    if (w_.batch.ranks == 1 || scatters_) return 0;
    const double whole = kF32 * real(w_.parameters.trained());
    return subtree_rows() * std::min(whole, kBucket + kF32 * real(w_.parameters.largest));
  }
  double sums() const {
    const double whole = kF32 * real(w_.parameters.trained());
    if (!scatters_) return real(sums_before(w_.batch)) * whole;
    return real(turns_before(w_.batch)) * whole / shards() + (w_.batch.micro_batches > 1 ? under_way() : 0);
  }
  double head_gradient() const { return w_.head.trained ? kF32 * w_.head.columns * w_.head.width : 0; }

  void add_teachers(Memory& m) const {
    const double chunk = real(chunk_rows(w_.head.columns, w_.batch.tokens()));
    for (const TeacherLoad& one : w_.teachers) {
      const double columns = std::min(one.columns, w_.head.columns);
      m.teacher += kF32 * tokens_ * one.width + chunk * columns * (one.bf16 ? 2 + kF32 : kF32);
    }
    if (w_.teachers.size() > 1) m.teacher += chunk * w_.head.columns * kF32;  // the mixture
  }

  Memory teacher() const {
    Memory m = base();
    m.states.gradients += sums();
    double most = 0;
    for (const TeacherLoad& one : w_.teachers) most = std::max(most, one.forward * tokens_);
    m.teacher += most;
    return m;
  }
  Memory loss() const {
    Memory m = base();
    const Head& h = w_.head;
    const double chunk = real(chunk_rows(h.columns, w_.batch.tokens())), logits = chunk * h.columns;
    m.states.gradients += sums() + head_gradient();
    m.states.working += whole_groups();
    m.activations = tokens_ * w_.kept;
    double a_logit = e_;
    if (w_.distills && w_.bf16) a_logit += kF32 + 2;  // as f32, and the gradient in the product's dtype
    if (h.softcap && w_.bf16 && !w_.distills) a_logit += kF32 + 2;
    if (h.softcap) a_logit += 2 * kF32;
    m.head = logits * a_logit + tokens_ * h.width * (e_ + kF32 + (w_.bf16 ? 2 : 0));
    if (w_.bf16 && h.trained)
      m.head += e_ * h.columns * h.width;  // a chunk's product before it joins the sum
    if (w_.distills)
      m.head += std::min(chunk, std::max(16.0, real(1 << 20) / (kF32 * h.columns))) * h.columns * kF32;
    add_teachers(m);
    return m;
  }
  Memory backward() const {
    Memory m = base();
    m.states.gradients += sums() + (w_.head.trained ? e_ * w_.head.rows * w_.head.width : 0);
    m.states.working += whole_groups();
    m.activations =
        tokens_ * (w_.kept + w_.backward - kF32 * w_.head.width);  // the final norm's input has gone
    if (!w_.teachers.empty()) {                                    // hidden states live as long as the batch
      for (const TeacherLoad& one : w_.teachers) m.teacher += kF32 * tokens_ * one.width;
    }
    return m;
  }
  // Backward has ended. One micro-batch alone leaves gradients in the working dtype, several their f32 sums; a tied head's
  // and the embedding's are two tensors until then.
  Memory gradients() const {
    Memory m = base();
    const ParameterCount& p = w_.parameters;
    const bool alone = w_.batch.micro_batches == 1;
    const double made = (alone ? e_ : kF32) * real(p.trained_matrices) + kF32 * real(p.trained_f32);
    if (w_.batch.ranks == 1) m.states.gradients += std::max(made, sums());
    if (w_.batch.ranks > 1) m.states.gradients += sums();
    if (scatters_)
      m.states.gradients +=
          (1 + rows_across()) * kF32 * real(p.trained()) / shards() + bucket() + (alone ? under_way() : 0);
    if (w_.head.tied && w_.head.trained)
      m.states.gradients += w_.head.rows * w_.head.width * (w_.bf16 ? kF32 + e_ : kF32);
    return m;
  }
  Memory update() const {
    Memory m = base();
    if (w_.batch.ranks == 1 || scatters_)
      m.states.gradients += kF32 * real(w_.parameters.trained()) / (scatters_ ? shards() : 1);
    return m;
  }
  // Of weights that are divided from here on, before there is any state of theirs.
  Memory start() const {
    Memory m = base();
    m.states.weights += elsewhere();
    m.states.working += working_elsewhere() + w_.gathered.divided.bytes(e_) / shards();
    m.states.optimizer = m.states.gradients = 0;
    return m;
  }
  bool ends_whole() const { return gathers_ && w_.on_grid; }  // for the report on its grids
  double values() const {
    return kF32 * real(w_.parameters.trained() + w_.parameters.frozen() - w_.parameters.coded);
  }
  double scored() const {
    return real(kScoringRows * w_.batch.sequence) * w_.forward * (w_.bf16 ? 2 : 1);
  }
  Memory whole_validation() const {
    Memory m = update();
    m.states.weights += elsewhere();
    m.states.working += working_elsewhere();
    if (copies()) m.judged = values();
    m.activations = scored();
    return m;
  }
  // In f32, a share of the values and two groups.
  Memory streamed_validation() const {
    Memory m = update();
    if (copies()) m.judged = values() - kF32 * w_.gathered.divided.all() * (1 - 1 / shards());
    (copies() ? m.judged : m.states.working) += w_.gathered.at_once.bytes(kF32);
    m.activations = scored();
    return m;
  }

  const Workload& w_;
  double tokens_, e_;
  bool scatters_, gathers_;
};

}  // namespace

std::string policy_name(Policy policy) {
  constexpr const char* kNames[] = {"none", "optimizer", "ZeRO-1", "gradients", "parameters"};
  return kNames[static_cast<size_t>(policy)];
}

Policy policy_of(const std::string& name) {
  const auto found = std::ranges::find(kPolicies, name, policy_name);
  RETORT_ASSERT(found != kPolicies.end());
  return *found;
}

States sharded(const States& whole, Policy policy, int64_t ranks) {
  const double d = real(ranks);
  States out = whole;
  const bool copies = whole.working > 0;
  if (policy >= Policy::kOptimizer) out.optimizer /= d;
  if (policy >= Policy::kZero1 && (copies || policy == Policy::kParameters)) out.weights /= d;
  if (policy >= Policy::kGradients) out.gradients /= d;
  if (policy >= Policy::kParameters) out.working /= d;
  return out;
}

std::vector<std::pair<std::string, double>> Memory::parts() const {
  return {{"weights", states.weights},
          {"working", states.working},
          {"gradients", states.gradients},
          {"optimizer", states.optimizer},
          {"activations", activations},
          {"head", head},
          {"teacher", teacher},
          {"data", data},
          {"judged", judged}};
}

std::vector<Moment> moments(const Workload& work, Policy policy) {
  std::vector<Moment> out = Step(work, policy).all();
  for (Moment& moment : out) {
    States& states = moment.memory.states;
    states = sharded(states, policy >= Policy::kGradients ? Policy::kOptimizer : policy, work.batch.shards());
  }
  return out;
}

Moment peak(const Workload& work, Policy policy) {
  const std::vector<Moment> all = moments(work, policy);
  return *std::max_element(all.begin(), all.end(), [](const Moment& a, const Moment& b) {
    return a.memory.total() < b.memory.total();
  });
}

}  // namespace retort::plan
