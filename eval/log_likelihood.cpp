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

constexpr int64_t kPassTokens = 8192;  // of a batch, padding and shared contexts included
constexpr int64_t kSharedTokens = 16;  // a context of fewer is cheaper read again
constexpr int64_t kSharedRows = 64;    // of a batch whose contexts are shared
constexpr int64_t kFewestTokens =
    4;  // of a pass: products of fewer rows take another path and round otherwise
constexpr int64_t kLogits = int64_t{1} << 23;  // at a time

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

// Rows that go through the model together. `contexts`: those that several rows share, each read once, in a pass of
// its own; `context_of` says which is a row's. Empty: each row reads its own.
struct Pass {
  std::vector<const Row*> rows;
  std::vector<const std::vector<int32_t>*> contexts = {};
  std::vector<int64_t> context_of = {};
};

// Rows of one context.
using Siblings = std::vector<const Row*>;

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

void add_batches(std::vector<Pass>& passes, std::vector<const Row*> rows, int64_t most) {
  sort_by_length(rows);
  for (size_t first = 0; first < rows.size();) {
    const int64_t longest = rows[first]->tokens();
    const auto count = std::clamp<int64_t>(kPassTokens / longest, 1, most);
    const size_t end = std::min(rows.size(), first + static_cast<size_t>(count));
    passes.push_back({{rows.begin() + static_cast<std::ptrdiff_t>(first),
                       rows.begin() + static_cast<std::ptrdiff_t>(end)}});
    first = end;
  }
}

// Several contexts with the rows of each, as many as fit: what a pass keeps of them is as long as the longest
// context and the longest rest together.
class SharedPasses {
 public:
  SharedPasses(std::vector<Pass>& passes, int64_t window) : passes_(passes), window_(window) {}

  void add(const Siblings& rows) {
    for (size_t first = 0; first < rows.size(); first += kSharedRows)
      add_part({rows.begin() + static_cast<std::ptrdiff_t>(first),
                rows.begin() + static_cast<std::ptrdiff_t>(
                                   std::min(rows.size(), first + static_cast<size_t>(kSharedRows)))});
  }

 private:
  void add_part(const Siblings& rows) {
    const int64_t context = std::ssize(rows.front()->context);
    int64_t rest = 0;
    for (const Row* row : rows) rest = std::max(rest, std::ssize(row->rest));
    const int64_t longest = std::max(context_, context), tokens = longest + std::max(rest_, rest);
    const int64_t count = std::ssize(rows) + (open_ ? std::ssize(passes_.back().rows) : 0);
    const bool fits = open_ && count <= kSharedRows && count * tokens <= kPassTokens && tokens <= window_;
    if (!fits) {
      passes_.emplace_back();
      open_ = true, context_ = rest_ = 0;
    }
    context_ = std::max(context_, context), rest_ = std::max(rest_, rest);
    Pass& pass = passes_.back();
    pass.contexts.push_back(&rows.front()->context);
    for (const Row* row : rows) {
      pass.rows.push_back(row);
      pass.context_of.push_back(std::ssize(pass.contexts) - 1);
    }
  }

  std::vector<Pass>& passes_;
  int64_t window_, context_ = 0, rest_ = 0;
  bool open_ = false;
};

std::vector<Pass> passes_of(const std::vector<Row>& rows, const models::Model& model, int64_t most) {
  const models::DecoderSpec& spec = model.spec();
  const int64_t model_context = model.context();
  // With longrope the longest row of a pass decides how all are turned; patches know no continued cache.
  const bool alone = spec.rope_scaling.kind == "longrope", sharing = !alone && !spec.patch;
  std::map<std::vector<int32_t>, std::vector<const Row*>> families;
  std::vector<const Row*> others;
  for (const Row& row : rows)
    if (sharing && std::ssize(row.context) > kSharedTokens)
      families[row.context].push_back(&row);
    else
      others.push_back(&row);
  std::vector<Siblings> shared;
  for (auto& [context, family] : families) {
    if (family.size() == 1) {
      others.push_back(family.front());
      continue;
    }
    sort_by_length(family);
    shared.push_back(std::move(family));
  }
  std::stable_sort(shared.begin(), shared.end(), [](const Siblings& a, const Siblings& b) {
    return a.front()->context.size() > b.front()->context.size();
  });
  std::vector<Pass> passes;
  SharedPasses into(passes, model_context);
  for (const Siblings& siblings : shared) into.add(siblings);
  add_batches(passes, std::move(others), alone ? 1 : most);
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

// The cache of contexts side by side, their ends in one column, all but the last token of each; then a row of it for
// each row of the pass.
std::unique_ptr<models::KvCache> read_contexts(models::Model& model, const Pass& pass, int64_t longest,
                                               int64_t width, at::Device device) {
  const int64_t count = std::ssize(pass.contexts);
  auto cache = model.make_cache(count, longest + width);
  std::vector<int64_t> tokens, starts;
  for (const std::vector<int32_t>* context : pass.contexts) {
    starts.push_back(longest - std::ssize(*context) + 1);
    tokens.resize(tokens.size() + static_cast<size_t>(starts.back()));
    tokens.insert(tokens.end(), context->begin(), context->end() - 1);
  }
  if (starts.back() > 0) cache->start_B = at::tensor(starts).to(device);  // the last one is the shortest
  model.hidden({.tokens_BT = at::tensor(tokens).view({count, longest}).to(device)}, cache.get());
  cache->keep(at::tensor(pass.context_of).to(device));
  return cache;
}

// The states that score the rows, [N, D] of them all: of each context's last token and of the rest.
at::Tensor states(models::Model& model, const Pass& pass) {
  const at::Device device = model.head().weight_VD.device();
  const bool shared = !pass.contexts.empty();
  std::vector<std::vector<int32_t>> reads;
  int64_t width = 0;
  for (const Row* row : pass.rows) {
    std::vector<int32_t> tokens = row->read();
    if (shared) tokens.erase(tokens.begin(), tokens.begin() + std::ssize(row->context) - 1);
    width = std::max(width, std::ssize(tokens));
    reads.push_back(std::move(tokens));
  }
  const int64_t count = std::ssize(reads), read_once = shared ? std::ssize(*pass.contexts.front()) - 1 : 0;
  width = std::min(std::max(width, (kFewestTokens + count - 1) / count), model.context() - read_once);
  std::unique_ptr<models::KvCache> cache;
  if (shared) cache = read_contexts(model, pass, read_once, width, device);
  const at::Tensor h_BTD = model.hidden({.tokens_BT = padded(reads, width).to(device)}, cache.get());
  std::vector<at::Tensor> out;
  for (int64_t b = 0; b < count; ++b) {
    const auto row = static_cast<size_t>(b);
    const int64_t scored = std::ssize(pass.rows[row]->rest) + 1;
    out.push_back(h_BTD[b].narrow(0, std::ssize(reads[row]) - scored, scored));
  }
  return at::cat(out);
}

// The first of equal logits is the likeliest.
bool is_likeliest(const at::Tensor& logits_V, int64_t id, float best) {
  const std::span<const float> values = host_values<const float>(logits_V);
  return std::find(values.begin(), values.end(), best) - values.begin() == id;
}

// Logits of places [first, first + N) of a pass.
struct Chunk {
  int64_t first;
  at::Tensor logits_NV, normaliser_N, best_N;
  int64_t end() const { return first + logits_NV.size(0); }
};

Chunk logits_of(const models::Head& head, const at::Tensor& h_ND, int64_t first, int64_t count) {
  // Few rows with others behind them: products of fewer than kFewestTokens take another path.
  const int64_t rows = std::min(count, h_ND.size(0) - first);
  at::Tensor h = h_ND.narrow(0, first, rows);
  if (rows < kFewestTokens) h = at::constant_pad_nd(h, {0, 0, 0, kFewestTokens - rows});
  const at::Tensor logits_NV = head.logits(h).narrow(0, 0, rows).to(at::kCPU).contiguous();
  Chunk out{first, logits_NV, at::logsumexp(logits_NV, 1).contiguous(), at::amax(logits_NV, 1).contiguous()};
  check<NonFiniteError>(at::isfinite(out.normaliser_N).all().item<bool>(),
                        "[eval] the logits are not finite");
  return out;
}

// Of one continuation, whose first token has that place in the pass: the part that the chunk holds.
LogLikelihood judge(const Chunk& chunk, const std::vector<int32_t>& ids, int64_t place) {
  const std::span<const float> normalisers = host_values<const float>(chunk.normaliser_N),
                               bests = host_values<const float>(chunk.best_N);
  LogLikelihood out{0, true};
  for (int64_t n = std::max(place, chunk.first); n < std::min(place + std::ssize(ids), chunk.end()); ++n) {
    const auto row = static_cast<size_t>(n - chunk.first);
    const int64_t id = ids[static_cast<size_t>(n - place)];
    const at::Tensor logits_V = chunk.logits_NV[n - chunk.first];
    const float logit = host_values<const float>(logits_V)[static_cast<size_t>(id)];
    out.nats += double{logit} - double{normalisers[row]};
    out.greedy = out.greedy && logit == bests[row] && is_likeliest(logits_V, id, bests[row]);
  }
  return out;
}

void answer(models::Model& model, const Pass& pass, const std::vector<TokenRequest>& requests,
            std::span<double> nats, std::span<double> greedy) {
  const models::Head head = model.head();
  const at::Tensor h_ND = states(model, pass);
  for (const Row* row : pass.rows)
    for (const size_t i : row->requests) greedy[i] = 1;
  const int64_t rows = std::max<int64_t>(16, kLogits / head.weight_VD.size(0));
  for (int64_t first = 0; first < h_ND.size(0); first += rows) {
    const Chunk chunk = logits_of(head, h_ND, first, rows);
    int64_t place = 0;  // of the row's first token
    for (const Row* row : pass.rows) {
      if (const int64_t end = place + std::ssize(row->rest) + 1; place < chunk.end() && end > chunk.first)
        for (const size_t i : row->requests) {
          const LogLikelihood part = judge(chunk, requests[i].continuation, place);
          nats[i] += part.nats;
          greedy[i] = greedy[i] != 0 && part.greedy;
        }
      place += std::ssize(row->rest) + 1;
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
  const std::vector<Pass> passes = passes_of(all, model, rows);
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
