#include "recipes/recipe.h"

#include <algorithm>

#include "core/error.h"
#include "models/family.h"
#include "models/spec_json.h"
#include "train/precision.h"

namespace retort::recipes {
namespace {

constexpr const char* kModelForms =
    "checkpoint, stage or run directory, HF folder, .gguf file, preset:NAME or stage:NAME";

constexpr const char* kClaim = "a statement to test: all stages run for every seed, then bars are judged";

struct ShareOptions {
  models::DecoderSpec& spec;
  void describe(Section& s) {
    share(s, "ffn", spec.share_ffn, "all: one feed-forward network for all layers");
    share(s, "attention_output", spec.share_output, "all: one output projection of attention for all layers");
    const Rule<int64_t> natural = at_least<int64_t>(0);
    s.field("keep_first", spec.keep_first, "layers at the start that keep their own: interior sharing",
            natural);
    s.field("keep_last", spec.keep_last, "layers at the end that keep their own", natural);
    s.field("lora_rank", spec.lora_rank,
            "adapters that each layer adds to the shared feed-forward network; 0: none; exports merge them",
            natural);
  }
  static void share(Section& s, const char* name, bool& shared, const char* doc) {
    std::string word = shared ? "all" : "none";
    s.field(name, word, doc, one_of({"none", "all"}));
    shared = word == "all";
  }
};

struct ScalingOptions {
  kernels::RopeScaling& scaling;
  void describe(Section& s) {
    s.field("kind", scaling.kind, "stretches rotary positions beyond the trained context",
            one_of({"none", "linear", "llama3", "longrope"}));
    s.field("factor", scaling.factor, "by how much", above(0.0));
    s.field("low_freq_factor", scaling.low_freq_factor, "llama3: slower than this many turns is stretched",
            above(0.0));
    s.field("high_freq_factor", scaling.high_freq_factor, "llama3: faster than this many turns stays",
            above(0.0));
    s.field("original_context", scaling.original_context, "llama3, longrope: the context it was trained with",
            at_least<int64_t>(1));
    s.field("attention_factor", scaling.attention_factor,
            "longrope: what cos and sin are multiplied by; 0: sqrt(1 + ln factor / ln original_context)",
            at_least(0.0));
    s.field("short_factor", scaling.short_factor,
            "longrope: divisors of the frequencies, head_dim / 2, up to the original context");
    s.field("long_factor", scaling.long_factor, "longrope: divisors beyond it");
  }
};

void describe_share(Section& s, models::DecoderSpec& spec) {
  ShareOptions share{spec};
  s.section("share", share,
            "weights that layers have in common: one storage, one optimizer state, one copy in files");
  s.field("repeat", spec.repeat, "each stored block runs this often in a row; layers counts executed ones",
          at_least<int64_t>(1));
}

struct PatchOptions : models::PatchSpec {
  void describe(Section& s) {
    PatchSpec& patch = *this;
    const Rule<int64_t> positive = at_least<int64_t>(1), natural = at_least<int64_t>(0);
    s.field("width", patch.width, "of the byte layers", positive);
    s.field("layers", patch.layers, "byte layers; spacebyte: half before the core, stlm: of the head",
            positive);
    s.field("heads", patch.heads, "attention heads of the byte layers", positive);
    s.field("ffn_width", patch.ffn_width, "feed-forward width of the byte layers", positive);
    s.field("window", patch.window, "spacebyte: bytes that a byte sees in the byte layers; 0: all", natural);
    s.field("longest", patch.longest, "stlm: bytes of a patch at most", natural);
    std::string head = patch.parallel ? "parallel" : "autoregressive";
    s.field("head", head,
            "stlm: how a patch's bytes are predicted; parallel needs shards of the tokenizer bytes+stop",
            one_of({"autoregressive", "parallel"}));
    patch.parallel = head == "parallel";
  }
};

models::DecoderSpec family_defaults(const std::string& family) {
  models::DecoderSpec spec = models::families().at(family).defaults;
  spec.kv_heads = spec.head_dim = spec.ffn_width = 0;
  return spec;
}

void describe_patch(Section& s, models::DecoderSpec& spec) {
  std::optional<PatchOptions> patch;
  if (spec.patch) patch.emplace(PatchOptions{*spec.patch});
  s.optional("patch", patch, "spacebyte and stlm: the layers over bytes; the keys above are the core's");
  spec.patch.reset();
  if (patch) spec.patch = *patch;
}

Rule<std::string> name_rule() {
  return {"letters, digits, _ and -",
          [](const std::string& name) {
            return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
              return std::isalnum(c) != 0 || c == '_' || c == '-';
            });
          },
          {}};
}

std::optional<std::string> after(const std::string& reference, std::string_view prefix) {
  if (!reference.starts_with(prefix)) return std::nullopt;
  return reference.substr(prefix.size());
}

}  // namespace

void RunOptions::describe(Section& s) {
  s.field("name", name, "what the run is called; the recipe file's name when left out");
  s.field("dir", dir, "where it writes; runs/NAME when left out");
  s.field("seed", seed, "of weights, data order and sampling", at_least<int64_t>(0));
  s.field("threads", threads, "threads of this process, shared by its ranks; 0: all processors",
          between<int64_t>(0, 1024));
  s.field("text", text, "text files that prepare stages read; any text will do");
}

ModelOptions::ModelOptions() : choices(family_defaults("llama")) {}

models::DecoderSpec ModelOptions::spec() const {
  models::DecoderSpec s = choices;
  if (s.kv_heads == 0) s.kv_heads = s.heads;
  if (s.head_dim == 0) s.head_dim = std::max<int64_t>(1, s.width / s.heads);
  if (s.ffn_width == 0)
    s.ffn_width = s.ffn == models::FfnKind::kGelu ? 4 * s.width : (s.width * 8 / 3 + 31) / 32 * 32;
  return s;
}

void ModelOptions::describe(Section& s) {
  s.field("from", from, fmt::format("start from these weights and this shape: {}", kModelForms));
  if (!from.empty()) return;
  models::DecoderSpec& m = choices;
  const std::string before = m.family;
  s.field("family", m.family, "architecture, and whose files it is exported as",
          one_of(models::families().names()));
  if (m.family != before) m = family_defaults(m.family);
  const Rule<int64_t> positive = at_least<int64_t>(1), natural = at_least<int64_t>(0);
  s.field("vocabulary", m.vocabulary, "token ids; at least the tokenizer's", positive);
  s.field("context", m.context, "longest sequence that positions allow, tokens", positive);
  s.field("layers", m.layers, "executed layers", positive);
  s.field("width", m.width, "of the residual stream; a multiple of 32 for quantized grids", positive);
  s.field("heads", m.heads, "query heads", positive);
  s.field("kv_heads", m.kv_heads, "key and value heads; 0: as many as heads", natural);
  s.field("head_dim", m.head_dim, "of one head; 0: width / heads", natural);
  std::string ffn = models::to_word(m.ffn);
  s.field(
      "ffn", ffn,
      "feed-forward network, the family's own when left out; bitnet has two: relu2glu (squared ReLU), and "
      "swiglu, which a GGUF can say too",
      one_of(models::choice_words<models::FfnKind>()));
  m.ffn = models::from_word<models::FfnKind>(ffn);
  s.field("ffn_width", m.ffn_width, "feed-forward width; 0: 8/3 width (gelu: 4 width), rounded up to 32",
          natural);
  s.field("norm_eps", m.norm_eps, "added to the variance in norms", above(0.0));
  s.field("rope_theta", m.rope_theta, "base of the rotary frequencies", above(0.0));
  ScalingOptions scaling{m.rope_scaling};
  s.section("rope_scaling", scaling, "rotary positions beyond the trained context");
  s.field("window", m.window, "keys that a query sees, its own included (phi3, gemma3); 0: all", natural);
  s.field("global_every", m.global_every, "every so many-th layer sees all keys despite the window (gemma3)",
          natural);
  s.field("attention_bias", m.attention_bias, "biases of q, k, v and o");
  s.field("ffn_bias", m.ffn_bias, "biases of the feed-forward network");
  s.field("tie_embeddings", m.tie_embeddings, "the output head is the token embedding");
  describe_share(s, m);
  describe_patch(s, m);
  s.optional("init", init, "weights cut from a teacher's; without it: random ones");
}

void SourceOptions::describe(Section& s) {
  s.field("train", train, "token shards: a directory, or stage:NAME of a prepare stage");
  s.field("weight", weight, "share of the rows, relative to the other sources' weights", above(0.0));
}

std::vector<SourceOptions> DataOptions::sources() const {
  return mixture.empty() ? std::vector<SourceOptions>{{train}} : mixture;
}

void DataOptions::describe(Section& s) {
  const Rule<int64_t> positive = at_least<int64_t>(1);
  s.field("train", train, "token shards to train on: a directory, or stage:NAME of a prepare stage");
  s.list(
      "mixture", mixture,
      "several sources instead of train, their rows mixed by weight; each is read at its own pace, a small "
      "one again and again");
  s.field("validation", validation, "token shards to evaluate on; empty: no evaluation");
  s.field("limit", limit, "tokens of each source that are trained on, from its start; 0: all",
          at_least<int64_t>(0));
  s.field("sequence", sequence, "tokens of a row, and of a window in evaluation", positive);
  s.field("batch_tokens", batch_tokens, "tokens of an optimizer update, over all ranks", positive);
  s.field("micro_batch", micro_batch, "rows of one forward pass; lower it when memory is short", positive);
  s.field("isolate_documents", isolate_documents, "no attention and no prediction across documents in a row");
}

void TeacherOptions::describe(Section& s) {
  s.field("kind", kind,
          "live: model runs beside the student; self: so do the weights that the stage begins with, never "
          "quantized; cached: what a capture stage has kept",
          one_of({"live", "self", "cached"}));
  s.field("model", model, fmt::format("{}; cached: refuses a cache of another one", kModelForms));
  s.field("cache", cache,
          "cached: its directory, or stage:NAME of a capture stage; one for each source of data.train");
  s.field("precision", precision, "of the teacher's products", one_of(train::precision_names()));
  s.field(
      "bridge", bridge,
      "live: bytes lets a model of any tokenizer teach a student of bytes, by the next byte's distribution",
      one_of({"none", "bytes"}));
}

void MixedTeacher::describe(Section& s) {
  teacher.describe(s);
  s.field("weight", weight, "its share of the mixture, over the sum of all", at_least(0.0));
  s.field("source_weights", source_weights, "the same for each source of data.train, instead of weight");
}

std::vector<TeacherOptions> DistillOptions::all_teachers() const {
  if (teachers.empty()) return {teacher};
  std::vector<TeacherOptions> out;
  for (const MixedTeacher& one : teachers) out.push_back(one.teacher);
  return out;
}

void DistillOptions::describe(Section& s) {
  s.section("teacher", teacher, "where the teacher's signal comes from");
  s.list("teachers", teachers, "several live teachers instead, their distributions mixed");
  s.list("losses", losses, "the objective: the weighted sum of these over the valid tokens");
}

void ParallelOptions::describe(Section& s) {
  s.field("ranks", ranks,
          "data-parallel ranks, as threads of one process; under mpirun the processes are the ranks",
          between<int64_t>(1, 1024));
}

void GenerateOptions::describe(Section& s) {
  s.field("prompt", prompt, "text to continue");
  sampling.describe(s);
}

void ReportOptions::describe(Section& s) {
  s.field("stages", stages, "rows of the table; empty: every earlier stage with figures");
}

const Registry<StageKind>& stage_kinds() {
  static const Registry<StageKind> table(
      "stage kind",
      {{"tokenizer", {"tokenizer"}, "a vocabulary made from the text, for prepare.tokenizer: stage:NAME"},
       {"prepare", {"prepare", "data"}, "text files to token shards, split into training and validation"},
       {"train",
        {"model", "data", "train", "distill", "quantize", "parallel"},
        "pretrain, fine-tune, distil (with distill) or train for a grid (with quantize)"},
       {"capture",
        {"model", "data", "capture", "parallel"},
        "what a model says of every token of data.train, kept for students to learn from"},
       {"quantize",
        {"model", "data", "quantize", "post_training", "export"},
        "put a model's weights on grids, without training"},
       {"export", {"model", "data", "export"}, "a file for other software"},
       {"generate", {"model", "generate"}, "text from a model"},
       {"report", {"report"}, "a table of what earlier stages measured"}});
  return table;
}

std::vector<std::string> all_sections() {
  return {"model",    "tokenizer",     "prepare",  "data",   "train",    "distill", "capture",
          "quantize", "post_training", "parallel", "export", "generate", "report"};
}

void Stage::describe(Section& s) {
  s.field("name", name, "names its directory in the run's, and stage:NAME", name_rule());
  s.field("kind", kind, "what it does", one_of(stage_kinds().names()));
  if (const StageKind* row = stage_kinds().find(kind)) describe(s, row->sections);
}

void Stage::describe(Section& s, const std::vector<std::string>& sections) {
  for (const std::string& section : sections) {
    if (section == "model") s.section("model", model, "the model: a new one, or one to start from");
    if (section == "tokenizer") s.section("tokenizer", tokenizer, "a vocabulary of byte pairs");
    if (section == "prepare") s.section("prepare", prepare, "how text becomes token shards");
    if (section == "data")
      s.section("data", data, "what is trained and evaluated on, and the shape of a batch");
    if (section == "train") s.section("train", train, "how long and how");
    if (section == "distill")
      s.optional("distill", distill, "learn from a teacher; without it: cross-entropy");
    if (section == "quantize") s.optional("quantize", quantize, "the grids that weights live on");
    if (section == "capture") s.section("capture", capture, "what is kept of a teacher's distributions");
    if (section == "post_training")
      s.section("post_training", post_training, "how a quantize stage finds the codes");
    if (section == "parallel") s.section("parallel", parallel, "how many ranks share the work");
    if (section == "export") s.section("export", exporting, "the file to write");
    if (section == "generate") s.section("generate", generate, "what to continue, and how to draw");
    if (section == "report") s.section("report", report, "the table");
  }
}

std::string Stage::init_source() const {
  if (!model.init) return "";
  if (model.init->from != "teacher") return model.init->from;
  return distill ? distill->all_teachers().front().model : "";
}

const std::vector<std::string>& Stage::text(const RunOptions& run) const {
  return kind == "tokenizer" || prepare.text.empty() ? run.text : prepare.text;
}

const Stage* Recipe::find(const std::string& stage) const {
  const auto found =
      std::find_if(stages.begin(), stages.end(), [&](const Stage& s) { return s.name == stage; });
  return found == stages.end() ? nullptr : &*found;
}

void Recipe::describe(Section& s) {
  s.section("run", run, "the run as a whole");
  s.optional("claim", claim, kClaim);
  s.list("stages", stages, "what it does, in order");
}

std::optional<std::string> stage_of(const std::string& reference) { return after(reference, "stage:"); }
std::optional<std::string> preset_of(const std::string& reference) { return after(reference, "preset:"); }

bool reads_training_text(const Stage& stage) {
  return stage.kind == "train" || stage.kind == "capture" ||
         (stage.kind == "quantize" && stage.post_training.calibrated());
}

std::vector<std::string> inputs_of(const Stage& stage) {
  const auto& takes = stage_kinds().at(stage.kind).sections;
  const auto has = [&](const char* section) {
    return std::find(takes.begin(), takes.end(), section) != takes.end();
  };
  std::vector<std::string> references;
  if (has("prepare")) references.push_back(stage.prepare.tokenizer);
  if (has("model")) references.push_back(stage.model.from);
  if (has("model")) references.push_back(stage.init_source());
  if (reads_training_text(stage))
    for (const SourceOptions& source : stage.data.sources()) references.push_back(source.train);
  if (has("data") && stage.kind != "prepare" && stage.kind != "capture")
    references.push_back(stage.data.validation);
  if (has("distill") && stage.distill)
    for (const TeacherOptions& teacher : stage.distill->all_teachers()) {
      references.push_back(teacher.model);
      references.insert(references.end(), teacher.cache.begin(), teacher.cache.end());
    }
  std::vector<std::string> out;
  const auto add = [&](const std::string& name) {
    if (std::find(out.begin(), out.end(), name) == out.end()) out.push_back(name);
  };
  for (const std::string& reference : references)
    if (const auto name = stage_of(reference)) add(*name);
  if (has("report"))
    for (const std::string& name : stage.report.stages) add(name);
  return out;
}

std::vector<std::string> needed_for(const Recipe& recipe, const std::string& kind) {
  std::vector<std::string> out;
  for (auto stage = recipe.stages.rbegin(); stage != recipe.stages.rend(); ++stage) {  // inputs come earlier
    if (stage->kind != kind && std::find(out.begin(), out.end(), stage->name) == out.end()) continue;
    out.push_back(stage->name);
    for (const std::string& input : inputs_of(*stage)) out.push_back(input);
  }
  std::vector<std::string> in_order;
  for (const Stage& stage : recipe.stages)
    if (std::find(out.begin(), out.end(), stage.name) != out.end()) in_order.push_back(stage.name);
  return in_order;
}

void RecipeFile::describe(Section& s) {
  s.field("base", base,
          "a recipe to start from: a path beside this file, or a shipped recipe's name; one level");
  s.section("run", run, "the run as a whole");
  s.optional("claim", claim, kClaim);
  defaults.describe(s, all_sections());
  struct Header {
    std::string name, kind = "train";
    void describe(Section& s) {
      s.field("name", name, "names its directory in the run's, and stage:NAME", name_rule());
      s.field("kind", kind, "what it does; the sections that it takes are written beside it",
              one_of(stage_kinds().names()));
    }
  };
  std::vector<Header> headers(stages.size());
  s.list("stages", headers, "what the run does, in order; without it: one stage that trains");
}

}  // namespace retort::recipes
