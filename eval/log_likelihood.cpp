// B rows of a part of a pass, T tokens that it reads of each, N tokens that are scored, C of them at a time, D width,
// V vocabulary.
#include "eval/log_likelihood.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "core/host_tensor.h"
#include "eval/passes.h"
#include "kernels/row_losses.h"
#include "models/kv_cache.h"

namespace retort::eval {
namespace {

constexpr int64_t kFewestTokens =
    16;  // of a part: products of a few rows take other paths and round otherwise
constexpr int64_t kHeadRows =
    64;  // of logits at a time; always that many, so that the head's product has one shape

// Rows side by side, filled up at the end, which nothing before it sees.
at::Tensor padded(const std::vector<std::vector<int32_t>>& rows, int64_t width) {
  std::vector<int64_t> tokens;
  for (const std::vector<int32_t>& row : rows) {
    tokens.insert(tokens.end(), row.begin(), row.end());
    tokens.resize(tokens.size() + static_cast<size_t>(width) - row.size());
  }
  return at::tensor(tokens).view({std::ssize(rows), width});
}

// The cache of contexts side by side, their ends in one column, all but the last token of each.
std::unique_ptr<models::KvCache> read_contexts(models::Model& model, const Pass& pass, at::Device device) {
  const int64_t count = std::ssize(pass.contexts);
  int64_t width = 0;
  for (const PassPart& part : pass.parts) width = std::max(width, part.width);
  auto cache = model.make_cache(count, pass.places + width);
  std::vector<int64_t> tokens, starts;
  for (const std::vector<int32_t>* context : pass.contexts) {
    starts.push_back(pass.places - std::ssize(*context) + 1);
    tokens.resize(tokens.size() + static_cast<size_t>(starts.back()));
    tokens.insert(tokens.end(), context->begin(), context->end() - 1);
  }
  cache->start_B = at::tensor(starts).to(device);
  model.hidden({.tokens_BT = at::tensor(tokens).view({count, pass.places}).to(device)}, cache.get());
  return cache;
}

// The states that score a part's rows, [N, D] of them all: of each context's last token and of the rest. `contexts`:
// the cache of the pass, or nullptr.
at::Tensor states(models::Model& model, const PassPart& part, const models::KvCache* contexts) {
  const at::Device device = model.head().weight_VD.device();
  std::vector<std::vector<int32_t>> reads;
  for (const RequestRow* row : part.rows) {
    std::vector<int32_t> tokens = row->read();
    if (contexts != nullptr) tokens.erase(tokens.begin(), tokens.begin() + std::ssize(row->context) - 1);
    reads.push_back(std::move(tokens));
  }
  std::vector<int64_t> context_of = part.context_of;
  while (std::ssize(reads) * part.width < kFewestTokens) {
    reads.push_back(reads.back());
    if (contexts != nullptr) context_of.push_back(context_of.back());
  }
  std::optional<models::KvCache> cache;
  if (contexts != nullptr) {
    cache = *contexts;
    cache->keep(at::tensor(context_of).to(device));
  }
  const at::Tensor h_BTD =
      model.hidden({.tokens_BT = padded(reads, part.width).to(device)}, cache ? &*cache : nullptr);
  std::vector<at::Tensor> out;
  for (size_t b = 0; b < part.rows.size(); ++b) {
    const int64_t scored = part.rows[b]->scored();
    out.push_back(h_BTD[static_cast<int64_t>(b)].narrow(0, std::ssize(reads[b]) - scored, scored));
  }
  return at::cat(out);
}

// The first of equal logits is the likeliest.
bool is_likeliest(std::span<const float> logits, size_t id) {
  const float own = logits[id];
  return std::ranges::all_of(logits.first(id), [=](float one) { return one < own; }) &&
         std::ranges::all_of(logits.subspan(id + 1), [=](float one) { return one <= own; });
}

// A token that a state scores: number `place` of the continuations of a row.
struct Scored {
  const RequestRow* row;
  size_t place;
};

class Answers {
 public:
  Answers(const std::vector<TokenRequest>& requests, std::span<double> nats, std::span<double> greedy)
      : requests_(requests), nats_(nats), greedy_(greedy) {}

  // Logits of one state.
  void add(const Scored& scored, std::span<const float> logits, double normaliser) {
    for (const size_t i : scored.row->requests) {
      const auto id = id_of(i, scored.place);
      nats_[i] += double{logits[id]} - normaliser;
      if (scored.place == 0) greedy_[i] = 1;
      if (greedy_[i] != 0 && !is_likeliest(logits, id)) greedy_[i] = 0;
    }
  }
  size_t first_id(const Scored& scored) const { return id_of(scored.row->requests.front(), scored.place); }

 private:
  size_t id_of(size_t request, size_t place) const {
    return static_cast<size_t>(requests_[request].continuation[place]);
  }
  const std::vector<TokenRequest>& requests_;
  std::span<double> nats_, greedy_;
};

// States [N, D] of tokens in order; rows past them are zeros.
void judge(const models::Head& head, const at::Tensor& h_ND, const std::vector<Scored>& tokens,
           Answers& answers) {
  const int64_t padding = (kHeadRows - h_ND.size(0) % kHeadRows) % kHeadRows;
  const at::Tensor all_ND = at::constant_pad_nd(h_ND, {0, 0, 0, padding});
  for (int64_t first = 0; first < h_ND.size(0); first += kHeadRows) {
    at::Tensor logits_CV = head.logits(all_ND.narrow(0, first, kHeadRows)).to(at::kCPU).contiguous();
    const int64_t count = std::min(kHeadRows, h_ND.size(0) - first);
    const std::span part = std::span(tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    std::vector<int64_t> ids(kHeadRows, 0);
    std::ranges::transform(part, ids.begin(),
                           [&](const Scored& one) { return static_cast<int64_t>(answers.first_id(one)); });
    const at::Tensor losses_C = kernels::cross_entropy_in_place(logits_CV, at::tensor(ids), false);
    check<NonFiniteError>(at::isfinite(losses_C).all().item<bool>(), "[eval] the logits are not finite");
    const std::span<const double> losses = host_values<const double>(losses_C);
    for (size_t c = 0; c < part.size(); ++c) {
      const std::span<const float> logits = host_values<const float>(logits_CV[static_cast<int64_t>(c)]);
      answers.add(part[c], logits, losses[c] + double{logits[static_cast<size_t>(ids[c])]});
    }
  }
}

void answer(models::Model& model, const Pass& pass, Answers& answers) {
  const models::Head head = model.head();
  std::unique_ptr<models::KvCache> contexts;
  if (!pass.contexts.empty()) contexts = read_contexts(model, pass, head.weight_VD.device());
  std::vector<at::Tensor> states_ND;
  std::vector<Scored> tokens;
  for (const PassPart& part : pass.parts) {
    states_ND.push_back(states(model, part, contexts.get()));
    for (const RequestRow* row : part.rows)
      for (size_t place = 0; place <= row->rest.size(); ++place) tokens.push_back({row, place});
  }
  judge(head, at::cat(states_ND), tokens, answers);
}

}  // namespace

std::vector<LogLikelihood> log_likelihoods(models::Model& model, const std::vector<TokenRequest>& requests,
                                           comm::Comm& comm, int64_t rows) {
  check<ConfigError>(rows > 0, "[eval] rows must be > 0, got {}", rows);
  if (requests.empty()) return {};
  for (const TokenRequest& request : requests)
    for (const int32_t id : request.continuation)
      check<DataError>(id >= 0 && id < model.tokens(), "[eval] ids must lie in [0, {}), got {}",
                       model.tokens(), id);
  const at::NoGradGuard no_grad;
  const std::vector<RequestRow> all = rows_of(requests);
  const std::vector<Pass> passes = passes_of(all, model, rows);
  const at::Tensor answers_2N = at::zeros({2, std::ssize(requests)}, at::kDouble);
  const std::span<double> values = host_values<double>(answers_2N);
  const std::span<double> nats = values.first(requests.size()), greedy = values.subspan(requests.size());
  Answers answers(requests, nats, greedy);
  for (size_t pass = static_cast<size_t>(comm.rank()); pass < passes.size();
       pass += static_cast<size_t>(comm.size()))
    answer(model, passes[pass], answers);
  comm.all_reduce(answers_2N, comm::Reduce::kSum).wait();  // each entry has one rank's number and zeros
  std::vector<LogLikelihood> out;
  for (size_t i = 0; i < requests.size(); ++i) out.push_back({nats[i], greedy[i] != 0});
  return out;
}

}  // namespace retort::eval
