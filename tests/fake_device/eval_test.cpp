// Models that are scored, compared and sampled from on a device.
#include <gtest/gtest.h>

#include "core/file.h"
#include "distill/held_out.h"
#include "distill/objectives.h"
#include "eval/generate.h"
#include "eval/log_likelihood.h"
#include "eval/run_task.h"
#include "eval/task.h"
#include "tests/data/corpus.h"
#include "tests/eval/models.h"
#include "tests/eval/small_task.h"
#include "tests/fake_device/training.h"
#include "tests/models/tiny.h"

namespace retort::testing {
namespace {

using Make = std::function<std::unique_ptr<models::Model>()>;

// Every family's, and one of byte patches.
std::map<std::string, Make> every_model() {
  std::map<std::string, Make> out{{"patches", [] { return make_patch_model(64); }}};
  for (const models::DecoderSpec& spec : tiny_families())
    out[fmt::format("{} {} {}", spec.family, spec.rope_scaling.kind, static_cast<int>(spec.ffn))] = [=] {
      return random_model(spec);
    };
  return out;
}

template <class F>
auto on(const at::Device& device, const Make& make, F&& f) {
  const Threads one_thread(1);
  const auto model = make();
  models::move_working_to(model->parameters(), device);
  return f(*model);
}

std::vector<int32_t> tokens(int from, int count) {
  std::vector<int32_t> out;
  for (int i = 0; i < count; ++i) out.push_back((from + 7 * i) % 96);
  return out;
}

// --- scores

TEST(EvalOnDevice, ATextsScoreIsTheCpus) {
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "text", random_documents(3, 6, 60, 31));
  for (const auto& [name, make] : every_model()) {
    SCOPED_TRACE(name);
    const auto score = [&](models::Model& model) {
      return eval::score_text(model, *text, 16, *comm::make_self_comm());
    };
    const eval::TextScore got = on(fake_device(), make, score), want = on(at::kCPU, make, score);
    EXPECT_EQ(got.tokens, want.tokens);
    EXPECT_NEAR(got.nats, want.nats, kChain * want.nats);
  }
}

// Contexts that several continuations follow, one that fills the window, and rows that are read whole.
std::vector<eval::TokenRequest> requests() {
  std::vector<eval::TokenRequest> out = {{{5}, {6}}, {tokens(4, 59), tokens(8, 6)}};
  for (const int k : {5, 9, 1}) out.push_back({tokens(3, 40), tokens(k, k)});
  for (int i = 1; i < 6; ++i) out.push_back({tokens(i, 2 + i % 7), tokens(i * 3, 1 + i % 5)});
  return out;
}

TEST(EvalOnDevice, LogLikelihoodsAreTheCpus) {
  for (const auto& [name, make] : every_model()) {
    SCOPED_TRACE(name);
    const auto ask = [](models::Model& model) {
      return eval::log_likelihoods(model, requests(), *comm::make_self_comm());
    };
    const std::vector<eval::LogLikelihood> got = on(fake_device(), make, ask), want = on(at::kCPU, make, ask);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_NEAR(got[i].nats, want[i].nats, -kChain * want[i].nats) << i;
      EXPECT_EQ(got[i].greedy, want[i].greedy) << i;
    }
  }
}

// Every row of the table, with a drafter and a reference beside the model.
TEST(EvalOnDevice, TasksGiveTheCpusFigures) {
  const Threads one_thread(1);
  const TemporaryDirectory directory;
  const auto text = write_corpus(directory / "text", random_documents(3, 6, 60, 31));
  const auto run = [&](const eval::Task& task, const at::Device& device) {
    models::DecoderSpec spec = tiny_llama();
    spec.vocabulary = 256;
    const auto model = random_model(spec), other = random_model(spec, 2);
    for (models::Model* one : {model.get(), other.get()}) models::move_working_to(one->parameters(), device);
    const auto comm = comm::make_self_comm();
    const auto tokenizer = data::make_byte_tokenizer();
    return eval::Evaluation({.model = *model,
                             .comm = *comm,
                             .text = text,
                             .sequence = 16,
                             .tokenizer = tokenizer.get(),
                             .drafter = other.get(),
                             .reference = other.get()})
        .run({task.name});
  };
  for (const eval::Task& task : eval::tasks()) {
    const eval::Figures got = run(task, fake_device()), want = run(task, at::kCPU);
    EXPECT_EQ(got.size(), task.figures.size());
    for (const auto& [name, figure] : want) {
      EXPECT_NEAR(got.at(name).value, figure.value, kChain * std::abs(figure.value)) << name;
      EXPECT_NEAR(got.at(name).standard_error, figure.standard_error, kChain * std::abs(figure.value))
          << name;
    }
  }
}

// Of each kind of question.
TEST(EvalOnDevice, DescribedTasksAreAnsweredAsOnTheCpu) {
  const TemporaryDirectory directory;
  write_small_task(directory.path());
  for (const char* type : {"loglikelihood", "loglikelihood_rolling", "multiple_choice", "generate_until"}) {
    SCOPED_TRACE(type);
    const eval::TaskSpec spec = small_task(type, 6);
    const auto ask = [&](models::Model& model) {
      const auto comm = comm::make_self_comm();
      const auto tokenizer = data::make_byte_tokenizer();
      return eval::run_task(spec, {.model = model,
                                   .tokenizer = *tokenizer,
                                   .comm = *comm,
                                   .prompts = {.folder = directory.path()},
                                   .resamples = 20});
    };
    const Make make = [] { return make_decoder(256, 96); };
    const eval::TaskResult got = on(fake_device(), make, ask), want = on(at::kCPU, make, ask);
    EXPECT_EQ(got.generated, want.generated);
    ASSERT_EQ(got.answers.size(), want.answers.size());
    for (size_t i = 0; i < want.answers.size(); ++i)
      for (size_t k = 0; k < want.answers[i].size(); ++k) {
        const eval::LogLikelihood &one = got.answers[i].at(k), &other = want.answers[i][k];
        EXPECT_NEAR(one.nats, other.nats, -kChain * other.nats);
        EXPECT_EQ(one.greedy, other.greedy);
      }
    ASSERT_FALSE(want.metrics.empty());
    for (size_t m = 0; m < want.metrics.size(); ++m)
      EXPECT_NEAR(got.metrics.at(m).value, want.metrics[m].value, kChain * std::abs(want.metrics[m].value));
  }
}

// Preferences' held-out answers, by a live reference and by one that the device has computed before.
TEST(EvalOnDevice, HeldOutAnswersAreTheCpus) {
  const TemporaryDirectory directory;
  const auto tokenizer = data::make_byte_tokenizer();
  data::TokenShardWriter writer(local_files(), directory / "pairs", *tokenizer, "test", 64, true,
                                data::ShardKind::kPairs);
  for (int i = 0; i < 22; ++i) {
    writer.add(std::vector<int32_t>{i / 2, i / 2 + 9, 7}, 1, false, data::kRead);
    writer.add(tokens(3 * i, 2 + 5 * i % 7), 1, true, i % 2 == 0 ? data::kLearned : data::kLearnedAsWorse);
  }
  writer.finish();
  const auto shards = std::make_shared<const data::TokenShards>(directory / "pairs");
  const auto score = [&](const at::Device& device, bool kept) {
    const Threads one_thread(1);
    const auto comm = comm::make_self_comm();
    const auto model = small_model();
    auto before = small_model(9);
    for (models::Model* one : {model.get(), before.get()}) models::move_working_to(one->parameters(), device);
    auto reference = distill::make_live_reference(distill::make_live_teacher(std::move(before)));
    const distill::AnswerBatches rows(shards, 16);
    if (kept)
      reference = distill::make_kept_reference({distill::compute_log_p(*reference, rows, device, *comm)});
    distill::ObjectiveInput input{.model = *model};
    input.preference.loss = "dpo";
    input.reference = std::move(reference);
    const auto objective = distill::objectives().at("pairs").make(std::move(input));
    return distill::score_held_out(*objective, *model, rows, device, *comm);
  };
  for (const bool kept : {false, true}) {
    const distill::HeldOutScore got = score(fake_device(), kept), want = score(at::kCPU, kept);
    EXPECT_EQ(got.count, want.count);
    EXPECT_NEAR(got.loss, want.loss, kChain * want.loss);
    for (const auto& [name, value] : want.parts)
      EXPECT_NEAR(got.parts.at(name), value, kChain * std::max(1.0, std::abs(value))) << name;
  }
}

// --- texts

// The likeliest tokens and drawn ones, of prompts side by side that end at different times.
TEST(EvalOnDevice, EveryFamilyWritesTheCpusTokens) {
  for (const auto& [name, make] : every_model())
    for (const bool drawn : {false, true}) {
      SCOPED_TRACE(fmt::format("{}, drawn {}", name, drawn));
      eval::SamplingOptions options{.tokens = 8};
      if (drawn)
        options = {.tokens = 8,
                   .temperature = 0.9,
                   .top_k = 40,
                   .top_p = 0.95,
                   .min_p = 0.01,
                   .repetition_penalty = 1.2,
                   .seed = 3};
      const auto write = [&](models::Model& model) {
        eval::GenerateHooks hooks;
        hooks.on_token = [count = 0](size_t row, int32_t) mutable { return row != 1 || ++count < 3; };
        std::vector<std::vector<int32_t>> prompts{tokens(1, 14), tokens(4, 14)}, out;
        if (model.spec().rope_scaling.kind != "longrope")  // which wants them equally long
          prompts = {{1, 2, 3}, {4}, tokens(5, 14), tokens(9, 60)};
        for (const eval::Continuation& one : eval::generate(model, prompts, options, hooks))
          out.push_back(one.ids);
        return out;
      };
      EXPECT_EQ(on(fake_device(), make, write), on(at::kCPU, make, write));
    }
}

// What was read of an earlier prompt is on the device still.
TEST(EvalOnDevice, AConversationReadsOnAsOnTheCpu) {
  for (const auto& [name, make] : every_model()) {
    SCOPED_TRACE(name);
    const auto talk = [](models::Model& model) {
      eval::ReadTokens read;
      std::vector<std::vector<int64_t>> out;
      for (const int end : {10, 14, 9}) {
        std::vector<int32_t> prompt = tokens(5, end);
        prompt.back() = 1;
        const auto one = eval::generate_on(model, read, prompt, {.tokens = 6});
        out.emplace_back(one.ids.begin(), one.ids.end());
        out.back().push_back(read.fresh);
      }
      return out;
    };
    EXPECT_EQ(on(fake_device(), make, talk), on(at::kCPU, make, talk));
  }
}

}  // namespace
}  // namespace retort::testing
