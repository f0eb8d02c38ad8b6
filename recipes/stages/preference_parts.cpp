#include "recipes/stages/preference_parts.h"

#include <algorithm>

#include "comm/together.h"
#include "core/error.h"
#include "distill/divided_teacher.h"
#include "recipes/data_options.h"
#include "recipes/preference_options.h"
#include "recipes/stages/teachers.h"

namespace retort::recipes {
namespace {

std::shared_ptr<const data::TokenShards> held_out_shards(const StageContext& context) {
  const std::string& validation = context.stage.get<DataOptions>().validation;
  if (!context.stage.get<PreferenceSection>() || validation.empty()) return nullptr;
  auto shards = context.shards(validation, "validation");
  return shards->kind() == data::ShardKind::kText ? nullptr : shards;
}

// Numbers of the reference, from the stage's directory or from the model, which is made when they are first missing.
class KeptNumbers {
 public:
  KeptNumbers(const StageContext& context, const models::Model& student,
              const models::ParameterValues& values, at::ScalarType precision, comm::Comm& comm, Log& log)
      : context_(context),
        student_(student),
        values_(values),
        precision_(precision),
        comm_(comm),
        log_(log) {}

  std::unique_ptr<distill::Reference> of(const std::string& file, const std::vector<data::Source>& sources,
                                         const data::BatchOptions& options) {
    const Path path = context_.directory / file;
    std::vector<distill::AnswerBatches> rows;
    for (const data::Source& source : sources)
      rows.emplace_back(source.shards, options.sequence, options.limit);
    std::optional<std::vector<distill::KeptLogP>> kept;
    std::string identity;
    comm::on_rank_zero(comm_, [&] {
      identity = distill::reference_identity(student_.parameters(), values_, precision_, sources, options);
      kept = distill::read_log_p(path, identity);
      if (kept && !holds(*kept, rows)) kept.reset();
      tell(path, kept.has_value());
    });
    const bool there = comm_.reduce(int64_t{kept.has_value()}, comm::Reduce::kMax) != 0;
    std::vector<distill::KeptLogP> out;
    for (size_t i = 0; i < rows.size(); ++i)
      out.push_back(there ? from_rank_zero(kept ? &kept->at(i) : nullptr, rows[i])
                          : distill::compute_log_p(live(), rows[i], context_.device, comm_));
    if (!there) comm::on_rank_zero(comm_, [&] { distill::write_log_p(context_.files, path, out, identity); });
    return distill::make_kept_reference(std::move(out));
  }

 private:
  static bool holds(const std::vector<distill::KeptLogP>& kept,
                    const std::vector<distill::AnswerBatches>& rows) {
    return std::ranges::equal(kept, rows, {}, &distill::KeptLogP::begins, &distill::AnswerBatches::begins);
  }

  void tell(const Path& path, bool kept) const {
    if (kept)
      log_.info("{}: what the reference says of the answers, computed before", path.string());
    else if (std::filesystem::exists(path))
      log_.warn("{}: was computed from other weights or answers, and is computed again", path.string());
    else
      log_.info("{}: computing what the reference says of the answers", path.string());
  }

  distill::KeptLogP from_rank_zero(const distill::KeptLogP* kept, const distill::AnswerBatches& rows) {
    distill::KeptLogP out{rows.begins(), at::zeros({rows.rows()}, at::kFloat)};
    if (kept != nullptr) out.log_p_R.copy_(kept->log_p_R);
    comm_.broadcast(out.log_p_R, 0).wait();
    return out;
  }

  distill::Reference& live() {
    if (!live_)
      live_ = distill::make_live_reference(make_reference(context_, student_, values_, precision_, comm_));
    return *live_;
  }

  const StageContext& context_;
  const models::Model& student_;
  const models::ParameterValues& values_;
  at::ScalarType precision_;
  comm::Comm& comm_;
  Log& log_;
  std::unique_ptr<distill::Reference> live_;
};

}  // namespace

std::unique_ptr<distill::AnswerBatches> held_out_rows(const StageContext& context,
                                                      const models::Model& model) {
  const auto shards = held_out_shards(context);
  if (!shards) return nullptr;
  shards->check_rows(model.tokens(), "data.validation");
  return std::make_unique<distill::AnswerBatches>(shards, context.stage.get<DataOptions>().sequence);
}

References make_references(const StageContext& context, const models::Model& student,
                           const models::ParameterValues& values, at::ScalarType precision,
                           const data::BatchStream& stream, comm::Comm& comm, Log& log) {
  References out;
  if (!context.stage.get<PreferenceSection>()->precompute) {
    out.training = distill::make_live_reference(make_reference(context, student, values, precision, comm));
    return out;
  }
  KeptNumbers numbers(context, student, values, precision, comm, log);
  out.training = numbers.of("reference.safetensors", stream.sources(), stream.options());
  if (auto shards = held_out_shards(context))
    out.held_out = numbers.of("held_out_reference.safetensors", {{"validation", std::move(shards)}},
                              {.sequence = stream.options().sequence});
  return out;
}

formats::Json held_out_figures(const distill::HeldOutScore& score) {
  formats::Json out = {{"preference_loss", score.loss},
                       {"preference_margin", score.parts.at("rewards/margins")}};
  if (const auto found = score.parts.find("rewards/accuracies"); found != score.parts.end())
    out["preference_accuracy"] = found->second;
  return out;
}

}  // namespace retort::recipes
