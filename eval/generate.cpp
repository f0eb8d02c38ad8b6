#include "eval/generate.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <bit>
#include <chrono>

#include "core/error.h"

namespace retort::eval {
namespace {

// What is left to do for one prompt.
struct Row {
  size_t number;              // of the prompt
  int64_t room;               // new tokens at most
  bool full;                  // the context is the limit
  std::vector<int32_t> seen;  // prompt and new tokens
  Random random;
};

std::vector<Row> rows_of(const std::vector<std::vector<int32_t>>& prompts, const models::Model& model,
                         const SamplingOptions& options, const GenerateHooks& hooks) {
  const int64_t context = model.context(), tokens = model.tokens();
  std::vector<Row> rows;
  for (const std::vector<int32_t>& prompt : prompts) {
    const auto fits = [](const std::string& misfit) {
      check<DataError>(misfit.empty(), "[generate] {}", misfit);
    };
    for (const int32_t id : prompt) fits(id_misfit(id, tokens));
    const auto prompted = std::ssize(prompt);
    fits(length_misfit(prompted, context));
    const int64_t left = context - prompted;
    rows.push_back({rows.size(), std::min(options.tokens, left), left < options.tokens, prompt,
                    Random(options.seed, "sampling", hooks.step,
                           hooks.streams.empty() ? rows.size() : hooks.streams.at(rows.size()))});
  }
  return rows;
}

// Prompts side by side, their last tokens in the last column.
at::Tensor padded(const std::vector<Row>& rows, size_t longest) {
  std::vector<int64_t> tokens;
  for (const Row& row : rows) {
    tokens.resize(tokens.size() + longest - row.seen.size());
    tokens.insert(tokens.end(), row.seen.begin(), row.seen.end());
  }
  return at::tensor(tokens).view({std::ssize(rows), -1});
}

std::unique_ptr<models::KvCache> make_cache(const models::Model& model, const std::vector<Row>& rows,
                                            int64_t longest, at::Device device) {
  int64_t room = 0;
  std::vector<int64_t> starts;
  for (const Row& row : rows) {
    room = std::max(room, row.room);
    starts.push_back(longest - std::ssize(row.seen));
  }
  auto cache = model.make_cache(std::ssize(rows), longest + room);
  if (std::any_of(starts.begin(), starts.end(), [](int64_t start) { return start > 0; }))
    cache->start_B = at::tensor(starts, at::kLong).to(device);
  return cache;
}

using Clock = std::chrono::steady_clock;

// Appends a row's next token. True when the row goes on.
bool extend(Row& row, const at::Tensor& logits_V, const SamplingOptions& options, const GenerateHooks& hooks,
            Clock::time_point begun, Continuation& out) {
  const auto index = static_cast<uint64_t>(out.ids.size());
  const int32_t id = sample_token(logits_V, options, row.seen, row.random, index);
  out.seconds = std::chrono::duration<double>(Clock::now() - begun).count();
  if (out.ids.empty()) out.first_seconds = out.seconds;
  out.ids.push_back(id);
  row.seen.push_back(id);
  if (std::find(hooks.ends.begin(), hooks.ends.end(), id) != hooks.ends.end())
    out.finish = Finish::kEnd;
  else if (hooks.on_token && !hooks.on_token(row.number, id))
    out.finish = Finish::kStop;
  else if (std::ssize(out.ids) < row.room)
    return true;
  return false;
}

// Runs rows that share a cache, with these tokens to read first, until all have ended.
void run_on(models::Model& model, models::KvCache& cache, at::Tensor tokens_BT, std::vector<Row> rows,
            const SamplingOptions& options, const GenerateHooks& hooks, std::vector<Continuation>& out) {
  const Clock::time_point begun = Clock::now();
  const models::Head head = model.head();
  const at::Device device = head.weight_VD.device();
  tokens_BT = tokens_BT.to(device);
  while (true) {
    const at::Tensor h_BTD = model.hidden({.tokens_BT = tokens_BT}, &cache);
    const at::Tensor logits_BV = head.logits(h_BTD.select(1, -1)).to(at::kCPU);
    std::vector<int64_t> staying;
    for (int64_t b = 0; b < std::ssize(rows); ++b) {
      Row& row = rows[static_cast<size_t>(b)];
      if (extend(row, logits_BV[b], options, hooks, begun, out[row.number])) staying.push_back(b);
    }
    if (staying.empty()) return;
    if (staying.size() < rows.size()) {
      cache.keep(at::tensor(staying, at::kLong).to(device));
      std::vector<Row> kept;
      for (const int64_t b : staying) kept.push_back(std::move(rows[static_cast<size_t>(b)]));
      rows = std::move(kept);
    }
    std::vector<int64_t> next;
    for (const Row& row : rows) next.push_back(row.seen.back());
    tokens_BT = at::tensor(next, at::kLong).unsqueeze(1).to(device);
  }
}

// The same with a cache of their own.
void run(models::Model& model, std::vector<Row> rows, const SamplingOptions& options,
         const GenerateHooks& hooks, std::vector<Continuation>& out) {
  size_t longest = 0;
  for (const Row& row : rows) longest = std::max(longest, row.seen.size());
  const at::Tensor tokens_BT = padded(rows, longest);
  const auto cache = make_cache(model, rows, static_cast<int64_t>(longest), model.head().weight_VD.device());
  run_on(model, *cache, tokens_BT, std::move(rows), options, hooks, out);
}

constexpr int64_t kLeastRoom = 4096;  // tokens of a cache that stays; memory is touched as it fills

// Forgets what a prompt does not begin with, and sees to room for `tokens`.
void prepare(ReadTokens& read, const models::Model& model, const std::vector<int32_t>& prompt,
             int64_t tokens) {
  const bool lasting = !model.spec().patch && model.spec().rope_scaling.kind != "longrope";
  if (!lasting || !read.cache || read.cache->capacity() < tokens) {
    const auto roomy = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(tokens)));
    read.cache = model.make_cache(1, std::min(std::max(roomy, kLeastRoom), model.context()));
    read.ids.clear();
  }
  const size_t most = std::min(read.ids.size(), prompt.size() - 1);  // the last token's state is needed
  const auto end =
      std::mismatch(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(most), read.ids.begin())
          .first;
  read.ids.assign(prompt.begin(), end);
  read.cache->shorten(std::ssize(read.ids));
}

}  // namespace

double Continuation::tokens_per_second() const {
  return ids.size() < 2 ? 0.0 : static_cast<double>(ids.size() - 1) / (seconds - first_seconds);
}

std::string finish_name(Finish finish) {
  return finish == Finish::kLength ? "length"
         : finish == Finish::kStop ? "stop"
         : finish == Finish::kEnd  ? "end"
                                   : "context";
}

std::string id_misfit(int64_t id, int64_t tokens) {
  if (id >= 0 && id < tokens) return "";
  return fmt::format("a prompt's ids must lie in [0, {}), got {}", tokens, id);
}

std::string length_misfit(int64_t prompted, int64_t context) {
  if (prompted == 0) return "a prompt must have at least one token";
  if (prompted <= context) return "";
  return fmt::format("a prompt must fit the context of {} tokens, got {}", context, prompted);
}

std::vector<Continuation> generate(models::Model& model, const std::vector<std::vector<int32_t>>& prompts,
                                   const SamplingOptions& options, const GenerateHooks& hooks) {
  options.validate();
  std::vector<Row> rows = rows_of(prompts, model, options, hooks);
  std::vector<Continuation> out(prompts.size());
  for (const Row& row : rows) out[row.number].finish = row.full ? Finish::kContext : Finish::kLength;
  std::erase_if(rows, [](const Row& row) { return row.room == 0; });
  if (rows.empty()) return out;

  const at::NoGradGuard no_grad;
  const bool equal = std::all_of(rows.begin(), rows.end(),
                                 [&](const Row& row) { return row.seen.size() == rows.front().seen.size(); });
  if (equal || !model.spec().patch) {  // byte-patch models cannot be padded
    run(model, std::move(rows), options, hooks, out);
  } else {
    for (Row& row : rows) run(model, {row}, options, hooks, out);
  }
  return out;
}

Continuation generate_on(models::Model& model, ReadTokens& read, const std::vector<int32_t>& prompt,
                         const SamplingOptions& options, const GenerateHooks& hooks) {
  options.validate();
  std::vector<Row> rows = rows_of({prompt}, model, options, {.step = read.prompts++});
  std::vector<Continuation> out(1);
  out[0].finish = rows[0].full ? Finish::kContext : Finish::kLength;
  if (rows[0].room == 0) return out[0];

  const at::NoGradGuard no_grad;
  prepare(read, model, prompt, std::ssize(prompt) + rows[0].room);
  const std::vector<int64_t> fresh(prompt.begin() + std::ssize(read.ids), prompt.end());
  read.fresh = std::ssize(fresh);
  run_on(model, *read.cache, at::tensor(fresh).view({1, -1}), std::move(rows), options, hooks, out);
  read.ids = prompt;
  read.ids.insert(read.ids.end(), out[0].ids.begin(), out[0].ids.end() - 1);  // the last was not read
  return out[0];
}

at::Tensor logits(models::Model& model, const at::Tensor& tokens_BT) {
  const at::NoGradGuard no_grad;
  const models::Head head = model.head();
  return head.logits(model.hidden({.tokens_BT = tokens_BT.to(head.weight_VD.device())})).to(at::kCPU);
}

}  // namespace retort::eval
