// A teacher's own answers to the prompts of data.train, as token shards to learn from: sequence-level
// distillation (Kim and Rush 2016, arXiv 1606.07947). Each document of a row has one, drawn as on-policy
// distillation draws (distill/on_policy.h), and only it is learned. DIRECTORY/train. An interrupted stage
// goes on after the shards that are full.
#include "artifacts/text_shards.h"
#include "comm/together.h"
#include "core/error.h"
#include "core/host_tensor.h"
#include "distill/on_policy.h"
#include "recipes/data_options.h"
#include "recipes/inputs.h"
#include "recipes/model_memory.h"
#include "recipes/model_options.h"
#include "recipes/stage_check.h"
#include "recipes/stage_context.h"
#include "recipes/stages/rows.h"
#include "recipes/stages/teachers.h"
#include "train/precision.h"

namespace retort::recipes {
namespace {

struct AnswersOptions {
  int64_t documents = 0, prompt = 0, tokens = 128, shard_tokens = data::kShardTokens;
  double temperature = 1.0;
  std::string precision = "auto";
  void describe(Section& s) {
    s.field("documents", documents, "number of answers; 0: one for each prompt of data.train",
            at_least(int64_t{0}));
    s.field("prompt", prompt,
            "number of tokens of a row's document that are given; 0: those before the first that is learned, "
            "of a "
            "text that says so",
            at_least(int64_t{0}));
    s.field("tokens", tokens, "number of tokens of an answer at most", at_least(int64_t{1}));
    s.field("temperature", temperature, "divisor of the logits that answers are drawn from", above(0.0));
    s.field("precision", precision, "precision of the model's products", one_of(train::precision_names()));
    s.field("shard_tokens", shard_tokens, "tokens of one shard, which a killed stage may have to make again",
            at_least(int64_t{1}));
  }
};

using Ids = std::vector<int32_t>;

Ids ids_of(const at::Tensor& x_N) {
  const auto ids = host_values<const int64_t>(x_N);
  return {ids.begin(), ids.end()};
}

// Two pieces a document: what was given and what was answered.
class Answers {
 public:
  Answers(const StageContext& context, const Path& directory)
      : context_(context),
        options_(context.stage.get<AnswersOptions>()),
        text_(context.shards(context.stage.get<DataOptions>().train, "train")),
        tokenizer_(text_->tokenizer()),
        teacher_(
            open_teacher("model.from", context.stage.get<ModelOptions>().from, context, *text_, context.log)),
        stream_(text_, batch_options(context.stage.get<DataOptions>(), context.seed())),
        writer_(context.files, directory, *tokenizer_,
                fmt::format("answers of {} to {}", teacher_.source, text_->source()), options_.shard_tokens,
                /*loss_mask=*/true) {
    const std::string misfit = prompts_misfit(context.stage.get<DataOptions>().train, text_->has_loss_mask());
    check<ConfigError>(options_.prompt > 0 || misfit.empty(), "answers.prompt {}", misfit);
  }

  // False when it was stopped.
  bool write(at::ScalarType dtype) {
    models::bind_working(teacher_.decoder->parameters(), teacher_.map(), dtype);
    bring_to_device("the teacher", *teacher_.decoder, context_.device);
    const int64_t wanted = wanted_answers(), done = writer_.pieces_done() / 2;
    const distill::Sampling sampling{.ends = teacher_.ends(), .seed = context_.seed()};
    Progress progress(context_.log, "answers", wanted);
    for (int64_t step = 0, made = 0; made < wanted; ++step) {
      if (context_.stop) return false;
      const data::Batch batch = stream_.batch(step);
      const int64_t count = distill::answer_count(batch, options_.prompt),
                    last = std::min(count, wanted - made);
      if (made + last > done)
        add(distill::sample_answers(*teacher_.decoder, batch, step, on_policy(), sampling),
            std::max<int64_t>(0, done - made), last);
      made += count;
      progress.update(std::min(made, wanted));
    }
    progress.finish();
    writer_.finish();
    return true;
  }

 private:
  distill::OnPolicyOptions on_policy() const {
    return {.prompt = options_.prompt, .tokens = options_.tokens, .temperature = options_.temperature};
  }

  // As many as the options say, else those of one epoch, of which there must be some.
  int64_t wanted_answers() const {
    const int64_t rows = context_.stage.get<DataOptions>().micro_batch, epoch = stream_.samples_per_epoch();
    int64_t there = 0;
    for (int64_t step = 0; step * rows < epoch && (there == 0 || options_.documents == 0); ++step) {
      data::Batch batch = stream_.batch(step);  // the last one goes on with the next epoch
      for (at::Tensor* x_BT : {&batch.tokens_BT, &batch.labels_BT})
        *x_BT = x_BT->narrow(0, 0, std::min(rows, epoch - step * rows));
      there += distill::answer_count(batch, options_.prompt);
    }
    check<DataError>(there > 0, "{} has no prompt: none of its tokens is learned",
                     context_.stage.get<DataOptions>().train);
    return options_.documents > 0 ? options_.documents : there;
  }

  void add(const data::Batch& batch, int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const Ids labels = ids_of(batch.labels_BT[row]), tokens = ids_of(batch.tokens_BT[row]);
      const auto is_answer = [](int32_t id) { return id != data::kIgnored; };
      const auto begin = std::ranges::find_if(labels, is_answer);
      check<DataError>(begin != labels.end(), "{}: a prompt fills the model's context of {} tokens",
                       context_.stage.get<DataOptions>().train, teacher_.decoder->context());
      const Ids answer(begin, std::find_if_not(begin, labels.end(), is_answer));
      Ids prompt(tokens.begin(), tokens.begin() + (begin - labels.begin()) + 1);
      const Ids prefix = tokenizer_->prefix();  // a window may begin within a document
      if (prompt.size() < prefix.size() || !std::equal(prefix.begin(), prefix.end(), prompt.begin()))
        prompt.insert(prompt.begin(), prefix.begin(), prefix.end());
      writer_.add(prompt, bytes_of(prompt), /*continues=*/false, data::kRead);
      writer_.add(answer, bytes_of(answer), /*continues=*/true);
    }
  }

  uint64_t bytes_of(const Ids& ids) const {
    uint64_t bytes = 0;
    for (const int32_t id : ids)
      if (!tokenizer_->is_special(id)) bytes += tokenizer_->token_bytes(id).size();
    return bytes;
  }

  const StageContext& context_;
  const AnswersOptions& options_;
  std::shared_ptr<const data::TokenShards> text_;
  std::unique_ptr<data::Tokenizer> tokenizer_;
  artifacts::OpenedModel teacher_;
  data::BatchStream stream_;
  data::TokenShardWriter writer_;
};

StageOutcome run(StageContext& context) {
  StageOutcome outcome;
  const at::ScalarType dtype =
      context.precision(context.stage.get<AnswersOptions>().precision, context.comm, context.log);
  const Path directory = context.directory / "train";
  int64_t stopped = 0;
  comm::on_rank_zero(context.comm, [&] {
    const at::NoGradGuard no_grad;
    if (!std::filesystem::exists(directory)) stopped = !Answers(context, directory).write(dtype);
    if (stopped != 0) return;
    const data::TokenShards made(directory);
    made.verify();
    outcome.result = {{"train_tokens", made.size()},
                      {"train_bytes", made.text_bytes()},
                      {"answers", made.documents()},
                      {"answer_tokens", made.learned()}};
  });
  outcome.preempted = context.comm.reduce(stopped, comm::Reduce::kMax) > 0;
  return outcome;
}

std::vector<Input> inputs(const Recipe&, const Stage& stage) {
  std::vector<Input> out = training_inputs(stage);
  out.push_back(model_input(stage));
  return out;
}

void check_stage(StageCheck& check) {
  check.demand_model();
  check.check_limit();
  const auto& data = check.stage.get<DataOptions>();
  const auto& options = check.stage.get<AnswersOptions>();
  if (!data.mixture.empty())
    check.add("data.mixture", "answers are written to data.train alone; give each source a stage of its own");
  else if (data.train.empty())
    check.add("data.train", "must name token shards, got none");
  const auto spec = check.model_spec();
  check.check_given("answers.prompt", options.prompt, spec);
  check.check_reads({"model.from", "data.train"}, check.stage.get<ModelOptions>().from);
  if (spec) check.check_vocabulary(*spec, {"model.vocabulary", "model.from"});
}

}  // namespace

StageKind answers_stage() {
  return {.name = "answers",
          .doc = "what a model answers to the prompts of data.train, as token shards to learn from",
          .sections = {model_section(), data_section(),
                       section_kind<AnswersOptions>("answers",
                                                    "what is given of a text, and how answers are drawn")},
          .makes = Thing::kShards,
          .figures = {"train_tokens", "train_bytes", "answers", "answer_tokens"},
          .continues = true,
          .seeded = true,
          .inputs = inputs,
          .check = check_stage,
          .run = run};
}

}  // namespace retort::recipes
