// Records of preferences as documents: a prompt with a chosen and a rejected answer, or with one that is called
// good or bad.
//
//   prompt             fields of text, joined by an empty line: what the user says; or one field of messages
//   chosen, rejected,  text: what the assistant says; or messages, of which there is one, the assistant's
//   response
//   label              true or false, as a boolean or as text (csv)
//
// Without a prompt field, chosen and rejected are wholes that begin alike: conversations, whose equal messages at
// the beginning are the prompt, or plain texts, which are cut before the word where they part and are written in
// no template. Only the answer is learned, and both documents of a pair begin with the same text. Pure functions.
// DataError naming `where` and the rule: for answers that are empty or alike, for other turns than these, for
// fields that are missing or of another type.
#pragma once

#include <string>

#include "data/documents.h"

namespace retort::data {

Document preference_document(const formats::Json& record, const DocumentOptions& options,
                             const ConversationForm& form, const std::string& where);

}  // namespace retort::data
