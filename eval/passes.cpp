#include "eval/passes.h"

#include <algorithm>
#include <map>

#include "core/error.h"

namespace retort::eval {
namespace {

constexpr int64_t kPassTokens = 8192;   // of rows side by side, padding included
constexpr int64_t kSharedTokens = 16;   // a context of fewer is cheaper read again
constexpr int64_t kPlaces = 8;          // of which a context's length is made a multiple
constexpr int64_t kSteps = 4;           // of which a width after a context is made one
constexpr int64_t kWholeSteps = 8;      // of which the width of a row that is read whole is made one
constexpr int64_t kRowsOfAContext = 4;  // in a part, on average

int64_t rounded_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

using Siblings = std::vector<const RequestRow*>;  // of one context

// The longest first, so that the largest batch shows at once whether memory will do, and equal ones together.
void sort_by_length(std::vector<const RequestRow*>& rows) {
  const auto tokens = [](const RequestRow* row) { return std::ssize(row->context) + std::ssize(row->rest); };
  std::sort(rows.begin(), rows.end(), [&](const RequestRow* a, const RequestRow* b) {
    if (tokens(a) != tokens(b)) return tokens(a) > tokens(b);
    const auto x = a->read(), y = b->read();
    return x != y ? x < y : a->context.size() < b->context.size();
  });
}

void add_whole(std::vector<Pass>& passes, std::vector<const RequestRow*> rows, int64_t window, int64_t most) {
  sort_by_length(rows);
  for (size_t first = 0; first < rows.size();) {
    const int64_t tokens = std::ssize(rows[first]->context) + std::ssize(rows[first]->rest);
    const int64_t width = std::min(rounded_up(tokens, kWholeSteps), window);
    const auto count = std::clamp<int64_t>(kPassTokens / width, 1, most);
    const size_t end = std::min(rows.size(), first + static_cast<size_t>(count));
    passes.push_back({.parts = {{.rows = {rows.begin() + static_cast<std::ptrdiff_t>(first),
                                          rows.begin() + static_cast<std::ptrdiff_t>(end)},
                                 .context_of = {},
                                 .width = width}}});
    first = end;
  }
}

int64_t places_of(const RequestRow& row) { return rounded_up(std::ssize(row.context) - 1, kPlaces); }
int64_t width_of(const RequestRow& row) { return rounded_up(row.scored(), kSteps); }

// Families whose contexts take as many places.
void add_shared(std::vector<Pass>& passes, const std::vector<Siblings>& families, int64_t most) {
  Pass pass{.places = places_of(*families.front().front())};
  std::map<int64_t, PassPart> by_width;
  for (const Siblings& family : families) {
    pass.contexts.push_back(&family.front()->context);
    for (const RequestRow* row : family) {
      PassPart& part = by_width[width_of(*row)];
      part.rows.push_back(row);
      part.context_of.push_back(std::ssize(pass.contexts) - 1);
    }
  }
  for (const auto& [width, all] : by_width) {
    const auto count = static_cast<size_t>(
        std::clamp<int64_t>(kPassTokens / (pass.places + width), 1, kRowsOfAContext * most));
    for (size_t first = 0; first < all.rows.size(); first += count) {
      const auto begin = static_cast<std::ptrdiff_t>(first),
                 end = static_cast<std::ptrdiff_t>(std::min(first + count, all.rows.size()));
      pass.parts.push_back({{all.rows.begin() + begin, all.rows.begin() + end},
                            {all.context_of.begin() + begin, all.context_of.begin() + end},
                            width});
    }
  }
  passes.push_back(std::move(pass));
}

}  // namespace

std::vector<int32_t> RequestRow::read() const {
  std::vector<int32_t> all = context;
  all.insert(all.end(), rest.begin(), rest.end());
  return all;
}

std::vector<RequestRow> rows_of(const std::vector<TokenRequest>& requests) {
  std::map<std::pair<std::vector<int32_t>, std::vector<int32_t>>, size_t> places;
  std::vector<RequestRow> rows;
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

std::vector<Pass> passes_of(const std::vector<RequestRow>& rows, const models::Model& model, int64_t most) {
  // With longrope the longest row of a pass decides how all are turned; patches know no continued cache.
  const bool alone = model.spec().rope_scaling.kind == "longrope", sharing = !alone && !model.spec().patch;
  std::map<std::vector<int32_t>, Siblings> families;
  std::vector<const RequestRow*> whole;
  for (const RequestRow& row : rows) {
    const bool fits = std::ssize(row.context) - 1 + width_of(row) <= model.context();
    if (sharing && fits && std::ssize(row.context) > kSharedTokens)
      families[row.context].push_back(&row);
    else
      whole.push_back(&row);
  }
  std::map<int64_t, std::vector<Siblings>, std::greater<>> by_places;
  for (auto& [context, family] : families)
    if (family.size() > 1)
      by_places[places_of(*family.front())].push_back(std::move(family));
    else
      whole.push_back(family.front());
  std::vector<Pass> passes;
  for (auto& [places, all] : by_places) {
    const auto count = static_cast<size_t>(std::clamp<int64_t>(kPassTokens / places, 1, most));
    for (size_t first = 0; first < all.size(); first += count)
      add_shared(passes,
                 {all.begin() + static_cast<std::ptrdiff_t>(first),
                  all.begin() + static_cast<std::ptrdiff_t>(std::min(first + count, all.size()))},
                 most);
  }
  add_whole(passes, std::move(whole), model.context(), alone ? 1 : most);
  return passes;
}

}  // namespace retort::eval
