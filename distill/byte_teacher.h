// A teacher of bytes made from a teacher of tokens: for every byte of a student's batch the distribution of
// the next byte (distill/next_byte.h), from the teacher's tokens of the same text.
//
// For each row the teacher reads the document's tokens, from `context` tokens before the one that holds the
// row's first predicted byte; docs/distillation.md, "A byte-level student of a BPE teacher", has the details.
// The signal is dense: log-probabilities [N, 256] as hidden states, and an identity as the head. One thread; of
// a divided model, ranks ask together, and a batch that takes fewer passes than another rank's goes along with those.
// Throws ConfigError for shards that are not bytes and for sizes that do not fit, DataError, naming the
// place, for a document that the teacher's tokens do not spell.
#pragma once

#include "data/token_shards.h"
#include "data/tokenizers/tokenizer.h"
#include "distill/teacher.h"
#include "train/divided_model.h"

namespace retort::distill {

inline constexpr int64_t kBridgeContext = 32;

// `sources`: the corpora of the batches, in the order of Batch::source_B.
std::unique_ptr<Teacher> make_byte_teacher(std::unique_ptr<models::Model> model,
                                           std::unique_ptr<data::Tokenizer> tokenizer,
                                           std::vector<std::shared_ptr<const data::TokenShards>> sources,
                                           int64_t context = kBridgeContext);
std::unique_ptr<Teacher> make_byte_teacher(std::shared_ptr<train::DividedModel> model,
                                           std::unique_ptr<data::Tokenizer> tokenizer,
                                           std::vector<std::shared_ptr<const data::TokenShards>> sources,
                                           int64_t context = kBridgeContext);

}  // namespace retort::distill
