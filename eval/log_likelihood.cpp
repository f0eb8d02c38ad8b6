// B rows of a pass, T tokens that it reads of each, N tokens of a row that it scores, D width, V vocabulary.
#include "eval/log_likelihood.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "core/host_tensor.h"
#include "models/kv_cache.h"

namespace retort::eval {
namespace {

constexpr int64_t kPassTokens = 8192;  // of a batch, padding included
constexpr int64_t kSharedTokens = 32;  // a context of fewer is cheaper read again
constexpr int64_t kFewestTokens =
    4;                              // of a pass: products of fewer rows take another path and round otherwise
constexpr int64_t kHeadRows = 512;  // of logits at a time

// Tokens to read after which one or several continuations are asked about: they end in different tokens.
struct Row {
  std::vector<int32_t> context, rest;  // the continuation's, without its last
  std::vector<size_t> requests;
  int64_t tokens() const { return std::ssize(context) + std::ssize(rest); }
  std::vector<int32_t> read() const {
    std::vector<int32_t> all = context;
    all.insert(all.end(), rest.begin(), rest.end());
    return all;
  }
};

// Rows that go through the model together. `shared`: their contexts are equal and read once.
struct Pass {
  std::vector<const Row*> rows;
  bool shared = false;
};

std::vector<Row> rows_of(const std::vector<TokenRequest>& requests) {
  std::map<std::pair<std::vector<int32_t>, std::vector<int32_t>>, size_t> places;
  std::vector<Row> rows;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto& [context, continuation] = requests[i];
    RETORT_ASSERT(!context.empty() && !continuation.empty());
    std::vector<int32_t> rest(continuation.begin(), continuation.end() - 1);
    const auto [place, fresh] = places.emplace(std::pair(context, rest), rows.size());
    if (fresh) rows.push_back({context, std::move(rest), {}});
    rows[place->second].requests.push_back(i);
  }
  return rows;
}

// The longest first, so that the largest batch shows at once whether memory will do, and equal ones together.
void sort_by_length(std::vector<const Row*>& rows) {
  std::sort(rows.begin(), rows.end(), [](const Row* a, const Row* b) {
    if (a->tokens() != b->tokens()) return a->tokens() > b->tokens();
    const auto x = a->read(), y = b->read();
    return x != y ? x < y : a->context.size() < b->context.size();
  });
}

void add_batches(std::vector<Pass>& passes, std::vector<const Row*> rows, int64_t most, bool shared) {
  sort_by_length(rows);
  for (size_t first = 0; first < rows.size();) {
    const int64_t longest = rows[first]->tokens();
    const auto count = std::clamp<int64_t>(kPassTokens / longest, 1, most);
    const size_t end = std::min(rows.size(), first + static_cast<size_t>(count));
    passes.push_back(
        {{rows.begin() + static_cast<std::ptrdiff_t>(first), rows.begin() + static_cast<std::ptrdiff_t>(end)},
         shared && end - first > 1});
    first = end;
  }
}

std::vector<Pass> passes_of(const std::vector<Row>& rows, const models::DecoderSpec& spec, int64_t most) {
  // With longrope the longest row of a pass decides how all are turned; patches know no continued cache.
  const bool alone = spec.rope_scaling.kind == "longrope", sharing = !alone && !spec.patch;
  std::map<std::vector<int32_t>, std::vector<const Row*>> families;
  std::vector<const Row*> others;
  for (const Row& row : rows)
    if (sharing && std::ssize(row.context) > kSharedTokens)
      families[row.context].push_back(&row);
    else
      others.push_back(&row);
  std::vector<Pass> passes;
  for (auto& [context, family] : families)
    if (family.size() > 1)
      add_batches(passes, std::move(family), kScoringRows, true);
    else
      others.push_back(family.front());
  add_batches(passes, std::move(others), alone ? 1 : most, false);
  return passes;
}

// Rows side by side, filled up at the end, which nothing before it sees.
at::Tensor padded(const std::vector<std::vector<int32_t>>& rows, int64_t width) {
  std::vector<int64_t> tokens;
  for (const std::vector<int32_t>& row : rows) {
    tokens.insert(tokens.end(), row.begin(), row.end());
    tokens.resize(tokens.size() + static_cast<size_t>(width) - row.size());
  }
  return at::tensor(tokens).view({std::ssize(rows), width});
}

// The states that score a row, [N, D] each: of the context's last token and of the rest.
std::vector<at::Tensor> states(models::Model& model, const Pass& pass) {
  const at::Device device = model.head().weight_VD.device();
  std::vector<std::vector<int32_t>> reads;
  int64_t width = 0;
  const auto add = [&](std::vector<int32_t> tokens) {
    width = std::max(width, std::ssize(tokens));
    reads.push_back(std::move(tokens));
  };
  const std::vector<int32_t>& context = pass.rows.front()->context;
  const int64_t read_once = pass.shared ? std::ssize(context) - 1 : 0;
  for (const Row* row : pass.rows) {
    std::vector<int32_t> tokens = row->read();
    add({tokens.begin() + read_once, tokens.end()});
  }
  const int64_t count = std::ssize(reads);
  width = std::min(std::max(width, (kFewestTokens + count - 1) / count), model.context() - read_once);
  std::unique_ptr<models::KvCache> cache;
  if (pass.shared) {
    cache = model.make_cache(1, read_once + width);
    const std::vector<int64_t> once(context.begin(), context.end() - 1);
    model.hidden({.tokens_BT = at::tensor(once).view({1, -1}).to(device)}, cache.get());
    cache->keep(at::zeros({count}, at::kLong).to(device));
  }
  const at::Tensor h_BTD = model.hidden({.tokens_BT = padded(reads, width).to(device)}, cache.get());
  std::vector<at::Tensor> out;
  for (int64_t b = 0; b < count; ++b) {
    const auto row = static_cast<size_t>(b);
    const int64_t scored = std::ssize(pass.rows[row]->rest) + 1;
    out.push_back(h_BTD[b].narrow(0, std::ssize(reads[row]) - scored, scored));
  }
  return out;
}

// The first of equal logits is the likeliest.
bool is_likeliest(const at::Tensor& logits_V, int64_t id, float best) {
  const std::span<const float> values = host_values<const float>(logits_V);
  return std::find(values.begin(), values.end(), best) - values.begin() == id;
}

// Of one continuation: the logits of its tokens' places.
LogLikelihood judge(const at::Tensor& logits_NV, const at::Tensor& normaliser_N, const at::Tensor& best_N,
                    const std::vector<int32_t>& ids, int64_t first) {
  const std::span<const float> normalisers = host_values<const float>(normaliser_N),
                               bests = host_values<const float>(best_N);
  LogLikelihood out{0, true};
  for (int64_t n = 0; n < logits_NV.size(0); ++n) {
    const auto place = static_cast<size_t>(n);
    const int64_t id = ids[static_cast<size_t>(first + n)];
    const float logit = host_values<const float>(logits_NV[n])[static_cast<size_t>(id)];
    out.nats += double{logit} - double{normalisers[place]};
    out.greedy = out.greedy && logit == bests[place] && is_likeliest(logits_NV[n], id, bests[place]);
  }
  return out;
}

void answer(models::Model& model, const Pass& pass, const std::vector<TokenRequest>& requests,
            std::span<double> nats, std::span<double> greedy) {
  const models::Head head = model.head();
  const std::vector<at::Tensor> h_BND = states(model, pass);
  for (size_t b = 0; b < pass.rows.size(); ++b) {
    for (const size_t i : pass.rows[b]->requests) greedy[i] = 1;
    for (int64_t first = 0; first < h_BND[b].size(0); first += kHeadRows) {
      const int64_t count = std::min(kHeadRows, h_BND[b].size(0) - first);
      const at::Tensor logits_NV = head.logits(h_BND[b].narrow(0, first, count)).to(at::kCPU).contiguous();
      const at::Tensor normaliser_N = at::logsumexp(logits_NV, 1).contiguous(),
                       best_N = at::amax(logits_NV, 1).contiguous();
      check<NonFiniteError>(at::isfinite(normaliser_N).all().item<bool>(),
                            "[eval] the logits are not finite");
      for (const size_t i : pass.rows[b]->requests) {
        const LogLikelihood part = judge(logits_NV, normaliser_N, best_N, requests[i].continuation, first);
        nats[i] += part.nats;
        greedy[i] = greedy[i] != 0 && part.greedy;
      }
    }
  }
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
  const std::vector<Row> all = rows_of(requests);
  const std::vector<Pass> passes = passes_of(all, model.spec(), rows);
  const at::Tensor answers_2N = at::zeros({2, std::ssize(requests)}, at::kDouble);
  const std::span<double> values = host_values<double>(answers_2N);
  const std::span<double> nats = values.first(requests.size()), greedy = values.subspan(requests.size());
  for (size_t pass = static_cast<size_t>(comm.rank()); pass < passes.size();
       pass += static_cast<size_t>(comm.size()))
    answer(model, passes[pass], requests, nats, greedy);
  comm.all_reduce(answers_2N, comm::Reduce::kSum).wait();  // each entry has one rank's number and zeros
  std::vector<LogLikelihood> out;
  for (size_t i = 0; i < requests.size(); ++i) out.push_back({nats[i], greedy[i] != 0});
  return out;
}

}  // namespace retort::eval
