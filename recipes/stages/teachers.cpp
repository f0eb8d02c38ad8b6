#include "recipes/stages/teachers.h"

#include <algorithm>

#include "artifacts/copy_model.h"
#include "comm/together.h"
#include "core/digest.h"
#include "core/error.h"
#include "distill/byte_teacher.h"
#include "distill/divided_teacher.h"
#include "models/family.h"
#include "models/shape_of.h"
#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/model_memory.h"
#include "train/holders.h"

namespace retort::recipes {
namespace {

// The first ids that mean different things, where the text's tokenizer can still be made; else "".
std::string differences(const data::Tokenizer& theirs, const data::TokenShards& text) {
  std::unique_ptr<data::Tokenizer> ours;
  try {
    ours = data::make_tokenizer(text.tokenizer_name());
  } catch (const Error&) {
    return "";
  }
  constexpr size_t kShown = 3;
  std::vector<std::string> out;
  const auto both = static_cast<int32_t>(std::min(theirs.vocabulary(), ours->vocabulary()));
  for (int32_t id = 0; id < both && out.size() < kShown; ++id) {
    const std::string_view a = theirs.token_bytes(id), b = ours->token_bytes(id);
    if (a != b) out.push_back(fmt::format("token {} is {:?} to the model and {:?} in the text", id, a, b));
  }
  if (theirs.vocabulary() != ours->vocabulary())
    out.push_back(fmt::format("the model's tokenizer has {} tokens, the text's {}", theirs.vocabulary(),
                              ours->vocabulary()));
  return out.empty() ? "" : fmt::format(": {}", fmt::join(out, "; "));
}

bool needs_teacher(const DistillOptions& options) {
  return std::any_of(options.losses.begin(), options.losses.end(), [](const distill::LossOptions& loss) {
    return distill::losses().at(loss.fn).needs_teacher();
  });
}

// A teacher of the shape of `model`, of which each rank has rows.
std::shared_ptr<train::DividedModel> divided(const StageContext& context, const models::Model& model,
                                             const models::ParameterValues& values, at::ScalarType precision,
                                             comm::Comm& comm) {
  const int64_t replicas = context.stage.get<ParallelOptions>().replicas;
  auto shape = models::shape_of(model, at::kMeta);
  shape->set_tokens(model.tokens());
  auto teacher =
      std::make_shared<train::DividedModel>(std::move(shape), precision, comm, replicas, context.device);
  comm::together(comm, [&] { teacher->take(values); });
  return teacher;
}

// That a model can teach on `text`, whose ids it knows then.
void check_reads(const std::string& key, artifacts::OpenedModel& model, const data::TokenShards& text) {
  check<ConfigError>(!model.tokenizer || model.tokenizer->fingerprint() == text.tokenizer_fingerprint(),
                     "{}: {} reads tokenizer {}, the text is of {}{}{}", key, model.source,
                     model.tokenizer ? model.tokenizer->name() : "", text.tokenizer_name(),
                     model.tokenizer ? differences(*model.tokenizer, text) : "",
                     text.tokenizer_name() == "bytes" ? "; a teacher with bridge: bytes may" : "");
  text.check_rows(model.decoder->vocabulary(), fmt::format("{}: {}", key, model.source));
  model.decoder->set_tokens(std::min(model.decoder->vocabulary(), text.vocabulary()));
}

// What all kinds of teachers are made from.
struct Maker {
  const StageContext& context;
  const models::Model& student;
  const models::ParameterValues& values;
  const std::vector<data::Source>& sources;
  comm::Comm& comm;
  Log& log;
  uint64_t bytes = 0;  // of models that were brought to the device
  std::unique_ptr<distill::Teacher> make(const std::string& key, const TeacherOptions& options) {
    return options.kind == "cached" ? cached(key, options) : live(key, options);
  }

 private:
  std::unique_ptr<distill::Teacher> live(const std::string& key, const TeacherOptions& options) {
    const at::ScalarType precision = context.precision(options.precision, comm, log);
    if (options.kind == "self" && values && in_parts())
      return distill::make_divided_teacher(recipes::divided(context, student, values, precision, comm));
    const bool bridge = options.bridge == "bytes";
    artifacts::OpenedStored opened;
    comm::together(comm, [&] { opened = open(key, options); });
    models::Model& teacher = *opened.model.decoder;
    const int64_t reads = teacher.context(), sequence = context.stage.get<DataOptions>().sequence;
    if (!bridge && reads < sequence)
      log.info("{}: reads {} tokens at once, so rows of {} in windows", key, reads, sequence);
    if (in_parts() && teacher.weight_groups() != nullptr) {
      auto model = divided(opened, precision);
      return bridge ? bridged(std::move(model), opened) : distill::make_divided_teacher(std::move(model));
    }
    models::bind_working(teacher.parameters(), opened.model.map(), precision);
    bring_to_device("the teacher", teacher, context.device);
    bytes += train::bytes_of(train::holders_of(teacher.parameters()));
    auto& model = opened.model.decoder;
    return bridge ? bridged(std::move(model), opened) : distill::make_live_teacher(std::move(model));
  }

  // Where ranks divide a model, its weights are still where they come from.
  artifacts::OpenedStored open(const std::string& key, const TeacherOptions& options) const {
    artifacts::OpenedStored out;
    if (options.kind == "self") {
      out.model.decoder = artifacts::copy_of(student, values);
      return out;
    }
    if (in_parts()) out = context.open_stored(options.model, log);
    if (!in_parts() || out.model.decoder->weight_groups() == nullptr)
      out = {context.open_model(options.model, log), {}};
    if (options.bridge == "bytes")
      out.model.need_tokenizer();
    else
      check_reads(key + ".model", out.model, text());
    return out;
  }

  // Its values, one parameter after another; the rest of `opened` stays.
  std::shared_ptr<train::DividedModel> divided(artifacts::OpenedStored& opened,
                                               at::ScalarType precision) const {
    models::StoredModel stored;
    comm::together(comm, [&] { stored = opened.take_base(); });
    const models::Parameters& parameters = stored.model->parameters();
    return recipes::divided(
        context, *stored.model,
        [&](const models::Parameter& p) { return models::f32_of(stored.values, parameters.at(p.name)); },
        precision, comm);
  }

  bool in_parts() const {
    const auto& parallel = context.stage.get<ParallelOptions>();
    return train::division(parallel.shard) == train::Divided::kParameters && comm.size() > parallel.replicas;
  }

  template <typename Model>
  std::unique_ptr<distill::Teacher> bridged(Model model, artifacts::OpenedStored& opened) const {
    std::vector<std::shared_ptr<const data::TokenShards>> texts;
    for (const data::Source& source : sources) texts.push_back(source.shards);
    std::unique_ptr<distill::Teacher> out;
    comm::together(comm, [&] {
      out = distill::make_byte_teacher(std::move(model), std::move(opened.model.tokenizer), std::move(texts));
    });
    return out;
  }

  std::unique_ptr<distill::Teacher> cached(const std::string& key, const TeacherOptions& options) const {
    std::vector<std::shared_ptr<const distill::TeacherCache>> caches;
    comm::together(comm, [&] {
      for (const data::Source& source : sources) caches.push_back(cache_of(source, key, options));
      for (const auto& cache : caches) cache->verify(comm.rank(), comm.size());
    });
    if (!options.model.empty())
      comm::on_rank_zero(comm, [&] {
        const artifacts::OpenedModel model =
            open_teacher(key + ".model", options.model, context, text(), log);
        for (const auto& cache : caches)
          cache->check_teacher(distill::fingerprint(model.decoder->parameters()), model.source);
      });
    for (const auto& cache : caches) tell(key, *cache);
    return distill::make_cached_teacher(std::move(caches));
  }

  // The one that was captured on the source; with one of each, an error says why it was not.
  std::shared_ptr<const distill::TeacherCache> cache_of(const data::Source& source, const std::string& key,
                                                        const TeacherOptions& options) const {
    for (const std::string& address : options.cache) {
      const bool stage = stage_of(address).has_value();
      auto cache = std::make_shared<const distill::TeacherCache>(
          stage ? Path(path_of(address, context.run)) / "cache" : Path(address));
      if (options.cache.size() > 1 && cache->facts().corpus != hex(source.shards->digest())) continue;
      cache->check_corpus(*source.shards);
      return cache;
    }
    fail<ConfigError>("{}.cache: none of {} was captured on {}", key, fmt::join(options.cache, ", "),
                      source.name);
  }

  const data::TokenShards& text() const { return *sources.front().shards; }

  void tell(const std::string& key, const distill::TeacherCache& cache) const {
    const distill::CacheFacts& facts = cache.facts();
    log.info("{}: {} of {}, {} {} a token, {} in all", key, cache.directory().string(), facts.teacher_name,
             facts.size, facts.kind == "sampled" ? "draws" : "likeliest", format_bytes(cache.bytes()));
    const DataOptions& data = context.stage.get<DataOptions>();
    if (facts.window != data.sequence || facts.isolate_documents != data.isolates())
      log.info("{}: its teacher read windows of {} tokens{}, the student reads {}{}: contexts differ", key,
               facts.window, facts.isolate_documents ? " in isolated documents" : "", data.sequence,
               data.isolates() ? " in isolated documents" : "");
  }
};

}  // namespace

artifacts::OpenedModel open_teacher(const std::string& key, const std::string& address,
                                    const StageContext& context, const data::TokenShards& text, Log& log) {
  artifacts::OpenedModel model = context.open_model(address, log);
  check_reads(key, model, text);
  return model;
}

MadeTeacher make_teacher(const StageContext& context, const models::Model& student,
                         const models::ParameterValues& values, const std::vector<data::Source>& sources,
                         comm::Comm& comm, Log& log) {
  const DistillOptions& options = *context.stage.get<DistillSection>();
  if (!needs_teacher(options)) return {};
  Maker maker{context, student, values, sources, comm, log};
  if (options.teachers.empty()) {
    auto teacher = maker.make("distill.teacher", options.teacher);
    return {std::move(teacher), maker.bytes};
  }
  std::vector<distill::Share> shares;
  for (size_t i = 0; i < options.teachers.size(); ++i) {
    const MixedTeacher& one = options.teachers[i];
    std::vector<double> weights = one.source_weights;
    if (weights.empty()) weights = {one.weight};
    shares.push_back({maker.make(fmt::format("distill.teachers[{}]", i), one.teacher), std::move(weights)});
  }
  return {distill::make_mixed_teacher(std::move(shares)), maker.bytes};
}

std::unique_ptr<distill::Teacher> make_reference(const StageContext& context, const models::Model& student,
                                                 const models::ParameterValues& values,
                                                 at::ScalarType precision, comm::Comm& comm) {
  if (values)
    return distill::make_divided_teacher(recipes::divided(context, student, values, precision, comm));
  std::unique_ptr<distill::Teacher> out;
  comm::together(comm, [&] {
    auto copy = artifacts::copy_of(student);
    models::IdentityMap identity;
    models::bind_working(copy->parameters(), identity, precision);
    bring_to_device("the reference", *copy, context.device);
    out = distill::make_live_teacher(std::move(copy));
  });
  return out;
}

}  // namespace retort::recipes
