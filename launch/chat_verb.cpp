// chat: a conversation, line by line from stdin; answers to stdout, all else to stderr. Whoever types at a terminal
// gets a sign to type at, and goes on after an error; of lines from a pipe an error is the end.
#include <unistd.h>

#include <iostream>

#include "core/file.h"
#include "core/nearest.h"
#include "data/templates/opened.h"
#include "data/templates/shipped.h"
#include "data/templates/spans.h"
#include "data/templates/store.h"
#include "data/templates/text.h"
#include "eval/conversation.h"
#include "launch/verbs.h"
#include "recipes/model_address.h"
#include "train/precision.h"

namespace retort::launch {
namespace {

using formats::Json;

// Where a model's template and special tokens may be: with its files, and with those of the base below its adapters.
std::vector<std::string> homes(const artifacts::OpenedModel& model) {
  std::vector<std::string> out = {model.source};
  if (model.adapters) out.push_back(model.adapters->base);
  std::erase_if(out, [](const std::string& path) { return !std::filesystem::exists(path); });
  return out;
}

std::string template_of(const ChatArguments& arguments, const artifacts::OpenedModel& model) {
  if (!arguments.form.empty()) return arguments.form;
  for (const std::string& home : homes(model))
    if (!data::read_templates(home).templates.empty()) return home;
  fail<ConfigError>("{}: has no chat template; pass --template: {}, a .jinja file, or a model that has one",
                    arguments.model, fmt::join(data::shipped_templates().names(), ", "));
}

// A template's own, and the model's where it has none.
Json special_tokens(const data::OpenedTemplate& opened, const artifacts::OpenedModel& model) {
  Json special = opened.special;
  for (const std::string& home : homes(model)) {
    Json own = data::read_templates(home).special;
    own.update(special);
    special = std::move(own);
  }
  return special;
}

class Chat {
 public:
  Chat(const ChatArguments& arguments, artifacts::OpenedModel& model)
      : opened_(data::open_template(template_of(arguments, model))),
        conversation_(parts(arguments, model)),
        context_(model.decoder->context()) {}

  // False when nobody reads any more.
  bool answer(const std::string& line) {
    bool read = true;
    const auto print = [&](std::string_view text) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      return read = std::fflush(stdout) == 0;
    };
    const eval::Turn turn = conversation_.say(line, print);
    if (turn.refused) {
      fmt::print(
          stderr,
          "no room: the conversation would have {} tokens, and the model reads {}; this turn is forgotten, "
          "/reset begins another conversation\n",
          turn.prompt, context_);
      return true;
    }
    print("\n");
    if (turn.tokens.finish == eval::Finish::kLength)
      fmt::print(stderr, "cut off after {} tokens (--tokens)\n", turn.tokens.ids.size());
    if (turn.tokens.finish == eval::Finish::kContext)
      fmt::print(stderr,
                 "cut off: the {} tokens that the model reads are full; /reset begins another conversation\n",
                 context_);
    return read;
  }

  void obey(const std::string& line) {
    const size_t space = line.find(' ');
    const std::string word = line.substr(0, space);
    const std::string rest(data::jinja::strip(line.substr(word.size()), nullptr, true, true));
    if (word == "/help") {
      fmt::print(
          stderr,
          "/reset      begin another conversation, with the same system text\n"
          "/save FILE  write the conversation as JSON, which `retort data render --messages` reads\n"
          "/help       this\n"
          "A line that begins with a space goes to the model as it is. The end of input (Ctrl-D) ends it.\n");
    } else if (word == "/reset") {
      conversation_.reset();
    } else if (word == "/save") {
      check<ConfigError>(!rest.empty(), "/save wants a file to write");
      write_durably(local_files(), rest, conversation_.messages().dump(1) + "\n");
    } else {
      const std::vector<std::string> known = {"/help", "/reset", "/save"};
      fail<ConfigError>(
          "unknown command {}{} (known: {}; a line that begins with a space goes to the model as it is)",
          word, did_you_mean(word, known), fmt::join(known, ", "));
    }
  }

 private:
  eval::ConversationParts parts(const ChatArguments& arguments, artifacts::OpenedModel& model) {
    data::Chat like;
    like.special = special_tokens(opened_, model);
    like.now = data::date_or_today(arguments.date);
    eval::SamplingOptions sampling = arguments.options.sampling;
    sampling.seed = static_cast<uint64_t>(arguments.seed);
    const std::vector<std::string> marks =
        opened_.shipped ? data::shipped_templates().at(opened_.form.name()).special
                        : data::end_marks(opened_.form, like, *model.tokenizer, model.ends());
    sampling.stop.insert(sampling.stop.end(), marks.begin(), marks.end());
    return {.model = *model.decoder,
            .tokenizer = *model.tokenizer,
            .form = opened_.form,
            .like = std::move(like),
            .begin = opened_.shipped,
            .system = arguments.system,
            .ends = model.ends(),
            .sampling = std::move(sampling)};
  }

  data::OpenedTemplate opened_;
  eval::Conversation conversation_;
  int64_t context_;
};

// False at the end of input, or when nobody reads any more.
bool take_line(Chat& chat, bool typed) {
  if (typed) fmt::print(stderr, "> ");
  std::string line;
  if (!std::getline(std::cin, line)) return false;
  try {
    if (line.starts_with('/'))
      chat.obey(line);
    else if (!data::jinja::strip(line, nullptr, true, true).empty())
      return chat.answer(line);
  } catch (const Error& error) {
    if (!typed) throw;
    fmt::print(stderr, "{}\n", error.what());
  }
  return true;
}

}  // namespace

ExitCode chat_verb(const ChatArguments& arguments) {
  Log log;
  const kernels::CpuTuning tuning = kernels::tune_cpu();
  artifacts::OpenedModel model = recipes::open_model(arguments.model, "", 0, log);
  model.need_tokenizer();
  const auto comm = comm::make_self_comm();
  const at::ScalarType dtype =
      train::choose_precision(arguments.options.precision, *comm, log, [&] { return tuning; });
  models::bind_working(model.decoder->parameters(), model.map(), dtype);
  Chat chat(arguments, model);
  const bool typed = ::isatty(STDIN_FILENO) == 1;
  if (typed) fmt::print(stderr, "{}; /help says what else there is\n", model.source);
  while (take_line(chat, typed)) {
  }
  if (typed) fmt::print(stderr, "\n");
  return ExitCode::kDone;
}

}  // namespace retort::launch
