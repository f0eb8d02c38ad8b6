#include "plan/memory.h"

#include <algorithm>
#include <numeric>

#include "comm/tree_sum.h"
#include "core/error.h"
#include "models/bucket_bytes.h"
#include "plan/gradient_flow.h"

namespace retort::plan {
namespace {

constexpr double kF32 = 4.0, kId = 8.0;
constexpr int64_t kWaitingBatches = 5;  // of the prefetcher, with the one in the making
constexpr int64_t kScoringRows = 16;    // eval/perplexity.h
constexpr int64_t kFollowed = 8;        // ranks

double real(int64_t x) { return static_cast<double>(x); }

// The f32 sums of whole micro-batches that are alive while the last one runs, and when it is done.
int64_t sums_before(const Batch& batch) {
  size_t most = 0;
  for (int64_t g = 0; g < std::min<int64_t>(batch.micro_batches, 4096); ++g)
    most = std::max(most, comm::subtrees(0, g).size());
  return static_cast<int64_t>(most);
}

// Where ranks divide sums, to whose tree a turn of all ranks adds its micro-batches at once: the turn of the most sums.
int64_t fullest_turn(const Batch& batch) {
  const auto sums = [&](int64_t turns) { return comm::subtrees(0, turns * batch.shards()).size(); };
  int64_t turn = 0;
  for (int64_t g = 1; g < std::min<int64_t>(batch.micro_batches, 4096); ++g)
    if (sums(g) + sums(g + 1) >= sums(turn) + sums(turn + 1)) turn = g;
  return turn;
}

void keep_highest(std::vector<Moment>& all, const std::string& name, const Memory& memory) {
  const auto found = std::ranges::find(all, name, &Moment::name);
  if (found == all.end())
    all.push_back({name, memory});
  else if (memory.total() > found->memory.total())
    found->memory = memory;
}

class Step {
 public:
  // kGradients and kParameters: with their own gradients and weights; the moments of AdamW are whole as under kNone.
  Step(const Workload& work, Policy policy)
      : w_(work),
        policy_(policy),
        tokens_(real(work.batch.tokens())),
        e_(work.element()),
        scatters_(policy >= Policy::kGradients && work.batch.shards() > 1),
        gathers_(policy == Policy::kParameters && work.batch.shards() > 1),
        share_(1 / real(work.batch.shards())) {}

  std::vector<Moment> all() const {
    std::vector<Moment> out;
    if (scatters_) {
      const GradientLayout layout(w_.pass.gradients, w_.bf16, w_.batch.shards(), bucket_bytes());
      const int64_t turn = fullest_turn(w_.batch);
      for (const int64_t rank : followed(w_.batch.shards())) Step(*this).follow({layout, rank}, turn, out);
    } else {
      // With a graph only the first two micro-batches run by themselves.
      const double held = repeats() ? std::min(sums(), one_sum()) : sums();
      if (!w_.teachers.empty()) out.push_back({"teacher", teacher(held)});
      out.push_back({"loss", loss(held)});
      out.push_back({"backward", backward(held)});
      out.push_back({"gradients", gradients()});
      if (repeats()) out.push_back({"capture", capture(held)});
    }
    out.push_back({"update", update()});
    if (gathers_ && w_.starts_whole) keep_highest(out, "start", start());
    const bool here = w_.parameters.coded > 0 && !w_.on_device;  // codes are made on the host
    if (here && (w_.starts_whole || !gathers_)) keep_highest(out, "start", before_codes());
    if (ends_whole() || (w_.validates && (copies() || gathers_)))
      out.push_back({"validation", ends_whole() || !gathers_ ? whole_validation() : streamed_validation()});
    if (w_.copies_saves) add_saves(out);
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
    m.states.optimizer = 2 * kF32 * real(p.trained()) * (scatters_ ? share_ : 1);
    m.states.gradients = buckets();
    m.teacher = (kId + kF32) * w_.labels * tokens_;
    for (const TeacherLoad& teacher : w_.teachers) m.teacher += weights_of(teacher);
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
    return kF32 * divided * (1 - share_);
  }
  double working_elsewhere() const {
    return gathers_ && copies() ? e_ * w_.gathered.divided.matrices * (1 - share_) : 0;
  }
  double whole_groups() const { return gathers_ ? w_.gathered.at_once.bytes(e_) : 0; }
  double buckets() const {
    if (scatters_ || w_.batch.ranks == 1) return 0;
    return subtree_rows() * kF32 * real(w_.parameters.trained());
  }
  int64_t bucket_bytes() const { return models::bucket_bytes(w_.on_device); }
  // The worker's buffer: one bucket of all ranks' slices.
  double collective() const {
    if (w_.batch.ranks == 1 || scatters_) return 0;
    std::vector<models::GradientSize> sizes;
    for (const MadeGradient& one : w_.pass.gradients) sizes.push_back({one.rows.elements, at::kFloat});
    int64_t largest = 0;
    for (const auto& bucket : models::gradient_buckets(sizes, bucket_bytes()))
      largest = std::max(largest, bucket.elements);
    return subtree_rows() * kF32 * real(largest);
  }
  double one_sum() const { return kF32 * real(w_.parameters.trained()); }
  double sums() const { return real(sums_before(w_.batch)) * one_sum(); }
  double head_gradient() const { return w_.head.trained ? kF32 * w_.head.columns * w_.head.width : 0; }

  // Its rows and two groups, where ranks divide it.
  double weights_of(const TeacherLoad& teacher) const {
    if (!gathers_) return teacher.weights;
    const double element = teacher.bf16 ? 2 : kF32;
    return teacher.weights - (1 - share_) * teacher.gathered.divided.bytes(element) +
           teacher.gathered.at_once.bytes(element);
  }
  void add_teachers(Memory& m) const {
    add_teachers_states(m);
    const kernels::LogitShape shape = logits_of(w_);
    m.teacher += real(shape.rows(w_.batch.tokens()) * shape.teacher_bytes());
  }

  // `held`: gradients of earlier micro-batches.
  Memory teacher(double held) const {
    Memory m = base();
    m.states.gradients += held;
    double most = 0;
    for (const TeacherLoad& one : w_.teachers) most = std::max(most, one.forward * tokens_);
    m.teacher += most;
    return m;
  }
  Memory loss(double held) const {
    Memory m = base();
    const Head& h = w_.head;
    const kernels::LogitShape shape = logits_of(w_);
    const double chunk = real(shape.rows(w_.batch.tokens()));
    m.states.gradients += held + head_gradient();
    m.states.working += whole_groups();
    m.activations = tokens_ * w_.kept;
    double row = real(shape.student_bytes());
    if (h.softcap) row += 2 * kF32 * h.columns;  // its slope
    if (w_.bf16 && !shape.as_they_are())         // the gradient, in the product's dtype
      row += w_.element() * real(kernels::logit_row_elements(shape.student.columns, w_.on_device));
    m.head = chunk * row + tokens_ * h.width * (e_ + kF32 + (w_.bf16 ? 2 : 0));
    if (w_.distills && !w_.on_device)
      m.head += std::min(chunk, std::max(16.0, real(1 << 20) / (kF32 * h.columns))) * h.columns * kF32;
    add_teachers(m);
    return m;
  }
  Memory backward(double held) const {
    Memory m = base();
    m.states.gradients += held + (w_.head.trained ? e_ * w_.head.rows * w_.head.width : 0);
    m.activations =
        tokens_ * (w_.kept + w_.backward - kF32 * w_.head.width);  // the final norm's input has gone
    add_teachers_states(m);
    return m;
  }
  // Hidden states live as long as the batch.
  void add_teachers_states(Memory& m) const {
    for (const TeacherLoad& one : w_.teachers) m.teacher += kF32 * tokens_ * one.width;
  }
  // Backward has ended. One micro-batch alone leaves gradients in the working dtype, several their f32 sums; a tied head's
  // and the embedding's are two tensors until then.
  Memory gradients() const {
    Memory m = base();
    const double kept = w_.batch.micro_batches == 1 ? made() : one_sum();
    m.states.gradients += w_.batch.ranks == 1 ? std::max(kept, sums()) : sums();
    m.graph = graph();
    if (!repeats()) m.states.gradients += second_table();
    return m;
  }
  // Of a micro-batch, as backward leaves them.
  double made() const {
    return e_ * real(w_.parameters.trained_matrices) + kF32 * real(w_.parameters.trained_f32);
  }
  double second_table() const {
    if (!w_.head.tied || !w_.head.trained) return 0;
    return w_.head.rows * w_.head.width * (w_.bf16 ? kF32 + e_ : kF32);
  }

  bool repeats() const { return w_.graph && !gathers_; }
  // A graph's memory is what its micro-batch takes when it is the most, gradients included, and stays.
  double graph() const {
    if (!repeats()) return 0;
    double most = std::max(loss(0).total(), backward(0).total());
    if (!w_.teachers.empty()) most = std::max(most, teacher(0).total());
    return std::max(most - base().total(), made() + second_table());
  }
  // Beside the gradients of the same micro-batch without it, with which it is compared.
  Memory capture(double held) const {
    Memory m = base();
    m.states.gradients += held + made();
    m.graph = graph();
    return m;
  }

  // The stage where each gradient is whole.
  std::vector<size_t> last_stages() const {
    std::vector<size_t> last(w_.pass.gradients.size());
    for (size_t s = 0; s < w_.pass.stages.size(); ++s)
      for (const size_t i : w_.pass.stages[s].makes) last[i] = s;
    return last;
  }
  // One micro-batch of a rank whose gradients go to owners, after the one before it: stage by stage what backward has made,
  // what is under way, the activations that are left and the weights that are whole.
  void follow(GradientFlow flow, int64_t turn, std::vector<Moment>& out) {
    const std::vector<BackwardStage>& stages = w_.pass.stages;
    const std::vector<size_t> last = last_stages();
    share_ = flow.share();
    if (turn > 0) {
      flow.begin_turn(turn - 1);
      for (size_t s = 0; s < stages.size(); ++s)
        for (const size_t i : stages[s].makes)
          if (last[i] == s) flow.add(i);
    }
    flow.begin_turn(turn);
    if (repeats()) keep_highest(out, "capture", capture(flow.now()));
    if (!w_.teachers.empty()) keep_highest(out, "teacher", teacher(flow.now()));
    keep_highest(out, "loss", loss(flow.now()));

    double kept = w_.kept, unfinished = 0, sent = 0;  // unfinished: gradients that a later stage adds to
    std::vector<bool> begun(last.size());
    for (size_t s = 0; s < stages.size(); ++s) {
      const bool at_end = s + 1 == stages.size();
      Memory m = base();
      if (gathers_) m.states.working += w_.gathered.backward[stages[s].group].bytes(e_);
      m.activations = tokens_ * (kept + (stages[s].layer ? w_.backward : kF32 * w_.head.width));
      add_teachers_states(m);
      double most = flow.now() + unfinished;
      for (const size_t i : stages[s].makes) {
        const double bytes = flow.layout().bytes(i);
        const bool from_f32 = w_.pass.gradients[i].table && at_end && w_.bf16;
        most = std::max(most, flow.now() + unfinished + bytes * (from_f32 ? 1 + kF32 / e_ : 1));
        if (last[i] != s && !begun[i]) unfinished += bytes, begun[i] = true;
        if (last[i] != s) continue;
        if (begun[i]) unfinished -= bytes;
        const double adding = flow.add(i);
        most = std::max(most, unfinished + adding);
        sent = std::max(sent, adding);
      }
      m.states.gradients += most;
      keep_highest(out, at_end ? "gradients" : "backward", m);
      kept = std::max(0.0, kept - stages[s].kept);
    }
    Memory m = base();
    m.states.gradients += std::max(flow.finish(rows_across()), repeats() ? sent : 0);
    m.graph = graph();
    keep_highest(out, "gradients", m);
  }
  Memory update() const {
    Memory m = base();
    if (w_.batch.ranks == 1 || scatters_) m.states.gradients += one_sum() / (scatters_ ? shards() : 1);
    m.graph = graph();
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
  // A base that is read whole, of which the codes are made from here on.
  Memory before_codes() const {
    Memory m;
    m.states.weights = kF32 * real(w_.parameters.trained() + w_.parameters.frozen());
    m.data = w_.tables;
    return m;
  }
  // The copy stays for the next save; the first one is made beside what a step leaves.
  void add_saves(std::vector<Moment>& out) const {
    const double copy = saved_bytes(w_.saved, w_.batch, policy_, copies());
    if (w_.saves_midway)
      for (Moment& one : out)
        if (one.name != "start") one.memory.saved = copy;
    out.push_back({"save", update()});
    out.back().memory.saved = copy;
  }
  bool ends_whole() const { return gathers_ && w_.on_grid; }  // for the report on its grids
  double values() const {
    return kF32 * real(w_.parameters.trained() + w_.parameters.frozen() - w_.parameters.coded);
  }
  double scored() const { return real(kScoringRows * w_.batch.sequence) * w_.forward * (w_.bf16 ? 2 : 1); }
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
  Policy policy_;
  double tokens_, e_;
  bool scatters_, gathers_;
  double share_;  // of what is divided
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

std::vector<int64_t> followed(int64_t ranks) {
  if (ranks > kFollowed) return {0, 1, ranks / 2, ranks - 1};
  std::vector<int64_t> out(static_cast<size_t>(ranks));
  std::iota(out.begin(), out.end(), 0);
  return out;
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
          {"graph", graph},
          {"judged", judged},
          {"saves", saved}};
}

std::vector<Moment> moments(const Workload& work, Policy policy) {
  std::vector<Moment> out = Step(work, policy).all();
  for (Moment& moment : out) {
    States& states = moment.memory.states;
    if (policy < Policy::kGradients) states = sharded(states, policy, work.batch.shards());
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
