// Runs a model over the training text once and keeps what it says of every token, in DIRECTORY/cache. What
// is there and whole is kept, so an interrupted capture continues and a finished one is not made again.
#include <ATen/Parallel.h>

#include <chrono>

#include "core/digest.h"
#include "core/kept_pages.h"
#include "distill/capture.h"
#include "distill/teacher.h"
#include "launch/on_ranks.h"
#include "launch/teachers.h"
#include "launch/together.h"
#include "train/precision.h"

namespace retort::launch {
namespace {

// Files end where windows do, so that a student whose windows are as long reads the context its teacher had.
int64_t block_tokens(const recipes::Stage& stage) {
  const int64_t window = stage.data.sequence;
  return std::max(window, stage.capture.block_tokens / window * window);
}

distill::CacheFacts facts_of(const StageContext& context, const OpenedModel& teacher,
                             const data::TokenShards& text) {
  const recipes::Stage& s = context.stage;
  return {.kind = s.capture.kind,
          .size = s.capture.size(),
          .temperature = s.capture.temperature,
          .vocabulary = text.vocabulary(),
          .tokenizer = text.tokenizer_fingerprint(),
          .corpus = hex(text.digest()),
          .tokens = text.size(),
          .block_tokens = block_tokens(s),
          .teacher = distill::fingerprint(teacher.decoder->parameters()),
          .teacher_name = teacher.source,
          .window = s.data.sequence,
          .isolate_documents = s.data.isolate_documents,
          .seed = context.recipe.run.seed};
}

StageOutcome capture_rank(StageContext& context, comm::Comm& comm, Log& log) {
  const at::NoGradGuard no_grad;
  const recipes::Stage& s = context.stage;
  at::set_num_threads(static_cast<int>(context.threads));
  std::shared_ptr<const data::TokenShards> text;
  OpenedModel teacher;
  distill::CacheFacts facts;
  together(comm, [&] {
    text = open_shards(context, s.data.train, "train");
    teacher = open_teacher("model.from", s.model.from, context, *text, log);
    facts = facts_of(context, teacher, *text);
  });
  models::bind_working(
      teacher.decoder->parameters(), teacher.map(),
      train::choose_precision(s.capture.precision, comm, log, [&] { return context.tuning; }));
  const Path cache = context.directory / "cache";
  const auto start = std::chrono::steady_clock::now();
  distill::CaptureReport report;
  together(comm, [&] {
    report = distill::capture(*teacher.decoder, *text, facts, s.data.micro_batch, cache, comm, context.files,
                              log, context.stop);
  });
  StageOutcome outcome;
  outcome.preempted = comm.reduce(int64_t{report.stopped}, comm::Reduce::kMax) > 0;
  if (outcome.preempted || comm.rank() != 0) return outcome;
  const distill::TeacherCache made(cache);
  const auto tokens = static_cast<double>(facts.tokens);
  const double labels = static_cast<double>(made.labels()) / tokens,
               bytes = static_cast<double>(made.bytes()) / tokens;
  log.info("{}: {} of {} tokens, {:.1f} labels and {:.1f} bytes a token", cache.string(),
           format_bytes(made.bytes()), facts.tokens, labels, bytes);
  outcome.result = {
      {"captured_tokens", facts.tokens},
      {"cache_bytes", made.bytes()},
      {"labels_per_token", labels},
      {"bytes_per_token", bytes},
      {"capture_seconds", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()}};
  return outcome;
}

}  // namespace

StageOutcome capture_stage(StageContext& context) {
  const KeptPages kept;
  return on_ranks(context, capture_rank);
}

}  // namespace retort::launch
