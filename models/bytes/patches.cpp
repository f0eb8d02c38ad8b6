#include "models/bytes/patches.h"

#include <algorithm>
#include <vector>

#include "core/host_tensor.h"
#include "core/shape.h"

namespace retort::models {
namespace {

bool spacelike(int64_t byte) {
  const bool word = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
                    (byte >= 'a' && byte <= 'z') || (byte >= 0x80 && byte < 0xC0);
  return !word;
}

struct Patch {
  int64_t first, last, document;  // tokens [first, last] of the row
};

// Walks one row once and writes `slot` and `next` on the way.
std::vector<Patch> cut(const int64_t* tokens, const int64_t* documents, int64_t count, const PatchRule& rule,
                       int64_t* slot, int64_t* next) {
  std::vector<Patch> out;
  int64_t first = 0, number = 0;
  for (int64_t t = 0; t < count; ++t) {
    const bool begins = t == 0 || (documents && documents[t] != documents[t - 1]);
    if (begins) first = t, ++number;
    const bool stop =
        rule.stops ? tokens[t] == kStopToken : spacelike(tokens[t]) && (begins || !spacelike(tokens[t - 1]));
    const bool full = rule.longest > 0 && t - first + 1 >= rule.longest;
    if (stop || full || (begins && rule.first)) {
      out.push_back({first, t, documents ? documents[t] : 0});
      first = t + 1, ++number;
    }
    slot[t] = t + 1 - first;
    next[t] = number;
  }
  return out;
}

}  // namespace

Patches find_patches(const at::Tensor& tokens_BT, const at::Tensor& document_BT, const PatchRule& rule) {
  check_shape("patches", "tokens_BT", tokens_BT, {-1, -1});
  const int64_t B = tokens_BT.size(0), T = tokens_BT.size(1);
  const at::Tensor tokens = tokens_BT.cpu().contiguous();
  at::Tensor documents;
  if (document_BT.defined()) {
    check_shape("patches", "document_BT", document_BT, {B, T});
    documents = document_BT.cpu().to(at::kLong).contiguous();
  }
  const auto row = [&](const at::Tensor& x, int64_t b) { return host_values<int64_t>(x).data() + b * T; };
  const auto make = [&](at::IntArrayRef shape, int64_t value) { return at::full(shape, value, at::kLong); };
  Patches out;
  out.ended_BT = make({B, T}, 0), out.done_BT = make({B, T}, 0);
  out.slot_BT = make({B, T}, 0), out.next_BT = make({B, T}, 0);
  std::vector<std::vector<Patch>> patches;
  int64_t P = 1;
  for (int64_t b = 0; b < B; ++b) {
    patches.push_back(cut(row(tokens, b), documents.defined() ? row(documents, b) : nullptr, T, rule,
                          row(out.slot_BT, b), row(out.next_BT, b)));
    P = std::max(P, std::ssize(patches.back()));
  }
  out.last_BP = make({B, P}, 0), out.document_BP = make({B, P}, -1);
  if (rule.longest > 0) out.tokens_BPS = make({B, P, rule.longest}, kStopToken);
  for (int64_t b = 0; b < B; ++b) {
    const std::vector<Patch>& own = patches[static_cast<size_t>(b)];
    for (int64_t p = 0; p < std::ssize(own); ++p) {
      const Patch& patch = own[static_cast<size_t>(p)];
      const int64_t at = b * P + p;
      host_values<int64_t>(out.last_BP)[static_cast<size_t>(at)] = b * T + patch.last;
      host_values<int64_t>(out.document_BP)[static_cast<size_t>(at)] = patch.document;
      row(out.ended_BT, b)[patch.last] = 1 + at;
      const int64_t* numbers = documents.defined() ? row(documents, b) : nullptr;
      const int64_t end = p + 1 < std::ssize(own) ? own[static_cast<size_t>(p) + 1].last : T;
      for (int64_t t = patch.last; t < end && (!numbers || numbers[t] == patch.document); ++t)
        row(out.done_BT, b)[t] = 1 + at;
      if (rule.longest > 0)
        std::copy(row(tokens, b) + patch.first, row(tokens, b) + patch.last + 1,
                  host_values<int64_t>(out.tokens_BPS).data() + at * rule.longest);
    }
  }
  for (at::Tensor* x : {&out.last_BP, &out.document_BP, &out.ended_BT, &out.done_BT, &out.slot_BT,
                        &out.next_BT, &out.tokens_BPS})
    if (x->defined()) *x = x->to(tokens_BT.device());
  return out;
}

at::Tensor take_rows(const at::Tensor& x, const at::Tensor& rows, bool zero) {
  at::Tensor table = x.flatten(0, -2);
  if (zero) table = at::cat({at::zeros({1, table.size(1)}, table.options()), table});
  return at::embedding(table, rows);
}

}  // namespace retort::models
