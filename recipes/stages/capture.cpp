// Runs a model, or asks a server's, over the training text once and keeps what it says of every token, in
// DIRECTORY/cache. What is there and whole is kept, so an interrupted capture continues and a finished one is not
// made again.
#include <ATen/Parallel.h>

#include <chrono>

#include "comm/together.h"
#include "core/digest.h"
#include "core/kept_pages.h"
#include "distill/capture.h"
#include "distill/teacher.h"
#include "recipes/data_options.h"
#include "recipes/model_memory.h"
#include "recipes/model_options.h"
#include "recipes/on_ranks.h"
#include "recipes/stage_check.h"
#include "recipes/stages/distill_cost.h"
#include "recipes/stages/rows.h"
#include "recipes/stages/teachers.h"

namespace retort::recipes {
namespace {

// Files end where windows do, so that a student whose windows are as long reads the context its teacher had.
int64_t block_tokens(const Stage& stage) {
  const int64_t window = stage.get<DataOptions>().sequence;
  return std::max(window, stage.get<distill::CaptureOptions>().block_tokens / window * window);
}

// All but what the teacher says of itself.
distill::CacheFacts facts_of(const StageContext& context, const data::TokenShards& text) {
  const Stage& s = context.stage;
  return {.kind = s.get<distill::CaptureOptions>().kind,
          .size = s.get<distill::CaptureOptions>().size(),
          .temperature = s.get<distill::CaptureOptions>().temperature,
          .vocabulary = text.vocabulary(),
          .tokenizer = text.tokenizer_fingerprint(),
          .corpus = hex(text.digest()),
          .tokens = text.size(),
          .block_tokens = block_tokens(s),
          .window = s.get<DataOptions>().sequence,
          .isolate_documents = s.get<DataOptions>().isolate_documents,
          .seed = context.recipe.run.seed};
}

distill::CaptureReport from_model(StageContext& context, const data::TokenShards& text,
                                  distill::CacheFacts& facts, const Path& cache, comm::Comm& comm, Log& log) {
  const Stage& s = context.stage;
  artifacts::OpenedModel teacher;
  comm::together(comm, [&] {
    teacher = open_teacher("model.from", s.get<ModelOptions>().from, context, text, log);
    facts.vocabulary = teacher.decoder->tokens();
    facts.teacher = distill::fingerprint(teacher.decoder->parameters());
    facts.teacher_name = teacher.source;
  });
  models::bind_working(teacher.decoder->parameters(), teacher.map(),
                       context.precision(s.get<distill::CaptureOptions>().precision, comm, log));
  bring_to_device("the teacher", *teacher.decoder, context.device);
  distill::CaptureReport report;
  comm::together(comm, [&] {
    work_with({teacher.decoder.get()}, context.device, "capturing labels", "data.micro_batch may be lower",
              [&] {
                report = distill::capture(*teacher.decoder, text, facts, s.get<DataOptions>().micro_batch,
                                          cache, comm, context.files, log, context.stop);
              });
  });
  return report;
}

distill::CaptureReport from_server(StageContext& context, const data::TokenShards& text,
                                   distill::CacheFacts& facts, const Path& cache, comm::Comm& comm,
                                   Log& log) {
  distill::CaptureReport report;
  comm::together(comm, [&] {
    try {
      distill::ServedTeacher teacher(*context.stage.get<distill::CaptureOptions>().server, comm.rank(),
                                     comm.size(), context.seed(), log, context.stop);
      facts.teacher = teacher.fingerprint();
      facts.teacher_name = teacher.model().name;
      report = distill::capture(teacher, text, *text.tokenizer(), facts, cache, comm, context.files, log);
    } catch (const IoError&) {
      if (!context.stop.load()) throw;
      report.stopped = true;  // while the server was asked for its model
    }
  });
  return report;
}

StageOutcome capture_rank(StageContext& context, comm::Comm& comm, Log& log) {
  const at::NoGradGuard no_grad;
  const Stage& s = context.stage;
  at::set_num_threads(static_cast<int>(context.threads));
  std::shared_ptr<const data::TokenShards> text;
  distill::CacheFacts facts;
  comm::together(comm, [&] {
    text = context.shards(s.get<DataOptions>().train, "train");
    facts = facts_of(context, *text);
  });
  const Path cache = context.directory / "cache";
  const auto start = std::chrono::steady_clock::now();
  const auto source = s.get<distill::CaptureOptions>().server ? from_server : from_model;
  const distill::CaptureReport report = source(context, *text, facts, cache, comm, log);
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

std::vector<Input> inputs(const Recipe&, const Stage& stage) {
  std::vector<Input> out;
  if (!stage.get<distill::CaptureOptions>().server) out.push_back(model_input(stage));
  out.push_back({"data.train", stage.get<DataOptions>().train, Thing::kShards, "train"});
  return out;
}

void check_server(StageCheck& check) {
  const auto& capture = check.stage.get<distill::CaptureOptions>();
  if (capture.server->url.empty()) check.add("capture.server.url", "must be the server's address, got none");
  if (capture.server->model.empty())
    check.add("capture.server.model", "must be the name that the server has for its model, got none");
  if (const std::string& from = check.stage.get<ModelOptions>().from; !from.empty())
    check.add({"model.from", "capture.server"},
              fmt::format("is not for a capture from a server, got {}; leave one of the two out", from));
  if (capture.kind != "top_k")
    check.add(
        {"capture.kind", "capture.server"},
        fmt::format("must be top_k: a server gives the likeliest ids and no draws, got {}", capture.kind));
  if (capture.temperature != 1.0)
    check.add(
        {"capture.temperature", "capture.server"},
        fmt::format("must be 1: a server's log-probabilities are of that, got {}", capture.temperature));
}

void check_stage(StageCheck& check) {
  const bool served = check.stage.get<distill::CaptureOptions>().server.has_value();
  served ? check_server(check) : check.demand_model();
  const auto& data = check.stage.get<DataOptions>();
  if (!data.mixture.empty())
    check.add("data.mixture", "a capture reads data.train alone; give each source a stage of its own");
  else if (data.train.empty())
    check.add("data.train", "must name token shards, got none");
  if (served) return;
  check.check_reads({"model.from", "data.train"}, check.stage.get<ModelOptions>().from);
  if (const auto spec = check.model_spec()) check.check_vocabulary(*spec, {"model.vocabulary", "model.from"});
}

// Labels are found by a token's place, whatever the shape of batches.
void forget(Stage& stage) {
  const DataOptions before = stage.get<DataOptions>();
  DataOptions& data = stage.get<DataOptions>() = {};
  data.train = before.train;
  data.sequence = before.sequence;
  data.isolate_documents = before.isolate_documents;
  stage.get<ParallelOptions>() = {};
  auto& capture = stage.get<distill::CaptureOptions>();
  if (!capture.server) return;
  // A server is where its address says today; its model is what counts.
  const distill::ServerOptions server = *capture.server;
  capture.server = distill::ServerOptions{.model = server.model, .api = server.api};
  capture.precision = distill::CaptureOptions().precision;
  stage.get<ModelOptions>() = {};
}

StageOutcome run(StageContext& context) {
  const KeptPages kept;
  return on_ranks(context, capture_rank);
}

}  // namespace

StageKind capture_stage() {
  return {
      .name = "capture",
      .doc = "what a model says of every token of data.train, kept for students to learn from",
      .sections = {model_section(), data_section(),
                   section_kind<distill::CaptureOptions>(
                       "capture", "what is kept of a teacher's distributions, and where from"),
                   parallel_section()},
      .makes = Thing::kCache,
      .figures = {"captured_tokens", "cache_bytes", "labels_per_token", "bytes_per_token", "capture_seconds"},
      .continues = true,
      .seeded = true,
      .inputs = inputs,
      .check = check_stage,
      .forget = forget,
      .plan = capture_plan,
      .run = run};
}

}  // namespace retort::recipes
