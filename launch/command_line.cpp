#include "launch/command_line.h"

#include <fmt/ranges.h>

#include <charconv>
#include <limits>

#include <CLI/CLI.hpp>
#include "artifacts/export_formats.h"
#include "core/nearest.h"
#include "formats/ggml_blocks.h"

#include "launch/flag_section.h"
#include "launch/verbs.h"
#include "train/precision.h"

namespace retort::launch {
namespace {

// A whole number of at least `low`; and at most `high`, which is not said where it is no limit of ours.
CLI::Validator whole(int64_t low, int64_t high = std::numeric_limits<int64_t>::max()) {
  const bool open = high == std::numeric_limits<int64_t>::max();
  const std::string rule = open ? fmt::format(">= {}", low) : fmt::format("in [{}, {}]", low, high);
  return {[=](std::string& text) {
            int64_t value = 0;
            const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
            const bool fits = error == std::errc() && end == text.data() + text.size() && !text.empty();
            return fits && value >= low && value <= high
                       ? std::string()
                       : fmt::format("must be a whole number {}, got \"{}\"", rule, text);
          },
          rule};
}

constexpr int64_t kMostThreads = 1024;

constexpr const char* kModel = "a checkpoint, stage, run or HF directory, a .gguf file, or preset:NAME";

// What --format of a folder may be.
std::vector<std::string> folder_formats() {
  std::vector<std::string> out = {"auto"};
  for (const artifacts::ExportFormat& format : artifacts::export_formats())
    if (!format.one_file) out.push_back(format.name);
  return out;
}

// The parser with the places that it fills.
struct CommandLine {
  CLI::App app{
      "retort trains and distils language models.\nA MODEL is a checkpoint, stage, run or HF directory, a "
      ".gguf file, or preset:NAME. Exit codes and the recipe's keys: docs/recipe.md",
      "retort"};
  std::function<ExitCode()> chosen;
  RunArguments run;
  CheckArguments check;
  CaptureArguments capture;
  DataArguments data;
  GenerateArguments generate;
  EvalArguments eval;
  LogitsArguments logits;
  ExportArguments exporting;
  QuantizeArguments quantize;
  InspectArguments inspect;
  TokenizerArguments tokenizer;
  RecipeArguments recipe;

  CommandLine() {
    app.require_subcommand(1);
    app.set_version_flag("--version", "retort " RETORT_VERSION);
    add_run_and_check();
    add_data();
    add_tokenizer();
    add_generate();
    add_eval_and_logits();
    add_quantize();
    add_export_and_inspect();
    add_recipe();
  }

  template <class Arguments>
  CLI::App* verb(const char* name, const char* doc, const Arguments& arguments,
                 ExitCode (*body)(const Arguments&)) {
    CLI::App* sub = app.add_subcommand(name, doc);
    sub->callback([this, &arguments, body] { chosen = [arguments, body] { return body(arguments); }; });
    return sub;
  }
  static void add_sets(CLI::App* sub, std::vector<std::string>& sets) {
    sub->add_option("--set", sets, "key=value, over the recipe's own; may be repeated")
        ->take_all()
        ->allow_extra_args(false);
    sub->add_option_function<std::vector<std::string>>(
        "KEY=VALUE",
        [&sets](const std::vector<std::string>& more) { sets.insert(sets.end(), more.begin(), more.end()); },
        "the same without --set: run.text=my.txt");
  }

  void add_run_and_check() {
    CLI::App* sub =
        verb("run", "run a recipe's stages; finished ones are skipped, an interrupted one continues", run,
             run_verb);
    sub->add_option("RECIPE", run.recipe, "a recipe's path, or the name of one that came with retort")
        ->required();
    add_sets(sub, run.sets);
    sub->add_option(
           "--resume", run.resume,
           "never: put finished work aside and start anew; PATH: a training stage without checkpoints "
           "of its own continues this one")
        ->check(CLI::IsMember({"auto", "never"}) | CLI::ExistingDirectory)
        ->type_name("auto|never|PATH")
        ->capture_default_str();
    sub = verb("capture", "run a recipe's capture stages, and what they need, and nothing else of it",
               capture, capture_verb);
    sub->add_option("RECIPE", capture.recipe, "a recipe's path or name")->required();
    add_sets(sub, capture.sets);
    sub = verb("check", "every problem of a recipe at once, with file, line and column; else a short plan",
               check, check_verb);
    sub->add_option("RECIPE", check.recipe, "a recipe's path or name")->required();
    add_sets(sub, check.sets);
    sub->add_option("--ranks", check.ranks, "as if launched with so many ranks")->check(whole(1, 1 << 20));
  }

  void add_data() {
    CLI::App* sub = app.add_subcommand("data", "text to token shards");
    sub->require_subcommand(1);
    CLI::App* prepare = sub->add_subcommand(
        "prepare",
        "files of text, records or conversations to OUT/train and OUT/validation; run again when "
        "killed, it goes on");
    prepare
        ->add_option("FILE", data.prepare.text,
                     "txt, jsonl, json, csv, tsv or parquet; plain, .gz, .zst or .xz")
        ->required();
    prepare->add_option("--out", data.out, "directory to write")->required();
    const auto flags = std::make_shared<FlagSection>(*prepare, std::set<std::string>{"text"});
    data.prepare.describe(*flags);
    prepare->add_option("--threads", data.prepare.threads, "that tokenize; 0: all processors")
        ->capture_default_str()
        ->check(whole(0, kMostThreads));
    prepare->callback([this, flags] {
      flags->verify();
      chosen = [arguments = data] { return data_verb(arguments); };
    });
  }

  void add_tokenizer() {
    CLI::App* sub = app.add_subcommand("tokenizer", "make a vocabulary, or see what one does to a text");
    sub->require_subcommand(1);
    const auto choose = [this](const char* action) {
      tokenizer.action = action;
      chosen = [arguments = tokenizer] { return tokenizer_verb(arguments); };
    };
    CLI::App* train = sub->add_subcommand("train", "byte-level BPE from text files: OUT/tokenizer.json");
    train->add_option("FILE", tokenizer.files, "text, jsonl, csv or tsv, also packed")->required();
    train->add_option("--out", tokenizer.out, "folder to write")->required();
    const auto flags = std::make_shared<FlagSection>(*train);
    tokenizer.training.describe(*flags);
    train->add_option("--threads", tokenizer.training.threads, "0: all processors")
        ->capture_default_str()
        ->check(whole(0, kMostThreads));
    train->callback([flags, choose] {
      flags->verify();
      choose("train");
    });
    for (const auto& [name, doc] :
         {std::pair{"encode", "text to ids on stdout"}, {"decode", "ids to text on stdout"}}) {
      CLI::App* way = sub->add_subcommand(name, doc);
      way->callback([choose, name = name] { choose(name); });
      way->add_option("--tokenizer", tokenizer.tokenizer, "bytes, or a tokenizer's file or folder")
          ->required();
      way->add_option_function<std::string>(
          "--text", [this](const std::string& text) { tokenizer.text = text; },
          "what to take, instead of a file or stdin");
      way->add_option("FILE", tokenizer.files, "a file; without it stdin is read")->expected(0, 1);
      way->add_flag("--json", tokenizer.json, "many at once: [\"text\", ...] and [[ids], ...]");
    }
  }

  void add_generate() {
    CLI::App* sub = app.add_subcommand("generate", "continue prompts; text to stdout, all else to stderr");
    sub->add_option("MODEL", generate.model, kModel)->required();
    CLI::Option* prompt =
        sub->add_option("--prompt", generate.prompts,
                        "text to continue; -: from stdin; several are continued in one batch")
            ->take_all()
            ->allow_extra_args(false);
    CLI::Option* ids = sub->add_option("--ids", generate.ids, "token ids to continue: 1,2,3; prints ids")
                           ->delimiter(',')
                           ->check(whole(0, std::numeric_limits<int32_t>::max()));
    prompt->excludes(ids);
    const auto flags = std::make_shared<FlagSection>(*sub);
    generate.sampling.describe(*flags);
    sub->add_option("--seed", generate.sampling.seed, "of the draws")->capture_default_str()->check(whole(0));
    sub->add_option(
           "--precision", generate.precision,
           "of the weights: bf16 halves what a token reads; auto: bf16 where products are faster in it")
        ->capture_default_str()
        ->check(CLI::IsMember(train::precision_names()));
    sub->add_flag("--json", generate.json,
                  "a line of JSON for each prompt: prompt, text, ids, finish, tokens_per_second");
    sub->callback([this, flags] {
      flags->verify();
      chosen = [arguments = generate] { return generate_verb(arguments); };
    });
  }

  void add_eval_and_logits() {
    CLI::App* sub = verb("eval", "bits per byte and perplexity of a text", eval, eval_verb);
    sub->add_option("MODEL", eval.model, kModel)->required();
    sub->add_option("--text", eval.text, "a text file, or a directory of token shards")->required();
    sub->add_option("--sequence", eval.sequence, "tokens of a window; the model's context by default")
        ->check(whole(1));
    sub->add_option("--limit", eval.limit, "only the first so many tokens")->check(whole(1));
    sub->add_option("--json", eval.json, "write the figures here too");
    sub = verb("logits", "logits of token ids, to compare with another runtime", logits, logits_verb);
    sub->add_option("MODEL", logits.model, kModel)->required();
    sub->add_option("--ids", logits.ids, "a JSON file: [[ids], ...]")->required();
    sub->add_option("--out", logits.out, "a safetensors file: tensor \"logits\" f32 [B, T, V]")->required();
  }

  void add_quantize() {
    CLI::App* sub =
        verb("quantize", "put a model's weights on a grid, without training, and say what it costs", quantize,
             quantize_verb);
    sub->add_option("MODEL", quantize.model, kModel)->required();
    sub->add_option("--scheme", quantize.scheme,
                    "a method and a grid: gptq-q4_0; a wrong name lists them all")
        ->required();
    sub->add_option("--calibration", quantize.calibration,
                    "token shards to calibrate on (DIR, or DIR/train), or an importance matrix (.gguf)");
    sub->add_option("--text", quantize.text,
                    "token shards to judge the result on; DIR/validation of --calibration by default");
    sub->add_option("--out", quantize.out, "a .gguf file or a folder; may be repeated")
        ->take_all()
        ->allow_extra_args(false);
    sub->add_option("--format", quantize.format,
                    "of a folder; auto: compressed-tensors where it holds the grid, else a checkpoint")
        ->check(CLI::IsMember(folder_formats()))
        ->capture_default_str();
    sub->add_option("--fallback", quantize.fallback,
                    "grid, or none for f32, of the tensors whose rows the scheme's grid does not divide")
        ->capture_default_str();
    sub->add_option("--tokens", quantize.tokens, "of the calibration text")
        ->capture_default_str()
        ->check(whole(1));
    sub->add_option("--sequence", quantize.sequence,
                    "tokens of a window; the model's context, at most 2048, by default")
        ->check(whole(1));
    sub->add_flag("--act-order", quantize.act_order, "gptq: columns by falling activation");
    sub->add_flag("--clip-search", quantize.clip_search,
                  "scales below the largest weight's where that errs less");
    sub->add_flag("--no-baselines", quantize.no_baselines, "do not judge rtn and gptq on the same grid too");
    sub->add_option("--limit", quantize.limit, "judge on the first so many tokens only")->check(whole(1));
    sub->add_option("--importance-out", quantize.importance_out,
                    "write the importance matrix that imatrix schemes measure, for llama-quantize");
    sub->add_option("--json", quantize.json, "write the tables' figures here too");
  }

  void add_export_and_inspect() {
    const std::vector<std::string> types = formats::written_ggml_types();
    CLI::App* sub = verb("export", "write a model for other software", exporting, export_verb);
    sub->add_option("MODEL", exporting.model, kModel)->required();
    sub->add_option("--format", exporting.format,
                    "hf: values; compressed-tensors, gptq: a folder of the model's own codes")
        ->required()
        ->check(CLI::IsMember(artifacts::export_formats().names()));
    sub->add_option("--type", exporting.type,
                    "of matrices; by default the grids that the model was trained on")
        ->check(CLI::IsMember(types));
    sub->add_option("--embedding-type", exporting.embedding_type,
                    "of the embedding and the head; as --type by default")
        ->check(CLI::IsMember(types));
    sub->add_flag("--activations", exporting.activations,
                  "compressed-tensors: whoever loads it rounds activations to 8 bits too");
    sub->add_option("--out", exporting.out, "a file (gguf) or a folder")->required();
    sub = verb("inspect", "names, shapes, types, metadata and checksums of any file or directory", inspect,
               inspect_verb);
    sub->add_option("PATH", inspect.path, "what to look into, or preset:NAME")->required();
    sub->add_option("--shards", inspect.shards, "token shards that a teacher cache must be of");
    sub->add_option("--tokenizer", inspect.tokenizer, "a tokenizer whose ids a teacher cache must hold");
  }

  void add_recipe() {
    CLI::App* sub = app.add_subcommand("recipe", "recipes that came with retort, and what their keys mean");
    sub->require_subcommand(1);
    const auto action = [&](const char* name, const char* doc) {
      CLI::App* made = sub->add_subcommand(name, doc);
      made->callback([this, name] {
        recipe.action = name;
        chosen = [arguments = recipe] { return recipe_verb(arguments); };
      });
      return made;
    };
    action("list", "their names");
    action("show", "one of them")->add_option("NAME", recipe.name, "its name")->required();
    action("explain", "a key: type, default, rule, meaning; without one all sections")
        ->add_option("KEY", recipe.name, "train.optimizer.lr");
    action("docs", "docs/recipe.md, generated");
  }
};

void surface(const CLI::App& app, const std::string& prefix, std::string& out) {
  const auto subs = app.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* sub : subs) surface(*sub, prefix + sub->get_name() + " ", out);
  if (!subs.empty()) return;
  out += prefix;
  for (const CLI::Option* option : app.get_options())
    out += (option->get_positional() ? option->get_name(true) : option->get_name()) + " ";
  out.back() = '\n';
}

}  // namespace

namespace {

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
  CommandLine line;
  const CLI::App& verb = verb_of(line.app, arguments);
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 wants them
  try {
    line.app.parse(reversed);
  } catch (const CLI::CallForVersion& version) {
    return [text = std::string(version.what())] {
      fmt::print("{}\n", text);
      return ExitCode::kDone;
    };
  } catch (const CLI::Success&) {
    std::string above;
    const CLI::App* asked = &line.app;
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
  return line.chosen;
}

std::string command_line_surface() {
  CommandLine line;
  std::string out;
  surface(line.app, "", out);
  return out;
}

}  // namespace retort::launch
