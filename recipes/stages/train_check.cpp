#include "recipes/stages/train_check.h"

#include <algorithm>
#include <array>
#include <limits>

#include "artifacts/export_model.h"
#include "artifacts/model_shape.h"
#include "core/nearest.h"
#include "distill/capture.h"
#include "distill/loss.h"
#include "distill/objective.h"
#include "formats/untrusted.h"
#include "models/family.h"
#include "models/peft_folder.h"
#include "quantize/quantize_map.h"
#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/inputs.h"
#include "recipes/model_options.h"
#include "recipes/preference_options.h"
#include "recipes/stages/described_tasks.h"
#include "recipes/stages/initial_model.h"
#include "recipes/stages/rows.h"
#include "recipes/stages/watch.h"
#include "train/owners.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

// Every source has a teacher.
void check_weights(StageCheck& check, const std::vector<MixedTeacher>& teachers) {
  std::vector<double> sums(check.stage.get<DataOptions>().sources().size());
  for (const MixedTeacher& one : teachers) {
    if (one.teacher.kind == "cached")
      check.add("distill.teachers.kind",
                "several teachers are live or self: a cache holds no whole distribution");
    if (!one.source_weights.empty() && one.source_weights.size() != sums.size())
      return check.add({"distill.teachers.source_weights", "data.mixture"},
                       fmt::format("must have a weight for each of {} source(s), got {}", sums.size(),
                                   one.source_weights.size()));
    for (size_t i = 0; i < sums.size(); ++i)
      sums[i] += one.source_weights.empty() ? one.weight : one.source_weights[i];
  }
  const bool negative = std::any_of(teachers.begin(), teachers.end(), [](const MixedTeacher& one) {
    return std::any_of(one.source_weights.begin(), one.source_weights.end(), [](double w) { return w < 0; });
  });
  if (negative) check.add("distill.teachers.source_weights", "must be >= 0");
  if (std::any_of(sums.begin(), sums.end(), [](double sum) { return sum <= 0; }))
    check.add("distill.teachers.weight", "must be > 0 in every source for one of the teachers at least");
}

void check_live(StageCheck& check, const TeacherOptions& teacher, const std::string& key, bool needed) {
  if (needed && teacher.model.empty()) check.add((key + "model").c_str(), "must name the teacher, got none");
  if (const auto shape = spec_of(check.recipe, teacher.model))
    check.check_vocabulary(*shape, {key + "model"});
}

void check_self(StageCheck& check, const TeacherOptions& teacher, const std::string& key) {
  if (!teacher.model.empty())
    check.add((key + "model").c_str(), "is what the stage begins with, for kind self; leave it out");
  const auto& grids = check.stage.get<QuantizeSection>();
  if (!grids || grids->from_step > 0)
    check.add(
        {key + "kind", "quantize.from_step"},
        "self needs quantize with from_step 0: until then student and teacher are the same; train in full "
        "precision in a stage before");
}

// What a cache's labels are, or will be; nothing where that is not known yet.
std::optional<distill::SignalKind> labels_of(const Recipe& recipe, const std::string& cache) {
  if (stage_of(cache)) {
    const Stage* made = recipe.maker_of(cache);
    const auto* capture = made != nullptr ? made->find<distill::CaptureOptions>() : nullptr;
    if (capture == nullptr) return std::nullopt;
    return distill::SignalKind{capture->kind, capture->size(), capture->temperature};
  }
  try {
    const distill::TeacherCache there{Path(cache)};
    return distill::SignalKind{there.facts().kind, there.facts().size, there.facts().temperature};
  } catch (const Error&) {
    return std::nullopt;  // missing_files() or opening it says why
  }
}

// A capture stage of this recipe can be judged before it has run.
void check_cached(StageCheck& check, const TeacherOptions& teacher, const std::string& key) {
  const std::vector<SourceOptions> sources = check.stage.get<DataOptions>().sources();
  if (teacher.cache.size() != sources.size())
    check.add((key + "cache").c_str(), fmt::format("must name one cache for each of {} source(s), got {}",
                                                   sources.size(), teacher.cache.size()));
  for (const std::string& cache : teacher.cache) {
    const Stage* made = check.recipe.maker_of(cache);
    if (made == nullptr || kind_of(*made).makes != Thing::kCache) continue;
    const std::string &text = made->get<DataOptions>().train, &model = made->get<ModelOptions>().from;
    if (std::none_of(sources.begin(), sources.end(), [&](auto& source) { return source.train == text; }))
      check.add({"data.train", key + "cache"},
                fmt::format("must be {}, the text that stage {} captures, got {}", text, made->name,
                            sources.front().train));
    if (!teacher.model.empty() && made->get<distill::CaptureOptions>().server)
      check.add(
          {key + "model", key + "cache"},
          fmt::format("cannot be checked: stage {} captures the model of a server, whose weights nobody "
                      "has seen; leave it out",
                      made->name));
    else if (!teacher.model.empty() && teacher.model != model)
      check.add({key + "model", key + "cache"},
                fmt::format("must be {}, the model that stage {} captures, got {}", model, made->name,
                            teacher.model));
  }
}

// Its ids are the text's, or the bytes that the bridge goes to.
void check_teacher_reads(StageCheck& check, const TeacherOptions& teacher, const std::string& key) {
  if (teacher.kind == "self") return;
  if (teacher.bridge == "none")
    return check.check_reads({key + "model", "data.train"}, teacher.model,
                             teacher.kind == "live" ? "; a teacher with bridge: bytes may" : "");
  const auto bytes = data::make_byte_tokenizer();
  for (const Input& source : training_inputs(check.stage)) {
    const KnownTokenizer made = tokenizer_of_shards(check.recipe, source);
    if (differ(made, {bytes->name(), bytes->fingerprint()}))
      check.add({key + "bridge", source.key},
                fmt::format("bytes needs a text of the tokenizer bytes, got {}, which is made with {}",
                            source.address, made.name));
  }
}

// What the stage's teacher can show, as far as it is known.
struct Shown {
  std::optional<distill::SignalKind> kind = distill::SignalKind{};
  std::optional<distill::LayerShape> layers = distill::LayerShape{};
  int64_t context = std::numeric_limits<int64_t>::max();
};

Shown shown_by_teachers(StageCheck& check, const DistillOptions& d) {
  if (!d.teachers.empty() || d.teacher.bridge != "none") return {};  // distributions alone
  if (d.teacher.kind != "cached") {
    const auto spec = d.teacher.kind == "self" ? spec_of(check.recipe, check.stage)
                                               : spec_of(check.recipe, d.teacher.model);
    if (!spec) return {.layers = std::nullopt};
    return {.layers = distill::layer_shape(*spec), .context = spec->context};
  }
  std::vector<distill::SignalKind> known;
  for (const std::string& cache : d.teacher.cache)
    if (const auto labels = labels_of(check.recipe, cache)) known.push_back(*labels);
  if (std::any_of(known.begin(), known.end(), [&](const auto& one) { return one != known.front(); }))
    check.add("distill.teacher.cache", "must be caches of one kind, number of labels and temperature");
  return {.kind = known.empty() ? std::nullopt : std::optional(known.front())};
}

// Tokens of the longest row that may be learned from: given ones, and where the student answers a prompt and its
// answer, at most the student's context. A prompt of unknown length (0) has one token at least.
int64_t longest_row(const Stage& stage, const std::optional<models::DecoderSpec>& student) {
  const int64_t given = stage.get<DataOptions>().sequence;
  const auto& on_policy = stage.get<DistillSection>()->on_policy;
  if (!on_policy || on_policy->share == 0) return given;
  const int64_t context = student ? student->context : given,
                prompt = std::max<int64_t>(1, on_policy->prompt);
  const int64_t answered = prompt + std::clamp<int64_t>(context - prompt, 0, on_policy->tokens);
  return on_policy->share < 1 ? std::max(given, answered) : answered;
}

std::string row_misfit(const Stage& stage, const std::optional<models::DecoderSpec>& student,
                       int64_t context) {
  const int64_t tokens = longest_row(stage, student);
  const std::string misfit = distill::row_misfit(context, tokens);
  const bool answered = !misfit.empty() && tokens != stage.get<DataOptions>().sequence;
  return answered ? misfit + " (on_policy.prompt and on_policy.tokens)" : misfit;
}

// What making the loss would say, and the first batch; "" when nothing, or not known yet.
std::string loss_misfit(StageCheck& check, const distill::LossOptions& loss, const Shown& shown) {
  const distill::LossSpec& row = distill::losses().at(loss.fn);
  if (row.check_hidden == nullptr) return shown.kind ? distill::signal_misfit(loss, *shown.kind, 0) : "";
  if (!shown.layers) return "";
  std::string misfit = distill::signal_misfit(loss, {}, shown.layers->count);
  const auto student = spec_of(check.recipe, check.stage);
  if (misfit.empty()) misfit = row_misfit(check.stage, student, shown.context);
  if (!misfit.empty() || !student) return misfit;
  try {
    row.check_hidden(loss, distill::layer_shape(*student), *shown.layers);
  } catch (const ConfigError& error) {
    misfit = error.what();
    for (const std::string_view before : {"distill.losses.", "[distill] "})
      if (misfit.starts_with(before)) misfit.erase(0, before.size());
  }
  return misfit;
}

void check_loss(StageCheck& check, size_t number, const distill::LossOptions& loss, const Shown& shown) {
  const auto add = [&](const std::string& why) {
    check.add({"distill.losses", "distill.teacher"}, fmt::format("loss {}: {}", number, why));
  };
  if (loss.fn.empty())
    check.add("distill.losses", fmt::format("loss {} must name its fn, one of {}", number,
                                            fmt::join(distill::losses().names(), ", ")));
  if (distill::losses().find(loss.fn) == nullptr) return;
  if (const std::string why = loss_misfit(check, loss, shown); !why.empty()) add(why);
  if (!loss.schedule) return;
  try {
    loss.schedule->check();
  } catch (const ConfigError& error) {
    add(error.what());
  }
}

void check_on_policy(StageCheck& check, bool needs_teacher) {
  const distill::OnPolicyOptions& on_policy = *check.stage.get<DistillSection>()->on_policy;
  if (!needs_teacher)
    check.add({"distill.on_policy", "distill.losses"},
              "needs a loss with a teacher, which says what answers are worth");
  check.check_given("distill.on_policy.prompt", on_policy.prompt, spec_of(check.recipe, check.stage));
}

// A schedule goes from one weight to the other, so that a loss's first step and its last tell whether it ever weighs.
void check_weighs(StageCheck& check, const std::vector<distill::LossOptions>& losses) {
  const auto& train = check.stage.get<train::TrainOptions>();
  const auto weighs = [&](int64_t last) {
    return std::any_of(losses.begin(), losses.end(), [&](const distill::LossOptions& loss) {
      return loss.weight > 0 || loss.weight_at(last) > 0;
    });
  };
  if (losses.empty()) return check.add("distill.losses", "must name at least one loss, got none");
  if (!weighs(std::numeric_limits<int64_t>::max()))
    return check.add("distill.losses", "must have a weight > 0 in one loss at least, or nothing is learned");
  if (train.epochs > 0 || weighs(train.steps - 1)) return;  // how many steps epochs are follows from the text
  check.add(
      {"distill.losses", "train.steps"},
      fmt::format("must have a weight > 0 in one loss at least within train.steps {}, or nothing is learned: "
                  "no schedule has begun by then",
                  train.steps));
}

void check_distill(StageCheck& check) {
  const DistillOptions& d = *check.stage.get<DistillSection>();
  check_weighs(check, d.losses);
  const Shown shown = shown_by_teachers(check, d);
  for (size_t i = 0; i < d.losses.size(); ++i) check_loss(check, i + 1, d.losses[i], shown);
  const bool needs_teacher = std::any_of(d.losses.begin(), d.losses.end(), [](const distill::LossOptions& l) {
    const distill::LossSpec* row = distill::losses().find(l.fn);
    return row != nullptr && row->needs_teacher();
  });
  if (!d.teachers.empty() && !d.teacher.model.empty())
    check.add("distill.teachers", "comes instead of distill.teacher, which is set too");
  const std::string key = d.teachers.empty() ? "distill.teacher." : "distill.teachers.";
  if (!d.teachers.empty()) check_weights(check, d.teachers);
  for (const TeacherOptions& teacher : d.all_teachers()) {
    if (teacher.kind != "cached" && !teacher.cache.empty())
      check.add((key + "cache").c_str(), fmt::format("is for kind cached, got kind {}", teacher.kind));
    if (teacher.kind != "live" && teacher.bridge != "none")
      check.add((key + "bridge").c_str(), fmt::format("is for kind live, got kind {}", teacher.kind));
    if (teacher.kind == "live") check_live(check, teacher, key, needs_teacher);
    if (teacher.kind == "self") check_self(check, teacher, key);
    if (teacher.kind == "cached") check_cached(check, teacher, key);
    if (needs_teacher) check_teacher_reads(check, teacher, key);
    if (d.on_policy && (teacher.kind == "cached" || teacher.bridge != "none"))
      check.add({"distill.on_policy", key + (teacher.kind == "cached" ? "kind" : "bridge")},
                "needs a teacher that reads the student's own answers: a live one of its tokenizer, or self");
  }
  if (d.on_policy) check_on_policy(check, needs_teacher);
}

// Rows hold one answer each, and what is compared is in one micro-batch.
void check_preference(StageCheck& check) {
  const distill::PreferenceOptions& preference = *check.stage.get<PreferenceSection>();
  const auto& data = check.stage.get<DataOptions>();
  const auto* loss = distill::preference_losses().find(preference.loss);
  if (loss == nullptr)
    check.add("preference.loss", fmt::format("must name the loss, one of {}",
                                             fmt::join(distill::preference_losses().names(), ", ")));
  if (check.stage.get<DistillSection>()) check.add({"preference", "distill"}, "excludes distill");
  if (data.packing != DataOptions().packing)
    check.add({"data.packing", "preference"}, "is not for preference: a row holds one answer");
  if (data.long_documents != DataOptions().long_documents)
    check.add({"data.long_documents", "preference"}, "is not for preference: long answers are cut");
  if (data.isolate_documents)
    check.add({"data.isolate_documents", "preference"}, "is not for preference: a row holds one answer");
  if (loss == nullptr) return;
  if (loss->takes("desirable_weight") && preference.desirable_weight == 0 &&
      preference.undesirable_weight == 0)
    check.add({"preference.desirable_weight", "preference.undesirable_weight"},
              "must be > 0 where undesirable_weight is 0, or nothing is learned");
  if (loss->paired() && data.micro_batch % 2 != 0)
    check.add({"data.micro_batch", "preference.loss"},
              fmt::format("must be even, since a pair is two rows, got {}", data.micro_batch));
  if (loss->baseline != nullptr && data.micro_batch < 2)
    check.add({"data.micro_batch", "preference.loss"},
              fmt::format("must be at least 2 for {}: a single answer has no other prompt, got {}",
                          loss->name, data.micro_batch));
}

void check_batch(StageCheck& check) {
  const auto& data = check.stage.get<DataOptions>();
  const int64_t ranks = check.ranks > 0 ? check.ranks : check.stage.get<ParallelOptions>().ranks;
  const auto product = formats::checked_product(std::array{data.sequence, data.micro_batch, ranks});
  const auto unit = static_cast<int64_t>(product.value_or(0));
  if (unit > 0 && data.batch_tokens % unit == 0) return;
  check.add({"data.batch_tokens", "data.sequence", "data.micro_batch", "parallel.ranks"},
            fmt::format("must be a multiple of sequence * micro_batch * ranks = {} * {} * {} = {}, got {}",
                        data.sequence, data.micro_batch, ranks,
                        product ? std::to_string(unit) : "more than 2^63", data.batch_tokens));
}

void check_steps(StageCheck& check) {
  const auto& train = check.stage.get<train::TrainOptions>();
  const auto& grids = check.stage.get<QuantizeSection>();
  if ((train.keep_best || train.patience > 0) && !watch_decides(check.stage) &&
      check.stage.get<DataOptions>().validation.empty())
    check.add({train.keep_best ? "train.keep_best" : "train.patience", "data.validation"},
              "needs a validation text");
  if (train.patience > 0 && train.validate_every == 0)
    check.add({"train.patience", "train.validate_every"},
              "needs validations before the end: set validate_every");
  if (const auto& guard = train.guard; guard && guard->rollbacks > 0) {
    const int64_t within = (train.keep_checkpoints - 1) * train.checkpoint_every;
    if (guard->margin + train.max_skipped > within)
      check.add(
          {"train.guard.margin", "train.max_skipped", "train.keep_checkpoints", "train.checkpoint_every"},
          fmt::format("with max_skipped must be at most (keep_checkpoints - 1) * checkpoint_every = {}, so "
                      "that there is a checkpoint to go back to, got {} + {}",
                      within, guard->margin, train.max_skipped));
  }
  if (train.epochs > 0) return;  // how many steps they are follows from the text
  if (train.schedule.warmup > train.steps)
    check.add({"train.schedule.warmup", "train.steps"},
              fmt::format("must be at most train.steps {}, got {}", train.steps, train.schedule.warmup));
  if (grids && grids->from_step >= train.steps)
    check.add({"quantize.from_step", "train.steps"},
              fmt::format("must be below train.steps {}, got {}", train.steps, grids->from_step));
}

// Tasks that can be read, prompts that can be continued, and a best that is one of their figures.
void check_watch(StageCheck& check) {
  const WatchOptions& watch = *check.stage.get<WatchSection>();
  const auto& train = check.stage.get<train::TrainOptions>();
  if (watch.tasks.empty() && watch.prompts.empty())
    check.add("watch.tasks", "must name a task, or watch.prompts a text to complete");
  for (const std::string& name : watch.tasks) try {
      const std::string missing = missing_file(read_task(name, watch.data), "watch.data");
      const bool an_input = watch_decides(check.stage);  // whose missing files are told
      if (!missing.empty() && !an_input) check.add({"watch.data", "watch.tasks"}, missing);
    } catch (const Error& error) {
      check.add("watch.tasks", error.what());
    }
  if (std::string misfit = eval::stop_misfit(watch.sampling.stop); !misfit.empty())
    check.add("watch.stop", std::move(misfit));
  check.check_prompts("watch.prompts", watch.prompts, "stage:" + check.stage.name,
                      spec_of(check.recipe, check.stage));
  if (watch.every > 0 && train.validate_every == 0)
    check.add({"watch.every", "train.validate_every"},
              fmt::format("needs validations before the end: set train.validate_every, got {}", watch.every));
  else if (watch.every > 0 && watch.every % train.validate_every != 0)
    check.add({"watch.every", "train.validate_every"},
              fmt::format("must be a multiple of train.validate_every {}, got {}", train.validate_every,
                          watch.every));
  if (watch.best.empty()) return;
  const std::vector<std::string> known = watched_figures(watch);
  if (known.empty())
    check.add({"watch.best", "watch.tasks"},
              fmt::format("must be a figure of watch.tasks, which have none, got \"{}\"", watch.best));
  else if (std::find(known.begin(), known.end(), watch.best) == known.end())
    check.add("watch.best", fmt::format("must be a figure of watch.tasks, one of {}, got \"{}\"{}",
                                        fmt::join(known, ", "), watch.best, did_you_mean(watch.best, known)));
  if (!train.keep_best && train.patience == 0)
    check.add({"watch.best", "train.keep_best"},
              "is for train.keep_best or train.patience, and neither is set");
}

void check_init(StageCheck& check, const models::DecoderSpec& student) {
  const std::string source = init_source(check.stage);
  if (source.empty())
    return check.add("model.init.from", "teacher means distill.teacher.model, which names none");
  const auto teacher = init_spec(check.recipe, check.stage);
  if (!teacher) return;
  if (student.patch || teacher->patch)
    return check.add({"model.init", "model.family"}, "a byte-patch model is cut from none, and none from it");
  try {
    distill::check_start(student, *teacher, *check.stage.get<ModelOptions>().init);
  } catch (const ConfigError& error) {
    check.add_key_error(error, "model.init");
  }
}

// Noise on embeddings.
void check_noise(StageCheck& check) {
  if (check.stage.get<train::TrainOptions>().neftune == 0.0) return;
  if (check.stage.get<PreferenceSection>())
    check.add({"train.neftune", "preference"},
              "is not for preference: what is compared with the reference would not be the model");
  const auto& distill = check.stage.get<DistillSection>();
  if (distill && distill->on_policy)
    check.add(
        {"train.neftune", "distill.on_policy"},
        "is not for on_policy: the answers would be another model's than the one that learns from them");
  const auto spec = spec_of(check.recipe, check.stage);
  if (spec && spec->patch)
    check.add({"train.neftune", "model.family", "model.from"},
              fmt::format("is not for byte-patch models, got {}", spec->family));
}

void check_model(StageCheck& check) {
  const auto& model = check.stage.get<ModelOptions>();
  const auto spec = spec_of(check.recipe, check.stage);
  if (!spec) return;
  try {
    if (model.from.empty()) spec->validate();
  } catch (const ConfigError& error) {
    return check.add_key_error(error, "model.family");
  }
  check.model_spec();
  check.check_vocabulary(*spec, {"model.vocabulary", "model.from"});
  if (model.init) check_init(check, *spec);
  if (const auto& grids = check.stage.get<QuantizeSection>()) check.check_grids(*spec, *grids);
}

// One tokenizer for all texts and for what is begun with.
void check_tokenizers(StageCheck& check) {
  KnownTokenizer first;
  std::string key;
  for (const Input& input : inputs_of(check.recipe, check.stage)) {
    if (input.thing != Thing::kShards) continue;
    const KnownTokenizer made = tokenizer_of_shards(check.recipe, input);
    if (std::string misfit = tokenizers_misfit(input.address, made, key, first); !misfit.empty())
      check.add({input.key, key}, std::move(misfit));
    if (first.name.empty()) first = made, key = input.key;
  }
  const auto& model = check.stage.get<ModelOptions>();
  if (!model.from.empty()) check.check_reads({"model.from", "data.train"}, model.from);
  if (model.init) check.check_reads({"model.init.from", "data.train"}, init_source(check.stage));
}

// Ranks that divide working weights read them in the same order, group by group.
void check_shard(StageCheck& check) {
  const auto& parallel = check.stage.get<ParallelOptions>();
  const int64_t ranks = check.ranks > 0 ? check.ranks : parallel.ranks;
  if (ranks % parallel.replicas != 0)
    check.add({"parallel.replicas", "parallel.ranks"},
              fmt::format("must divide the {} rank(s), got {}", ranks, parallel.replicas));
  if (parallel.replicas > 1 && train::division(parallel.shard) == train::Divided::kNothing)
    check.add({"parallel.replicas", "parallel.shard"}, "is for ranks that divide something: set shard");
  if (train::division(parallel.shard) != train::Divided::kParameters) return;
  const auto& distill = check.stage.get<DistillSection>();
  if (distill && distill->on_policy)
    check.add({"parallel.shard", "distill.on_policy"},
              "parameters excludes on_policy: ranks sample answers of different lengths; take gradients");
  const auto spec = spec_of(check.recipe, check.stage);
  if (spec && spec->patch)
    check.add({"parallel.shard", "model.family", "model.from"},
              fmt::format("parameters is not for byte-patch models, got {}; take gradients", spec->family));
}

// Those of a model that others are to go on; nothing where it has none, or they are not known yet.
AdapterSection brought_adapters(const Recipe& recipe, const std::string& address, size_t hops) {
  if (address.empty() || preset_of(address)) return std::nullopt;
  try {
    if (!stage_of(address)) return artifacts::model_adapters(address);
    const Stage* made = hops > 0 ? recipe.maker_of(address) : nullptr;
    if (made == nullptr) return std::nullopt;
    if (made->find<train::TrainOptions>() != nullptr) return made->get<AdapterSection>();
    const auto* file = made->find<artifacts::ExportOptions>();
    if (file == nullptr || file->format != "peft") return std::nullopt;  // merged
    const std::string& from = made->get<ModelOptions>().from;
    const auto own = brought_adapters(recipe, from, hops - 1);
    const auto spec = spec_of(recipe, from);
    if (!own || !spec) return std::nullopt;
    return models::kept_by_peft(*models::adapt(models::make_model(*spec, at::kMeta), *own, 0), *own);
  } catch (const Error&) {
    return std::nullopt;  // missing_files() says why, or the stage that has them
  }
}

// Over a model on disk, which checkpoints name instead of holding it.
void check_adapters(StageCheck& check) {
  const auto& from = check.stage.get<ModelOptions>().from;
  if (from.empty() || preset_of(from))
    check.add({"model.from", "adapters"},
              fmt::format("must name a model on disk for adapters, got \"{}\"", from));
  if (check.stage.get<QuantizeSection>())
    check.add({"quantize", "adapters"},
              "excludes adapters: a weight merged with its adapter lies on no grid; train the merged model, "
              "stage:NAME, for its grid");
  if (const auto own = brought_adapters(check.recipe, from, check.recipe.stages.size())) {
    const auto made = stage_of(from);
    if (std::string misfit =
            adapters_misfit(*own, *check.stage.get<AdapterSection>(), made ? "stage " + *made : from);
        !misfit.empty())
      check.add({"adapters", "model.from"}, std::move(misfit));
  }
  const auto spec = spec_of(check.recipe, check.stage);
  if (!spec || from.empty()) return;
  try {
    const models::AdapterOptions& options = *check.stage.get<AdapterSection>();
    models::adapt(models::make_model(*spec, at::kMeta), options, 0);
    models::check_choices(*models::make_model(*spec, at::kMeta), options);
  } catch (const ConfigError& error) {
    check.add_key_error(error, "model.from");
  }
}

}  // namespace

void check_train_stage(StageCheck& check) {
  check.demand_training();
  check.check_limit();
  check_batch(check);
  check_steps(check);
  if (check.stage.get<WatchSection>()) check_watch(check);
  if (check.stage.get<DistillSection>()) check_distill(check);
  if (check.stage.get<PreferenceSection>()) check_preference(check);
  check_model(check);
  check_tokenizers(check);
  check_noise(check);
  check_shard(check);
  if (check.stage.get<AdapterSection>()) check_adapters(check);
}

}  // namespace retort::recipes
