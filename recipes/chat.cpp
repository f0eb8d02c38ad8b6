#include "recipes/chat.h"

#include "core/file.h"
#include "core/nearest.h"
#include "data/templates/shipped.h"
#include "data/templates/spans.h"
#include "data/templates/store.h"
#include "data/templates/text.h"
#include "recipes/model_address.h"
#include "train/precision.h"

namespace retort::recipes {
namespace {

using formats::Json;

// Where a model's template and special tokens may be: with its files, and with those of the base below its adapters.
std::vector<std::string> homes(const artifacts::OpenedModel& model) {
  std::vector<std::string> out = {model.source};
  if (model.adapters) out.push_back(model.adapters->base);
  std::erase_if(out, [](const std::string& path) { return !std::filesystem::exists(path); });
  return out;
}

std::string template_of(const std::string& asked, const artifacts::OpenedModel& model) {
  if (!asked.empty()) return asked;
  for (const std::string& home : homes(model))
    if (!data::read_templates(home).templates.empty()) return home;
  fail<ConfigError>("{}: has no chat template; pass --template: {}, a .jinja file, or a model that has one",
                    model.source, fmt::join(data::shipped_templates().names(), ", "));
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

artifacts::OpenedModel opened(const std::string& address, const ChatOptions& options, Log& log) {
  const kernels::CpuTuning tuning = kernels::tune_cpu();
  artifacts::OpenedModel model = open_model(address, "", 0, log);
  model.need_tokenizer();
  const auto comm = comm::make_self_comm();
  const at::ScalarType dtype =
      train::choose_precision(options.generate.precision, *comm, log, [&] { return tuning; });
  models::bind_working(model.decoder->parameters(), model.map(), dtype);
  return model;
}

}  // namespace

void ChatOptions::describe(Section& s) {
  s.field("system", system, "system text, which tells the model what to be");
  s.field("template", form,
          "chat template: a model's folder or GGUF, a .jinja file, or the name of one that came with "
          "retort; the model's own when left out");
  s.field("date", date, "YYYY-MM-DD for templates that write the date; today when left out");
  generate.describe(s);
  s.field("seed", seed, "seed of the draws", at_least<int64_t>(0));
}

Chat::Chat(const std::string& model, const ChatOptions& options, Print answers, Print notes, Log& log)
    : model_(opened(model, options, log)),
      opened_(data::open_template(template_of(options.form, model_))),
      conversation_(parts(options)),
      answers_(std::move(answers)),
      notes_(std::move(notes)) {}

eval::ConversationParts Chat::parts(const ChatOptions& options) {
  data::Chat like;
  like.special = special_tokens(opened_, model_);
  like.now = data::date_or_today(options.date);
  eval::SamplingOptions sampling = options.generate.sampling;
  sampling.seed = static_cast<uint64_t>(options.seed);
  const std::vector<std::string> marks =
      opened_.shipped ? data::shipped_templates().at(opened_.form.name()).special
                      : data::end_marks(opened_.form, like, *model_.tokenizer, model_.ends());
  sampling.stop.insert(sampling.stop.end(), marks.begin(), marks.end());
  return {.model = *model_.decoder,
          .tokenizer = *model_.tokenizer,
          .form = opened_.form,
          .like = std::move(like),
          .begin = opened_.shipped,
          .system = options.system,
          .ends = model_.ends(),
          .sampling = std::move(sampling)};
}

bool Chat::take(std::string line) {
  if (line.ends_with('\r')) line.pop_back();
  if (line.starts_with('/'))
    obey(line);
  else if (!data::jinja::strip(line, nullptr, true, true).empty())
    return answer(line);
  return true;
}

bool Chat::answer(const std::string& line) {
  bool read = true;
  const auto print = [&](std::string_view text) { return read = answers_(text); };
  const int64_t context = model_.decoder->context();
  const eval::Turn turn = conversation_.say(line, print);
  if (turn.refused) {
    notes_(fmt::format(
        "no room: the conversation would have {} tokens, and the model reads {}; this turn is forgotten, "
        "/reset begins another conversation\n",
        turn.prompt, context));
    return true;
  }
  print("\n");
  if (turn.tokens.finish == eval::Finish::kLength)
    notes_(fmt::format("cut off after {} tokens (--tokens)\n", turn.tokens.ids.size()));
  if (turn.tokens.finish == eval::Finish::kContext)
    notes_(fmt::format(
        "cut off: the {} tokens that the model reads are full; /reset begins another conversation\n",
        context));
  return read;
}

void Chat::obey(const std::string& command) {
  const size_t space = command.find(' ');
  const std::string word = command.substr(0, space);
  const std::string rest(data::jinja::strip(command.substr(word.size()), nullptr, true, true));
  if (word == "/help") {
    notes_(
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
        "unknown command {}{} (known: {}; a line that begins with a space goes to the model as it is)", word,
        did_you_mean(word, known), fmt::join(known, ", "));
  }
}

}  // namespace retort::recipes
