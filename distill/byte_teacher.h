// A teacher of bytes made from a teacher of tokens: for every byte of a student's batch the distribution of
// the next one (distill/next_byte.h), from the teacher's tokens of the same text.
//
// A document is tokenized whole, when a batch first touches it, and kept: some 3 bytes for each of its bytes.
// For a row of the batch the teacher reads the document's tokens from `context` tokens before the one that
// holds the row's first predicted byte, behind the vocabulary's prefix or, at a document's beginning, its
// separator; in several windows when that is longer than its context. What nothing precedes (a document's
// first token in a vocabulary without either), what lies beyond the corpus, and bytes of special tokens are
// uniform. The signal is dense: hidden states that are log-probabilities [N, 256] and an identity for a head.
// One thread. Throws ConfigError for shards that are not bytes or sizes that do not fit, DataError for a
// document whose tokens do not spell it, naming the place.
#pragma once

#include "data/token_shards.h"
#include "data/tokenizers/tokenizer.h"
#include "distill/teacher.h"

namespace retort::distill {

inline constexpr int64_t kBridgeContext = 32;

// `sources`: the corpora that batches come from, by their number (data/batch_stream.h).
std::unique_ptr<Teacher> make_byte_teacher(std::unique_ptr<models::Model> model,
                                           std::unique_ptr<data::Tokenizer> tokenizer,
                                           std::vector<std::shared_ptr<const data::TokenShards>> sources,
                                           int64_t context = kBridgeContext);

}  // namespace retort::distill
