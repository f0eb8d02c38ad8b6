#include "launch/command_line.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <deque>
#include <iostream>
#include <iterator>
#include <map>

#include <CLI/CLI.hpp>
#include "artifacts/export_formats.h"
#include "artifacts/export_model.h"
#include "comm/bootstrap.h"
#include "core/nearest.h"
#include "data/prepare.h"
#include "data/tokenizers/bpe_training.h"
#include "eval/task.h"
#include "launch/stage_verb.h"
#include "launch/verbs.h"
#include "plan/device.h"
#include "quantize/post_training.h"
#include "recipes/data_options.h"
#include "recipes/model_options.h"
#include "recipes/stages/evaluate.h"
#include "recipes/stages/generate.h"

namespace retort::launch {
namespace {

// The parser with the places that it fills.
struct CommandLine {
  CLI::App app{
      "retort trains and distils language models.\nA MODEL is a checkpoint, stage, run or HF directory, a "
      ".gguf file, or preset:NAME. Exit codes and the recipe's keys: docs/recipe.md",
      "retort"};
  std::function<ExitCode()> chosen;
  std::deque<StageVerb> stages;
  RunArguments run, capture;
  CheckArguments check;
  PlanArguments plan;
  ChatArguments chat;
  LogitsArguments logits;
  InspectArguments inspect;
  PreviewArguments preview;
  RenderArguments render;
  TokenizerArguments tokenizer;
  ReportArguments report;
  RecipeArguments recipe;
  std::map<const CLI::App*, FlagSection> flags_of;

  CommandLine() {
    app.require_subcommand(1);
    app.set_version_flag("--version", "retort " RETORT_VERSION);
    add_run_and_check();
    add_data_and_tokenizer();
    add_generate();
    add_chat();
    add_eval();
    add_quantize();
    add_export();
    add_looks();
    add_recipe();
    app.set_help_all_flag("--help-all", "Print every verb with its options and exit");
  }

  // A verb of its own; `name` is its argument "action" where it has one.
  template <class Arguments>
  CLI::App* verb(CLI::App& parent, const char* name, const char* doc, Arguments& arguments,
                 ExitCode (*body)(const Arguments&)) {
    CLI::App* sub = parent.add_subcommand(name, doc);
    sub->callback([this, sub, name, &arguments, body] {
      if (const auto found = flags_of.find(sub); found != flags_of.end()) found->second.verify();
      if constexpr (requires { arguments.action; }) arguments.action = name;
      chosen = [arguments, body] { return body(arguments); };
    });
    return sub;
  }
  // Keys of Options as flags of a verb of its own.
  template <class Options>
  void flags(CLI::App* sub, Options& options, std::set<std::string> without = {}) {
    FlagSection& section =
        flags_of.try_emplace(sub, *sub, std::set<std::string>(), std::move(without)).first->second;
    options.describe(section);
  }
  // A verb that is a stage of this kind by itself.
  StageVerb& stage(CLI::App& parent, const char* name, const char* doc, const char* kind) {
    CLI::App* sub = parent.add_subcommand(name, doc);
    StageVerb& verb = stages.emplace_back(*sub, kind);
    choose(verb, [] {});
    return verb;
  }

  // `complete` fills in what was left out, after parsing.
  void choose(StageVerb& verb, std::function<void()> complete) {
    verb.app.callback([this, &verb, complete = std::move(complete)] {
      verb.verify();
      complete();
      chosen = [&verb] { return verb(); };
    });
  }

  static void add_recipe_and_sets(CLI::App* sub, std::string& recipe, std::vector<std::string>& sets) {
    sub->add_option("RECIPE", recipe, "a recipe's path, or the name of one that came with retort")
        ->required();
    sub->add_option("--set", sets, "key=value, over the recipe's own; may be repeated")
        ->take_all()
        ->allow_extra_args(false);
    sub->add_option_function<std::vector<std::string>>(
        "KEY=VALUE",
        [&sets](const std::vector<std::string>& more) { sets.insert(sets.end(), more.begin(), more.end()); },
        "the same without --set: run.text=my.txt");
  }

  static void add_comm(CLI::App* sub, std::string& comm) {
    sub->add_option("--comm", comm,
                    "how this process finds the other ranks: auto (by what its launcher says), self (alone), "
                    "mpi, tcp")
        ->check(CLI::IsMember(comm::comm_choices()))
        ->capture_default_str();
  }

  void add_run_and_check() {
    CLI::App* sub =
        verb(app, "run", "run a recipe's stages; finished ones are skipped, an interrupted one continues",
             run, run_verb);
    add_recipe_and_sets(sub, run.recipe, run.sets);
    sub->add_option(
           "--resume", run.resume,
           "never: put finished work aside and start from the beginning; PATH: a training stage without "
           "checkpoints of its own continues this one")
        ->check(CLI::IsMember({"auto", "never"}) | CLI::ExistingDirectory)
        ->type_name("auto|never|PATH")
        ->capture_default_str();
    sub->add_flag("--strict", run.strict,
                  "end with exit code 65 where a checkpoint is damaged, and take none before it instead");
    sub->add_option(
           "--profile", run.profile,
           "tell where so many steps of each training went (time, bytes, FLOPs by operation), and write "
           "profile.json for chrome://tracing beside its checkpoints")
        ->check(whole(1, 1000));
    add_comm(sub, run.comm);
    capture.only = "capture";
    sub = verb(app, "capture", "run a recipe's capture stages, and what they need, and nothing else of it",
               capture, run_verb);
    add_recipe_and_sets(sub, capture.recipe, capture.sets);
    add_comm(sub, capture.comm);
    sub =
        verb(app, "check", "every problem of a recipe at once, with file, line and column; else a short plan",
             check, check_verb);
    add_recipe_and_sets(sub, check.recipe, check.sets);
    sub->add_option("--ranks", check.ranks, "as if launched with so many ranks")->check(whole(1, 1 << 20));
    sub = verb(app, "plan",
               "what training stages would cost: parameters, FLOPs, bytes of a rank, communication, time",
               plan, plan_verb);
    add_recipe_and_sets(sub, plan.recipe, plan.sets);
    sub->add_option("--ranks", plan.ranks, "number of ranks; as the recipe says when left out")
        ->check(whole(1, 1 << 20));
    sub->add_option("--device", plan.device,
                    fmt::format("device of a rank: {}", fmt::join(plan::devices().names(), ", ")))
        ->capture_default_str();
    sub->add_flag("--json", plan.json, "print it for programs");
  }

  void add_data_and_tokenizer() {
    CLI::App* data = app.add_subcommand("data", "text to token shards")->require_subcommand(1);
    StageVerb& prepare = stage(*data, "prepare",
                               "files of text, records or conversations to OUT/train and OUT/validation; run "
                               "again when killed, it goes on",
                               "prepare");
    prepare.app
        .add_option("FILE", prepare.run.text,
                    "txt, jsonl, json, csv, tsv or parquet; plain, .gz, .zst or .xz")
        ->required();
    prepare.directory("directory to write");
    prepare.flags(prepare.stage.get<data::PrepareOptions>(), {}, {"text"});
    prepare.threads("threads that tokenize; 0: all processors");
    add_preview(*data);
    add_render(*data);

    CLI::App* words = app.add_subcommand("tokenizer", "make a vocabulary, or see what one does to a text");
    words->require_subcommand(1);
    StageVerb& train =
        stage(*words, "train", "byte-level BPE from text files: OUT/tokenizer.json", "tokenizer");
    train.app.add_option("FILE", train.run.text, "text, jsonl, csv or tsv, also packed")->required();
    train.directory("folder to write");
    train.flags(train.stage.get<data::BpeTrainingOptions>());
    train.threads("0: all processors");
    add_conversion(*words, "encode", "text to ids on stdout");
    add_conversion(*words, "decode", "ids to text on stdout");
  }

  void add_preview(CLI::App& data) {
    CLI::App* sub =
        verb(data, "preview",
             "some documents of token shards with what is learned marked, and what becomes of all in rows",
             preview, preview_verb);
    sub->add_option("SHARDS", preview.shards, "token shards, or what data prepare wrote")->required();
    flags(sub, preview.options);
  }

  void add_render(CLI::App& data) {
    CLI::App* sub =
        verb(data, "render", "a conversation in a model's chat template, as training and inference see it",
             render, render_verb);
    sub->add_option(
           "TEMPLATE", render.options.source,
           "a model's folder or GGUF, a .jinja file, or the name of a template that came with retort")
        ->required();
    sub->add_option("--messages", render.messages, "a JSON file: [{\"role\", \"content\"}, ...]")->required();
    sub->add_option("--tools", render.tools, "a JSON file: the tools' definitions, a list");
    sub->add_option("--bos", render.options.bos, "text of bos_token, instead of the model's");
    sub->add_option("--eos", render.options.eos, "text of eos_token, instead of the model's");
    flags(sub, render.options);
    sub->add_flag("--json", render.json, "{\"text\", \"ids\", \"spans\"}: spans are learned, in characters");
  }

  void add_conversion(CLI::App& words, const char* name, const char* doc) {
    CLI::App* sub = verb(words, name, doc, tokenizer, tokenizer_verb);
    sub->add_option("--tokenizer", tokenizer.tokenizer, "bytes, or a tokenizer's file or folder")->required();
    sub->add_option_function<std::string>(
        "--text", [this](const std::string& text) { tokenizer.text = text; },
        "text to take instead of a file or stdin");
    sub->add_option("FILE", tokenizer.files, "a file; without it stdin is read")->expected(0, 1);
    sub->add_flag("--json", tokenizer.json, "many at once: [\"text\", ...] and [[ids], ...]");
  }

  void add_generate() {
    StageVerb& verb =
        stage(app, "generate", "continue prompts; text to stdout, all else to stderr", "generate");
    auto& options = verb.stage.get<recipes::GenerateOptions>();
    options.prompt.clear();
    verb.model();
    CLI::Option* prompt =
        verb.app
            .add_option("--prompt", options.prompt,
                        "text to continue; -: from stdin; several are continued in one batch")
            ->take_all()
            ->allow_extra_args(false);
    CLI::Option* ids = verb.app.add_option("--ids", options.ids, "token ids to continue: 1,2,3; prints ids")
                           ->delimiter(',')
                           ->check(whole(0, std::numeric_limits<int32_t>::max()));
    prompt->excludes(ids);
    verb.flags(options, {}, {"prompt", "ids"});
    verb.seed("seed of the draws");
    choose(verb, [&options] {
      for (std::string& prompt : options.prompt)
        if (prompt == "-") prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
    });
  }

  void add_chat() {
    CLI::App* sub =
        verb(app, "chat",
             "talk with a model: a line from stdin is a turn, answers to stdout; /help lists commands", chat,
             chat_verb);
    sub->add_option("MODEL", chat.model, kModelForms)->required();
    flags(sub, chat.options, {"prompt", "ids", "json"});
  }

  void add_eval() {
    StageVerb& verb = stage(app, "eval", "what a model makes of a text, and of tasks", "evaluate");
    auto& options = verb.stage.get<recipes::EvaluateOptions>();
    verb.model();
    verb.option("evaluate.against", "AGAINST", options.against, "a second MODEL, compared with the first");
    verb.option("evaluate.text", "--text", options.text, "a text file, or a directory of token shards");
    verb.sequence();
    verb.flags(options, {}, {"text", "against"});
    CLI::Option* tasks = verb.app.get_option("--tasks")->delimiter(',');
    tasks->description(tasks->get_description() + "; several: divided by commas, or --tasks again");
    verb.outs("a folder for results and samples of described tasks, in the layout of lm-evaluation-harness");
    verb.json();
    choose(verb, [&verb, &options] {
      const auto described = [](const std::string& task) { return eval::tasks().find(task) == nullptr; };
      retort::check<ConfigError>(
          verb.app.count("--out") == 0 || std::ranges::any_of(options.tasks, described),
          "--out: results and samples are those of described tasks, and --tasks names none; "
          "--json FILE has the figures of {}",
          fmt::join(options.tasks, ", "));
    });
  }

  void add_quantize() {
    StageVerb& verb =
        stage(app, "quantize", "put a model's weights on a grid, without training, and say what it costs",
              "quantize");
    auto& options = verb.stage.get<quantize::PostTrainingOptions>();
    auto& grids = verb.stage.get<recipes::QuantizeSection>().emplace();
    options.baselines = true;
    verb.model();
    std::string& text = verb.stage.get<recipes::DataOptions>().validation;
    verb.option("data.validation", "--text", text,
                "token shards to judge the result on; DIR/validation of --calibration when left out");
    verb.sequence();
    verb.flags(options, {}, {"method"});
    verb.app.get_option("--scheme")->required();
    verb.app.get_option("--calibration")
        ->description("token shards to calibrate on, or an importance matrix (.gguf)");
    verb.app.get_option("--limit")->description("tokens of --text that models are judged on; 0: all (>= 0)");
    verb.app.get_option("--tokens")
        ->description("tokens of the calibration text that are read, in windows of --sequence (>= 1)");
    verb.flags(grids, {"fallback"});
    verb.flags(verb.stage.get<artifacts::ExportOptions>(), {"format"});
    verb.outs("a .gguf file or a folder; may be repeated");
    verb.json();
    choose(verb, [&options, &text] {
      const Path beside = Path(options.calibration) / "validation";
      if (text.empty() && std::filesystem::is_directory(beside)) text = beside.string();
    });
  }

  void add_export() {
    StageVerb& verb = stage(app, "export", "write a model for other software", "export");
    auto& options = verb.stage.get<artifacts::ExportOptions>();
    verb.model();
    verb.flags(options,
               {"format", "type", "embedding_type", "activations", "license", "base_model", "ollama"});
    verb.app.get_option("--format")->required()->default_str("");
    verb.outs("a file (gguf) or a folder")->required();
  }

  void add_looks() {
    CLI::App* sub =
        verb(app, "logits", "logits of token ids, to compare with another runtime", logits, logits_verb);
    sub->add_option("MODEL", logits.model, kModelForms)->required();
    sub->add_option("--ids", logits.ids, "a JSON file: [[ids], ...]")->required();
    sub->add_option("--out", logits.out, "a safetensors file: tensor \"logits\" f32 [B, T, V]")->required();
    sub = verb(app, "inspect", "names, shapes, types, metadata and checksums of any file or directory",
               inspect, inspect_verb);
    sub->add_option("PATH", inspect.path, "what to look into, or preset:NAME")->required();
    sub->add_option("--shards", inspect.shards, "token shards that a teacher cache must be of");
    sub->add_option("--tokenizer", inspect.tokenizer, "a tokenizer whose ids a teacher cache must hold");
    sub = verb(app, "report", "runs side by side as one HTML page: results, curves, samples, differing keys",
               report, report_verb);
    sub->add_option("RUN", report.runs, "directories of runs")->required();
    sub->add_option("--out", report.out, "file to write")->capture_default_str();
    app.add_subcommand("devices",
                       "processors and GPUs of this machine, what retort can use of them, and why not")
        ->callback([this] { chosen = [] { return devices_verb(); }; });
  }

  void add_recipe() {
    CLI::App* sub = app.add_subcommand("recipe", "recipes that came with retort, and what their keys mean");
    sub->require_subcommand(1);
    const auto action = [&](const char* name, const char* doc) {
      return verb(*sub, name, doc, recipe, recipe_verb);
    };
    action("list", "their names");
    action("show", "one of them")->add_option("NAME", recipe.name, "its name")->required();
    action("explain", "a key: type, default, rule, meaning; without one all sections")
        ->add_option("KEY", recipe.name, "train.optimizer.lr");
    action("docs", "docs/recipe.md, generated");
  }
};

// Every verb with its options, one a line: "eval MODEL --text --json".
void surface(const CLI::App& app, const std::string& prefix, std::string& out) {
  const auto subs = app.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* sub : subs) surface(*sub, prefix + sub->get_name() + " ", out);
  if (!subs.empty()) return;
  out += prefix;
  for (const CLI::Option* option : app.get_options())
    out += (option->get_positional() ? option->get_name(true) : option->get_name()) + " ";
  out.back() = '\n';
}

std::vector<std::string> names_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(sub->get_name());
  return names;
}

// The verb that the arguments name, with its action; ConfigError for one that is not known.
const CLI::App& verb_of(const CLI::App& app, const std::vector<std::string>& arguments) {
  const CLI::App* verb = &app;
  for (const std::string& word : arguments) {
    const std::vector<std::string> known = names_of(*verb);
    if (known.empty() || word.starts_with('-')) break;
    check<ConfigError>(std::find(known.begin(), known.end(), word) != known.end(),
                       "unknown {} \"{}\"{} (known: {})",
                       verb == &app ? "verb" : verb->get_name() + " action", word, did_you_mean(word, known),
                       fmt::join(known, ", "));
    verb = verb->get_subcommand(word);
  }
  return *verb;
}

// The option that a mistyped one was meant to be.
std::string meant(const CLI::App& verb, const std::vector<std::string>& arguments) {
  std::vector<std::string> known;
  for (const CLI::Option* option : verb.get_options())
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  for (const std::string& word : arguments) {
    const std::string name = word.substr(0, word.find('='));
    if (name.starts_with("--") && std::find(known.begin(), known.end(), name) == known.end())
      return did_you_mean(name, known);
  }
  return "";
}

}  // namespace

std::function<ExitCode()> parse_command_line(const std::vector<std::string>& arguments) {
  const auto line = std::make_shared<CommandLine>();
  const CLI::App& verb = verb_of(line->app, arguments);
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 wants them
  if (arguments.empty()) reversed = {"--help"};
  try {
    line->app.parse(reversed);
  } catch (const CLI::CallForVersion& version) {
    return [text = std::string(version.what())] {
      fmt::print("{}\n", text);
      return ExitCode::kDone;
    };
  } catch (const CLI::CallForAllHelp&) {
    std::string all;
    surface(line->app, "", all);
    return [all] {
      fmt::print("{}", all);
      return ExitCode::kDone;
    };
  } catch (const CLI::Success&) {
    std::string above;
    const CLI::App* asked = &line->app;
    for (auto subs = asked->get_subcommands(); !subs.empty(); subs = asked->get_subcommands()) {
      above += (above.empty() ? "" : " ") + asked->get_name();
      asked = subs.front();
    }
    const std::string help = asked->help(above);
    return [help] {
      fmt::print("{}", help);
      return ExitCode::kDone;
    };
  } catch (const CLI::ExtrasError& error) {
    fail<ConfigError>("{}{} (see --help)", error.what(), meant(verb, arguments));
  } catch (const CLI::ParseError& error) {
    fail<ConfigError>("{} (see --help)", error.what());
  }
  return [line] { return line->chosen(); };
}

}  // namespace retort::launch
