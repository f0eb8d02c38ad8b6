// A conversation with a MODEL, a line at a time: `retort chat`. A line is a turn, or a command that begins with "/";
// answers go to `answers` in pieces, all else to `notes`. A line that throws leaves the conversation as it was. Throws
// as open_model() does, ConfigError for a model without a chat template, an unknown command and wrong options.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "artifacts/open_model.h"
#include "data/templates/opened.h"
#include "eval/conversation.h"
#include "recipes/stages/generate.h"

namespace retort::recipes {

struct ChatOptions {
  ChatOptions() { generate.sampling.tokens = 1024; }

  std::string form = {};    // a template's address; "": the model's own
  std::string system = {};  // "": none of ours
  std::string date = {};
  GenerateOptions generate = {};  // without what it continues
  int64_t seed = 0;
  void describe(Section& s);
};

class Chat {
 public:
  using Print = std::function<bool(std::string_view)>;  // false: nobody reads any more

  Chat(const std::string& model, const ChatOptions& options, Print answers, Print notes, Log& log);
  // False when nobody reads the answers any more.
  bool take(std::string line);
  const std::string& source() const { return model_.source; }

 private:
  eval::ConversationParts parts(const ChatOptions& options);
  bool answer(const std::string& line);
  void obey(const std::string& command);

  artifacts::OpenedModel model_;
  data::OpenedTemplate opened_;
  eval::Conversation conversation_;
  Print answers_, notes_;
};

}  // namespace retort::recipes
