// Records of preferences as documents: a prompt with a chosen and a rejected answer, or with one that is called good or
// bad; docs/preferences.md has the fields. Only the answer is learned, and both documents of a pair begin with the same
// text. Pure functions. DataError naming `where` and the rule: for answers that are empty or alike, for other turns than
// a prompt's and an answer's, for fields that are missing or of another type.
#pragma once

#include <string>

#include "data/documents.h"

namespace retort::data {

Document preference_document(const formats::Json& record, const DocumentOptions& options,
                             const ConversationForm& form, const std::string& where);

}  // namespace retort::data
