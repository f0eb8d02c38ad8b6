#include "recipes/validate.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <set>

#include "core/error.h"
#include "data/tokenizers/tokenizer.h"
#include "formats/ggml_blocks.h"
#include "models/family.h"
#include "quantize/hf_packing.h"
#include "recipes/presets.h"

namespace retort::recipes {
namespace {

class Validator {
 public:
  Validator(const Recipe& recipe, int64_t ranks) : recipe_(recipe), ranks_(ranks) {}

  std::vector<Finding> run() {
    if (recipe_.stages.empty()) add("stages", "must name at least one stage, got none");
    std::set<std::string> names;
    for (const Stage& stage : recipe_.stages) {
      stage_ = &stage;
      if (!names.insert(stage.name).second)
        add("name", fmt::format("two stages are called \"{}\"", stage.name));
      check_references();
      if (stage.kind == "tokenizer" || stage.kind == "prepare") check_text();
      if (stage.kind == "tokenizer") check_tokenizer();
      if (stage.kind == "train") check_train();
      if (stage.kind == "capture") check_capture();
      if (stage.kind == "quantize") check_quantize();
      if (stage.kind == "export") check_export();
      if (stage.kind == "generate") demand_model();
      if (takes(stage, "model")) check_model();
    }
    if (recipe_.claim)
      for (Finding& finding : validate_claim(recipe_)) findings_.push_back(std::move(finding));
    return std::move(findings_);
  }

 private:
  void add(std::vector<std::string> keys, std::string text) {
    findings_.push_back({stage_ != nullptr ? stage_->name : "", std::move(keys), std::move(text)});
  }
  void add(const char* key, std::string text) { add(std::vector<std::string>{key}, std::move(text)); }

  // The earlier stages, of these kinds.
  std::vector<std::string> earlier(const std::vector<std::string>& kinds) const {
    std::vector<std::string> names;
    for (const Stage& stage : recipe_.stages) {
      if (&stage == stage_) break;
      if (std::find(kinds.begin(), kinds.end(), stage.kind) != kinds.end()) names.push_back(stage.name);
    }
    return names;
  }

  void check_references() {
    for (const Reference& reference : references_of(*stage_)) {
      if (const auto name = stage_of(reference.value))
        check_stage_name(reference.key, *name, reference.kinds);
      if (const auto preset = preset_of(reference.value))
        if (const auto known = preset_names(); std::find(known.begin(), known.end(), *preset) == known.end())
          add(reference.key.c_str(), fmt::format("unknown preset \"{}\"{}; known: {}", *preset,
                                                 did_you_mean(*preset, known), fmt::join(known, ", ")));
    }
    if (stage_->kind != "report") return;
    for (const std::string& name : stage_->report.stages)
      check_stage_name("report.stages", name, {"prepare", "train", "quantize", "export", "generate"});
  }

  void check_stage_name(const std::string& key, const std::string& name,
                        const std::vector<std::string>& kinds) {
    const std::vector<std::string> known = earlier(kinds);
    if (std::find(known.begin(), known.end(), name) != known.end()) return;
    std::string why = fmt::format("no earlier stage \"{}\"{}", name, did_you_mean(name, known));
    if (const Stage* other = recipe_.find(name)) {
      const bool kind_fits = std::find(kinds.begin(), kinds.end(), other->kind) != kinds.end();
      why = kind_fits ? fmt::format("stage \"{}\" must come earlier", name)
                      : fmt::format("stage \"{}\" must be of kind {}, got {}", name, fmt::join(kinds, ", "),
                                    other->kind);
    }
    add(key.c_str(), std::move(why));
  }

  // Tokens of a tokenizer that can be opened, or that a stage will make at most; `say` why it cannot.
  std::optional<int64_t> tokenizer_size(const std::string& address, bool say) {
    if (const auto name = stage_of(address)) {
      const Stage* stage = recipe_.find(*name);
      return stage != nullptr ? std::optional(stage->tokenizer.vocabulary) : std::nullopt;
    }
    try {
      return data::make_tokenizer(address)->vocabulary();
    } catch (const Error& error) {
      if (say) add("prepare.tokenizer", error.what());
      return std::nullopt;
    }
  }

  void check_text() {
    if (stage_->kind == "prepare") tokenizer_size(stage_->prepare.tokenizer, true);
    if (stage_->text(recipe_.run).empty()) add("run.text", "must name at least one text file, got none");
  }

  void check_tokenizer() {
    const data::BpeTrainingOptions& options = stage_->tokenizer;
    const auto least = 256 + static_cast<int64_t>(options.special.size());
    if (options.vocabulary < least)
      add({"tokenizer.vocabulary", "tokenizer.special"},
          fmt::format("must be at least {}, the bytes and the special tokens, got {}", least,
                      options.vocabulary));
    std::set<std::string> seen;
    for (const std::string& token : options.special)
      if (token.size() < 2 || !seen.insert(token).second)
        add("tokenizer.special", fmt::format("must be longer than a byte and named once, got \"{}\"", token));
  }

  void check_train() {
    const Stage& s = *stage_;
    check_sources();
    const int64_t ranks = ranks_ > 0 ? ranks_ : s.parallel.ranks;
    const int64_t unit = s.data.sequence * s.data.micro_batch * ranks;
    if (unit <= 0 || s.data.batch_tokens % unit != 0)
      add({"data.batch_tokens", "data.sequence", "data.micro_batch", "parallel.ranks"},
          fmt::format("must be a multiple of sequence * micro_batch * ranks = {} * {} * {} = {}, got {}",
                      s.data.sequence, s.data.micro_batch, ranks, unit, s.data.batch_tokens));
    if (s.train.schedule.warmup > s.train.steps)
      add({"train.schedule.warmup", "train.steps"},
          fmt::format("must be at most train.steps {}, got {}", s.train.steps, s.train.schedule.warmup));
    if (s.quantize && s.quantize->from_step >= s.train.steps)
      add({"quantize.from_step", "train.steps"},
          fmt::format("must be below train.steps {}, got {}", s.train.steps, s.quantize->from_step));
    if (s.distill) check_distill();
  }

  void check_sources() {
    const DataOptions& data = stage_->data;
    if (data.mixture.empty() && data.train.empty()) add("data.train", "must name token shards, got none");
    if (data.mixture.empty()) return;
    if (!data.train.empty())
      add({"data.mixture", "data.train"},
          fmt::format("excludes data.train, got \"{}\"; make it a source of the mixture", data.train));
    std::set<std::string> names;
    for (size_t i = 0; i < data.mixture.size(); ++i) {
      const std::string& name = data.mixture[i].train;
      if (name.empty()) add("data.mixture", fmt::format("source {} must name token shards, got none", i + 1));
      if (!name.empty() && !names.insert(name).second)
        add("data.mixture", fmt::format("\"{}\" stands twice; add the weights up", name));
    }
  }

  void check_distill() {
    const DistillOptions& d = *stage_->distill;
    if (d.losses.empty()) add("distill.losses", "must name at least one loss, got none");
    for (size_t i = 0; i < d.losses.size(); ++i) check_loss(i + 1, d.losses[i]);
    const bool needs_teacher =
        std::any_of(d.losses.begin(), d.losses.end(), [](const distill::LossOptions& l) {
          const distill::LossSpec* row = distill::losses().find(l.fn);
          return row != nullptr && row->needs_teacher();
        });
    if (!d.teachers.empty() && !d.teacher.model.empty())
      add("distill.teachers", "comes instead of distill.teacher, which is set too");
    const std::string key = d.teachers.empty() ? "distill.teacher." : "distill.teachers.";
    if (!d.teachers.empty()) check_weights(d.teachers);
    for (const TeacherOptions& teacher : d.all_teachers()) {
      if (teacher.kind != "cached" && !teacher.cache.empty())
        add((key + "cache").c_str(), fmt::format("is for kind cached, got kind {}", teacher.kind));
      if (teacher.kind != "live" && teacher.bridge != "none")
        add((key + "bridge").c_str(), fmt::format("is for kind live, got kind {}", teacher.kind));
      if (teacher.kind == "live") check_live(teacher, key, needs_teacher);
      if (teacher.kind == "self") check_self(teacher, key);
      if (teacher.kind == "cached") check_cached(teacher, key);
    }
  }

  // Every source has a teacher.
  void check_weights(const std::vector<MixedTeacher>& teachers) {
    std::vector<double> sums(stage_->data.sources().size());
    for (const MixedTeacher& one : teachers) {
      if (one.teacher.kind == "cached")
        add("distill.teachers.kind",
            "several teachers are live or self: a cache holds no whole distribution");
      if (!one.source_weights.empty() && one.source_weights.size() != sums.size())
        return add({"distill.teachers.source_weights", "data.mixture"},
                   fmt::format("must have a weight for each of {} source(s), got {}", sums.size(),
                               one.source_weights.size()));
      for (size_t i = 0; i < sums.size(); ++i)
        sums[i] += one.source_weights.empty() ? one.weight : one.source_weights[i];
    }
    const bool negative = std::any_of(teachers.begin(), teachers.end(), [](const MixedTeacher& one) {
      return std::any_of(one.source_weights.begin(), one.source_weights.end(),
                         [](double w) { return w < 0; });
    });
    if (negative) add("distill.teachers.source_weights", "must be >= 0");
    if (std::any_of(sums.begin(), sums.end(), [](double sum) { return sum <= 0; }))
      add("distill.teachers.weight", "must be > 0 in every source for one of the teachers at least");
  }

  void check_live(const TeacherOptions& teacher, const std::string& key, bool needed) {
    if (needed && teacher.model.empty()) add((key + "model").c_str(), "must name the teacher, got none");
    if (const auto shape = spec_of(recipe_, teacher.model)) check_vocabulary(*shape, {key + "model"});
  }

  void check_self(const TeacherOptions& teacher, const std::string& key) {
    if (!teacher.model.empty())
      add((key + "model").c_str(), "is what the stage begins with, for kind self; leave it out");
    if (!stage_->quantize || stage_->quantize->from_step > 0)
      add({key + "kind", "quantize.from_step"},
          "self needs quantize with from_step 0: until then student and teacher are the same; train in full "
          "precision in a stage before");
  }

  // A capture stage of this recipe can be judged before it has run.
  void check_cached(const TeacherOptions& teacher, const std::string& key) {
    const std::vector<SourceOptions> sources = stage_->data.sources();
    if (teacher.cache.size() != sources.size())
      add((key + "cache").c_str(), fmt::format("must name one cache for each of {} source(s), got {}",
                                               sources.size(), teacher.cache.size()));
    for (const std::string& cache : teacher.cache) {
      const auto name = stage_of(cache);
      const Stage* made = name ? recipe_.find(*name) : nullptr;
      if (made == nullptr || made->kind != "capture") continue;
      const std::string& text = made->data.train;
      if (std::none_of(sources.begin(), sources.end(), [&](auto& source) { return source.train == text; }))
        add({"data.train", key + "cache"}, fmt::format("must be {}, the text that stage {} captures, got {}",
                                                       text, made->name, sources.front().train));
      if (!teacher.model.empty() && teacher.model != made->model.from)
        add({key + "model", key + "cache"},
            fmt::format("must be {}, the model that stage {} captures, got {}", made->model.from, made->name,
                        teacher.model));
    }
  }

  void check_capture() {
    demand_model();
    if (!stage_->data.mixture.empty())
      add("data.mixture", "a capture reads data.train alone; give each source a stage of its own");
    else if (stage_->data.train.empty())
      add("data.train", "must name token shards, got none");
  }

  void check_loss(size_t number, const distill::LossOptions& loss) {
    if (loss.fn.empty())
      add("distill.losses", fmt::format("loss {} must name its fn, one of {}", number,
                                        fmt::join(distill::losses().names(), ", ")));
    if (!loss.schedule) return;
    try {
      loss.schedule->check();
    } catch (const ConfigError& error) {
      add("distill.losses", fmt::format("loss {}: {}", number, error.what()));
    }
  }

  void check_quantize() {
    demand_model();
    if (!stage_->quantize) return add("quantize", "a quantize stage needs its grids, got none");
    const DataOptions& data = stage_->data;
    if (stage_->post_training.calibrated() && data.mixture.empty() && data.train.empty())
      add({"data.train", "post_training.method"},
          fmt::format("must name token shards for method {} to read, got none",
                      stage_->post_training.method));
    if (stage_->exporting.format == "gguf" && stage_->exporting.type != "own")
      add("export.type",
          fmt::format("a quantize stage writes its own grids, got {}", stage_->exporting.type));
    check_method();
    check_file_holds_grids();
  }

  void check_method() {
    const quantize::QuantizeOptions& q = *stage_->quantize;
    for (const auto& [key, name] : {std::pair{"quantize.weights.grid", q.weights.grid},
                                    {"quantize.embedding.grid", q.embedding.grid},
                                    {"quantize.head.grid", q.head.grid}}) {
      if (name == "none") continue;
      const std::string misfit = quantize::method_misfit(stage_->post_training, quantize::grids().at(name),
                                                         key == std::string_view("quantize.weights.grid"));
      if (!misfit.empty()) add({key, "post_training.method", "post_training.clip_search"}, misfit);
    }
  }

  // Every grid must be one that the stage's file can hold.
  void check_file_holds_grids() {
    const std::string& format = stage_->exporting.format;
    const quantize::QuantizeOptions& q = *stage_->quantize;
    if (format == "hf") return;  // values
    if (format != "gguf") {
      if (q.weights.grid == "none") return add("quantize.weights.grid", "names no grid to pack");
      const std::string misfit = quantize::layout_misfit(format, quantize::grids().at(q.weights.grid));
      if (!misfit.empty()) add({"quantize.weights.grid", "export.format"}, misfit);
      return;
    }
    for (const auto& [key, name] : {std::pair{"quantize.weights.grid", q.weights.grid},
                                    {"quantize.embedding.grid", q.embedding.grid},
                                    {"quantize.head.grid", q.head.grid}})
      if (name != "none" && !quantize::grids().at(name).ggml)
        add({key, "export.format"},
            fmt::format("a GGUF cannot hold grid {}; export.format compressed-tensors can", name));
  }

  // The grids that the model was trained on leave in the file.
  void check_file_holds_trained_grids() {
    const auto name = stage_of(stage_->model.from);
    const Stage* source = name ? recipe_.find(*name) : nullptr;
    if (source == nullptr || source->kind != "train" || !source->quantize ||
        !source->quantize->active(source->train.steps - 1))
      return;
    const std::string &format = stage_->exporting.format, &weights = source->quantize->weights.grid;
    const auto refuse = [&](const std::string& why) {
      if (!why.empty()) add({"export.format", "model.from"}, fmt::format("{} (of stage {})", why, *name));
    };
    if (format == "gguf" && stage_->exporting.type == "own") {
      for (const std::string& grid : {weights, source->quantize->embedding.grid, source->quantize->head.grid})
        if (grid != "none" && !quantize::grids().at(grid).ggml)
          return refuse(fmt::format("a GGUF cannot hold grid {}; format compressed-tensors can", grid));
    } else if (format != "gguf" && format != "hf" && weights != "none") {
      refuse(quantize::layout_misfit(format, quantize::grids().at(weights)));
    }
  }

  void check_export() {
    check_file_holds_trained_grids();
    demand_model();
    const ExportOptions& e = stage_->exporting;
    const std::vector<std::string> plain = {"own", "same", "f32", "f16", "bf16"};
    for (const auto& [key, type] :
         {std::pair{"export.type", e.type}, {"export.embedding_type", e.embedding_type}})
      if (e.format != "gguf" && std::find(plain.begin(), plain.end(), type) == plain.end())
        add({key, "export.format"}, fmt::format("an HF folder holds f32, f16 or bf16, got {}", type));
    if (e.activations && e.format != "compressed-tensors")
      add({"export.activations", "export.format"},
          fmt::format("only compressed-tensors says so, got format {}", e.format));
    if (e.type == "own" && e.embedding_type != "same")
      add({"export.embedding_type", "export.type"}, "needs an export.type; type own brings its own grids");
    if (e.evaluate && stage_->data.validation.empty())
      add("data.validation", "must name token shards for export.evaluate, got none");
  }

  void demand_model() {
    if (stage_->model.from.empty())
      add("model.from",
          fmt::format("a stage of kind {} needs a MODEL to start from, got none", stage_->kind));
  }

  void check_model() {
    const auto spec = spec_of(recipe_, *stage_);
    if (!spec) return;
    if (stage_->model.from.empty() && stage_->kind == "train" && !check_spec(*spec)) return;
    if (takes(*stage_, "data") && stage_->kind != "prepare" && stage_->data.sequence > spec->context)
      add({"data.sequence", "model.context"}, fmt::format("must be at most the model's context {}, got {}",
                                                          spec->context, stage_->data.sequence));
    if (spec->patch && (stage_->kind == "quantize" || stage_->kind == "export"))
      add("model.from", fmt::format("a {} model is in no file of other software", spec->family));
    if (!spec->patch && takes(*stage_, "export") && stage_->exporting.format == "gguf") check_gguf(*spec);
    if (!spec->patch && stage_->kind == "export") check_export_types(*spec);
    check_vocabulary(*spec, {"model.vocabulary", "model.from"});
    if (stage_->model.init) check_init(*spec);
    if (stage_->quantize && takes(*stage_, "quantize")) check_grids(*spec);
  }

  // What the architecture cannot say in a GGUF is known before anything is trained for one.
  void check_gguf(const models::DecoderSpec& spec) {
    try {
      models::families().at(spec.family).gguf_metadata(spec);
    } catch (const ConfigError& error) {
      add("export.format", error.what());
    }
  }

  void check_export_types(models::DecoderSpec spec) {
    spec.lora_rank = 0;  // adapters are merged
    const auto shape = models::make_model(spec, at::kMeta);
    const std::string misfit = export_misfit(stage_->exporting, shape->parameters());
    if (!misfit.empty()) add({"export.type", "export.embedding_type", "model.width"}, misfit);
  }

  bool check_spec(const models::DecoderSpec& spec) {
    try {
      spec.validate();
      return true;
    } catch (const ConfigError& error) {
      add_key_error(error, "model.family");
      return false;
    }
  }

  // "model.heads must be ..."
  void add_key_error(const ConfigError& error, const char* also) {
    const std::string text = error.what();
    const size_t space = text.find(' ');
    add(std::vector<std::string>{text.substr(0, space), also}, text.substr(space + 1));
  }

  void check_init(const models::DecoderSpec& student) {
    const std::string source = stage_->init_source();
    if (source.empty())
      return add("model.init.from", "teacher means distill.teacher.model, which names none");
    const auto teacher = spec_of(recipe_, source);
    if (!teacher) return;
    if (student.patch || teacher->patch)
      return add({"model.init", "model.family"}, "a byte-patch model is cut from none, and none from it");
    try {
      distill::check_start(student, *teacher, *stage_->model.init);
    } catch (const ConfigError& error) {
      add_key_error(error, "model.init");
    }
  }

  // Of a model that reads the training text; what is beyond the tokenizer's is padding.
  void check_vocabulary(const models::DecoderSpec& spec, const std::vector<std::string>& keys) {
    if (stage_->kind != "train" && stage_->kind != "capture") return;
    for (const SourceOptions& source : stage_->data.sources()) check_vocabulary(spec, source.train, keys);
  }

  void check_vocabulary(const models::DecoderSpec& spec, const std::string& source,
                        const std::vector<std::string>& keys) {
    const auto name = stage_of(source);
    const Stage* shards = name ? recipe_.find(*name) : nullptr;
    if (shards == nullptr || shards->kind != "prepare") return;
    const auto needed = tokenizer_size(shards->prepare.tokenizer, false);
    if (needed && spec.vocabulary < *needed)
      add(keys, fmt::format("must be at least {}, the vocabulary of tokenizer \"{}\", got {}", *needed,
                            shards->prepare.tokenizer, spec.vocabulary));
  }

  void check_grids(const models::DecoderSpec& spec) {
    if (spec.lora_rank > 0)
      add({"quantize", "model.share.lora_rank"},
          "needs model.share.lora_rank 0: a weight merged with its adapter lies on no grid");
    try {
      const auto shape = models::make_model(spec, at::kMeta);
      const quantize::QuantizeMap map(*stage_->quantize, shape->parameters());
    } catch (const ConfigError& error) {
      std::string text = error.what();
      std::erase(text, '\n');  // one problem, one line
      add({"quantize", "model.width", "model.ffn_width", "model.head_dim", "model.heads"}, std::move(text));
    }
  }

  const Recipe& recipe_;
  int64_t ranks_;
  const Stage* stage_ = nullptr;
  std::vector<Finding> findings_;
};

std::optional<models::DecoderSpec> spec_behind(const Recipe& recipe, const std::string& reference,
                                               size_t hops) {
  if (const auto preset = preset_of(reference)) {
    const auto known = preset_names();
    if (std::find(known.begin(), known.end(), *preset) == known.end()) return std::nullopt;
    return preset_spec(*preset);
  }
  const auto name = stage_of(reference);
  const Stage* stage = name ? recipe.find(*name) : nullptr;
  if (stage == nullptr || hops == 0) return std::nullopt;
  if (!stage->model.from.empty()) return spec_behind(recipe, stage->model.from, hops - 1);
  return stage->kind == "train" ? std::optional(stage->model.spec()) : std::nullopt;
}

}  // namespace

std::optional<models::DecoderSpec> spec_of(const Recipe& recipe, const std::string& reference) {
  return spec_behind(recipe, reference, recipe.stages.size());  // as many hops as there are stages: no cycle
}

std::optional<models::DecoderSpec> spec_of(const Recipe& recipe, const Stage& stage) {
  return stage.model.from.empty() ? std::optional(stage.model.spec()) : spec_of(recipe, stage.model.from);
}

std::vector<Finding> validate(const Recipe& recipe, int64_t ranks) { return Validator(recipe, ranks).run(); }

std::string export_misfit(const ExportOptions& options, const models::Parameters& parameters) {
  if (options.format != "gguf" || options.type == "own") return "";
  for (const models::Parameter& p : parameters.unique()) {
    const bool table = p.role == models::Role::kEmbedding || p.role == models::Role::kHead;
    if (!table && p.role != models::Role::kMatrix) continue;
    const bool other = table && options.embedding_type != "same";
    const auto& type = formats::ggml_type_named(other ? options.embedding_type : options.type);
    const int64_t row = p.shape.back();
    if (row % type.block != 0)
      return fmt::format("{} has rows of {}, and {} wants a multiple of {}; {} takes them", p.name, row,
                         type.name, type.block, row % 32 == 0 ? "q8_0" : "f16");
  }
  return "";
}

}  // namespace retort::recipes
