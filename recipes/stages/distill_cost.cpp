#include "recipes/stages/distill_cost.h"

#include <algorithm>
#include <cmath>

#include "core/log.h"
#include "data/token_shards.h"
#include "models/family.h"
#include "plan/flops.h"
#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/model_address.h"
#include "recipes/model_options.h"
#include "recipes/stage_check.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

std::optional<models::DecoderSpec> shape_of(const Recipe& recipe, const std::string& address) {
  if (auto spec = spec_of(recipe, address)) return spec;
  return model_shape(address, recipe.run.dir);
}

// The stage that makes a cached teacher's labels, when it is one of the recipe's.
const Stage* maker_of(const Recipe& recipe, const TeacherOptions& teacher) {
  const Stage* stage = teacher.cache.empty() ? nullptr : recipe.maker_of(teacher.cache.front());
  return stage != nullptr && stage->find<distill::CaptureOptions>() != nullptr ? stage : nullptr;
}

// Of all sources; 0 where one is not prepared yet.
double tokens_of(const Recipe& recipe, const Stage& stage) {
  double sum = 0;
  for (const SourceOptions& source : stage.get<DataOptions>().sources()) {
    const auto name = stage_of(source.train);
    const Path path = name ? Path(recipe.run.dir) / *name / "train" : Path(source.train);
    if (!artifacts::holds_shards(path)) return 0;
    sum += static_cast<double>(data::TokenShards(path).size());
  }
  return sum;
}

std::string bytes_text(double bytes) { return format_bytes(static_cast<uint64_t>(bytes)); }

std::string row(std::string_view what, const std::string& live, const std::string& cached) {
  return fmt::format("  {:<26}{:>18}{:>24}\n", what, live, cached);
}

}  // namespace

std::optional<models::DecoderSpec> student_shape(const Recipe& recipe, const Stage& stage) {
  const auto& from = stage.get<ModelOptions>().from;
  return from.empty() ? spec_of(recipe, stage) : shape_of(recipe, from);
}

std::optional<models::DecoderSpec> teacher_shape(const Recipe& recipe, const Stage& stage,
                                                 const TeacherOptions& teacher) {
  if (teacher.kind == "self") return spec_of(recipe, stage);
  const Stage* made = maker_of(recipe, teacher);
  return shape_of(recipe, made != nullptr ? made->get<ModelOptions>().from : teacher.model);
}

double trained_tokens(const Recipe& recipe, const Stage& stage) {
  const auto& train = stage.get<train::TrainOptions>();
  if (train.epochs > 0) return train.epochs * tokens_of(recipe, stage);
  return static_cast<double>(train.steps) * static_cast<double>(stage.get<DataOptions>().batch_tokens);
}

double expected_labels(const distill::CaptureOptions& capture, int64_t vocabulary) {
  if (capture.kind == "top_k") return static_cast<double>(std::min(capture.k, vocabulary));
  const double scale = vocabulary <= 256 ? 1.05 : 1.7, draws = static_cast<double>(capture.draws);
  return std::min({scale * std::sqrt(draws), draws, static_cast<double>(vocabulary)});
}

std::string distill_cost_table(const DistillCost& c) {
  const bool known = c.corpus_tokens > 0;
  const double bytes =
      distill::cache_bytes_per_token(c.capture, static_cast<int64_t>(c.vocabulary), c.labels);
  const auto flops = [](double value) { return value > 0 ? fmt::format("{:.3g}", value) : "-"; };
  std::string out = row(
      "teacher", "live",
      fmt::format("cached, {} {}", c.capture.size(), c.capture.kind == "sampled" ? "draws" : "likeliest"));
  out += row("FLOPs a trained token", flops(c.student_flops + c.teacher_flops), flops(c.student_flops));
  out += row("  of these the teacher's", flops(c.teacher_flops), "0");
  out += row("FLOPs of the capture", "-",
             known ? flops(c.teacher_flops * c.corpus_tokens) : flops(c.teacher_flops) + " a token");
  out += row("FLOPs in all", flops((c.student_flops + c.teacher_flops) * c.tokens),
             known ? flops(c.student_flops * c.tokens + c.teacher_flops * c.corpus_tokens) : "-");
  out +=
      row("cache", "-", known ? bytes_text(bytes * c.corpus_tokens) : fmt::format("{:.1f} B a token", bytes));
  out += row("teacher's memory", bytes_text(c.teacher_bytes_f32) + " f32",
             bytes_text(12 * c.labels * c.batch_tokens));
  if (known)
    out += fmt::format(
        "  {:.3g} epochs of {} tokens: a capture pays beyond one epoch, or for a second student\n",
        c.tokens / c.corpus_tokens, format_rate(c.corpus_tokens));
  return out;
}

std::optional<DistillCost> distill_cost(const Recipe& recipe, const Stage& stage) {
  const auto& data = stage.get<DataOptions>();
  const auto& distill = stage.get<DistillSection>();
  const auto student = student_shape(recipe, stage);
  if (!distill || !student) return std::nullopt;
  DistillCost out;
  for (const TeacherOptions& teacher : distill->all_teachers()) {
    const auto spec = teacher_shape(recipe, stage, teacher);
    if (!spec) return std::nullopt;
    const auto model = models::make_model(*spec, at::kMeta);
    out.teacher_flops += plan::forward_flops_a_token(*model, data.sequence);
    out.teacher_bytes_f32 += 4.0 * static_cast<double>(model->parameters().stored());
    if (const Stage* made = maker_of(recipe, teacher)) out.capture = made->get<distill::CaptureOptions>();
  }
  out.corpus_tokens = tokens_of(recipe, stage);
  out.tokens = trained_tokens(recipe, stage);
  out.student_flops = models::make_model(*student, at::kMeta)->flops_per_token(data.sequence);
  out.vocabulary = static_cast<double>(student->vocabulary);
  out.batch_tokens = static_cast<double>(data.sequence * data.micro_batch);
  out.labels = expected_labels(out.capture, student->vocabulary);
  return out;
}

std::string capture_plan(const Recipe& recipe, const Stage& stage, int64_t) {
  const auto& capture = stage.get<distill::CaptureOptions>();
  if (capture.server)  // the vocabulary is not known, and the work is the server's
    return fmt::format(
        "  at most {:.1f} bytes a token\n",
        distill::cache_bytes_per_token(capture, int64_t{1} << 32, static_cast<double>(capture.k)));
  const auto spec = shape_of(recipe, stage.get<ModelOptions>().from);
  if (!spec) return "";
  const int64_t sequence = stage.get<DataOptions>().sequence;
  const double flops = models::make_model(*spec, at::kMeta)->flops_per_token(sequence) / 3.0,
               labels = expected_labels(capture, spec->vocabulary),
               bytes = distill::cache_bytes_per_token(capture, spec->vocabulary, labels),
               tokens = tokens_of(recipe, stage);
  const std::string all = tokens > 0 ? fmt::format("; {} tokens: {:.3g} FLOPs, {}", format_rate(tokens),
                                                   flops * tokens, bytes_text(bytes * tokens))
                                     : "";
  return fmt::format("  {:.3g} FLOPs and about {:.1f} bytes a token{}\n", flops, bytes, all);
}

}  // namespace retort::recipes
