// Requests as the passes that a model answers them in (docs/evaluation.md, "Passes"): what several of them read alike is
// read once, and rows of one pass have one length. What a row reads, where its padding lies and how wide its part of
// a pass is follows from the document alone, all that is asked about one context; others decide only how many rows a
// product has. Pure; passes follow from the requests and not from ranks.
#pragma once

#include <cstdint>
#include <vector>

#include "eval/requests.h"
#include "models/model.h"

namespace retort::eval {

// Tokens to read after which one or several continuations are asked about: they end in different tokens.
struct RequestRow {
  std::vector<int32_t> context, rest;  // the continuation's, without its last
  std::vector<size_t> requests;
  int64_t scored() const { return std::ssize(rest) + 1; }
  std::vector<int32_t> read() const;
};

// Rows that go through the model together, filled up at the end to `width` tokens.
struct PassPart {
  std::vector<const RequestRow*> rows;
  std::vector<int64_t> context_of;  // of each row, in the pass's contexts
  int64_t width = 0;
};

// Without contexts a row is read whole, in one part. With them, each is read once but for its last token, with padding
// before it up to `places` tokens, and rows begin with that last token.
struct Pass {
  std::vector<const std::vector<int32_t>*> contexts = {};
  int64_t places = 0;
  std::vector<PassPart> parts = {};
};

std::vector<RequestRow> rows_of(const std::vector<TokenRequest>& requests);
// `most`: contexts, or rows that are read whole, of a pass.
std::vector<Pass> passes_of(const std::vector<RequestRow>& rows, const models::Model& model, int64_t most);

}  // namespace retort::eval
