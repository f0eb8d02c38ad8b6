// Training that repeats its micro-batches as graphs beside training that does not: the same bits, and how often it does.
#include "train/micro_graph.h"

#include <gmock/gmock.h>

#include "tests/fake_device/adapted_training.h"
#include "tests/fake_device/distilled_training.h"
#include "tests/fake_device/grid_training.h"
#include "tests/fake_device/memory.h"
#include "tests/fake_device/training.h"
#include "tests/models/tiny.h"
#include "tests/train/captured_log.h"
#include "tests/train/tiny_run.h"
#include "train/profile.h"

namespace retort::testing {
namespace {

using ::testing::HasSubstr;

struct Counts {
  int64_t graphs = 0, replays = 0;
  bool operator==(const Counts&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Counts& c) {
  return out << c.graphs << " graphs, " << c.replays << " replays";
}

Counts counts_of(const Ran& ran) {
  Counts out;
  for (const Traffic& traffic : ran.all_traffic) out.graphs += traffic.graphs, out.replays += traffic.replays;
  return out;
}

// Of every step, and of the weights that it leads to.
void expect_same_bits(const Ran& got, const Ran& want) {
  ASSERT_EQ(got.steps.size(), want.steps.size());
  for (size_t s = 0; s < want.steps.size(); ++s) {
    const train::StepStats &one = got.steps[s], &other = want.steps[s];
    EXPECT_TRUE(
        same_bits(at::scalar_tensor(one.loss, at::kDouble), at::scalar_tensor(other.loss, at::kDouble)))
        << "step " << s;
    EXPECT_TRUE(same_bits(at::scalar_tensor(one.gradient_norm, at::kDouble),
                          at::scalar_tensor(other.gradient_norm, at::kDouble)))
        << "step " << s;
    EXPECT_EQ(one.skipped, other.skipped) << "step " << s;
    EXPECT_EQ(one.at_fault, other.at_fault) << "step " << s;
    if (!other.skipped) {
      EXPECT_EQ(one.parts, other.parts) << "step " << s;
    }
  }
  ASSERT_EQ(got.masters.size(), want.masters.size());
  for (const auto& [name, master] : want.masters)
    EXPECT_TRUE(same_bits(got.masters.at(name), master)) << name;
}

// Five steps of two micro-batches, or as the training has it, at a rate that changes. The first micro-batch runs as ever, the
// second beside its graph, the others are replays.
void expect_the_same(Training training, const Counts& want = {1, 9}, int64_t steps = 5) {
  training.lr = [](int64_t step) { return kLr / static_cast<double>(1 + step); };
  train::CapturedLog log;
  training.log = &*log;
  const Ran got = run(training, fake_device(), steps);
  EXPECT_EQ(log.text(), "");
  training.graphs = false;
  const Ran usual = run(training, fake_device(), steps);
  expect_same_bits(got, usual);
  EXPECT_EQ(counts_of(got), want);
  EXPECT_EQ(counts_of(usual), Counts());
}

TEST(MicroGraphs, RepeatedMicroBatchesHaveTheBitsOfThoseThatAreNot) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(c10::toString(dtype));
    expect_the_same(llama(dtype));
  }
}

// What the tree keeps of one is not written by the next.
TEST(MicroGraphs, AnyNumberOfMicroBatchesMakesAStep) {
  for (const int64_t micro_batches : {1, 3, 5})
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      SCOPED_TRACE(micro_batches);
      Training training = llama(dtype);
      training.micro_batches = micro_batches;
      expect_the_same(training, {1, 3 * micro_batches - 1}, 3);
    }
}

// Attention takes their lengths from the host.
TEST(MicroGraphs, DocumentsThatShareARowRunAsEver) {
  Training training = llama();
  training.batch = [](int64_t number) {
    data::Batch batch = train::tiny_batch(number);
    const int64_t cut = 3 + number % 7;
    batch.document_BT = at::arange(12).ge(cut).to(at::kLong).expand({2, 12}).contiguous();
    batch.positions_BT = (at::arange(12) - cut * batch.document_BT).contiguous();
    return batch;
  };
  expect_the_same(training, {});
}

TEST(MicroGraphs, ALiveTeacherIsRepeatedWithItsStudent) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const char* loss : {"forward_kl", "reverse_kl", "jsd", "logit_mse", "adaptive_kl", "top_k_ghost"}) {
      if (dtype == at::kBFloat16 && std::string(loss) != "forward_kl") continue;
      SCOPED_TRACE(loss);
      expect_the_same(distilled({{.fn = "cross_entropy", .weight = 0.5}, {.fn = loss, .weight = 0.5}}, dtype),
                      {1, 5}, 3);
    }
}

// From then on the products have other inputs, which no weight tells.
TEST(MicroGraphs, AGridThatBeginsInTheMiddleOfARunHasAGraphOfItsOwn) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Training training = on_grid("q8_0");
    training.dtype = dtype;
    training.map = [](models::Parameters& parameters) {
      return std::make_unique<quantize::QuantizeMap>(quantize::QuantizeOptions{.weights = {"q8_0"},
                                                                               .embedding = {"q8_0"},
                                                                               .head = {"q8_0"},
                                                                               .activations = "int8",
                                                                               .from_step = 2},
                                                     parameters);
    };
    expect_the_same(training, {2, 3 + 3}, 4);
  }
}

TEST(MicroGraphs, AdaptersOverWeightsAndOverCodesAreRepeated) {
  for (const char* base : {"f32", "q8_0", "nf4"}) {
    SCOPED_TRACE(base);
    expect_the_same(adapters(base, /*dora=*/false), {1, 5}, 3);
  }
}

// All but longrope, which asks the host.
TEST(MicroGraphs, EveryFamilyIsRepeated) {
  int64_t refused = 0;
  for (const models::DecoderSpec& spec : tiny_families()) {
    SCOPED_TRACE(spec.family);
    Training training{.model = [&] { return random_model(spec); }, .micro_batches = 3};
    if (const std::string why = train::not_repeatable(*random_model(spec)); !why.empty()) {
      EXPECT_EQ(spec.rope_scaling.kind, "longrope");
      ++refused;
    } else {
      expect_the_same(training, {1, 2}, 1);
    }
  }
  EXPECT_EQ(refused, 1);
}

TEST(MicroGraphs, EachShapeHasItsGraphAndAFifthTakesThePlaceOfTheOldest) {
  const auto of_lengths = [](std::vector<int64_t> lengths) {
    Training training = llama();
    training.micro_batches = 1;
    training.batch = [=](int64_t number) {
      return train::tiny_batch(number, 2, lengths[static_cast<size_t>(number) % lengths.size()]);
    };
    return training;
  };
  expect_the_same(of_lengths({12, 9}), {2, 6}, 8);
  expect_the_same(of_lengths({12, 11, 10, 9}), {4, 4}, 8);
  expect_the_same(of_lengths({14, 13, 12, 11, 10}), {0, 0}, 10);
}

// Beside the micro-batch that a graph was compared with, the host reads once a step.
TEST(MicroGraphs, TheHostReadsOnceAStepAndWaitsForNoCopy) {
  const Ran ran =
      run(distilled({{.fn = "cross_entropy"}, {.fn = "forward_kl"}}, at::kBFloat16), fake_device(), 4);
  for (size_t s = 0; s < ran.all_traffic.size(); ++s) {
    const Traffic& traffic = ran.all_traffic[s];
    EXPECT_EQ(traffic.host_reads(), s == 0 ? 2 : 1) << "step " << s;
    EXPECT_EQ(traffic.uploads_waited, 0) << "step " << s;
  }
  EXPECT_FALSE(ran.all_traffic.back().operators.contains("aten::mm.out"))
      << "nothing of the model is enqueued";
}

// --- what is not repeated

TEST(MicroGraphs, WhatLooksAtTheHostOrTheStepSaysSoAndIsNotTried) {
  distill::LossOptions scheduled{.fn = "forward_kl"};
  scheduled.schedule = distill::WeightSchedule{.kind = "linear", .to = 0.0, .begin = 0, .end = 4};
  const std::vector<std::pair<Training, const char*>> cases = {
      {distilled({{.fn = "cross_entropy"}, {.fn = "hidden_mse"}}), "hidden_mse looks at hidden states"},
      {distilled({scheduled}), "the weight of forward_kl follows the step"},
      {distilled({{.fn = "sampled"}}), "sampled draws on the host"}};
  for (const auto& [training, why] : cases) {
    SCOPED_TRACE(why);
    train::CapturedLog log;
    Training heard = training;
    heard.log = &*log;
    heard.batch = [](int64_t number) {
      data::Batch batch = train::tiny_batch(number);
      batch.corpus_BT = at::arange(24).view({2, 12});
      return batch;
    };
    EXPECT_EQ(counts_of(run(heard, fake_device())), Counts());
    EXPECT_THAT(log.text(), HasSubstr(why));
    EXPECT_THAT(log.text(), ::testing::Not(HasSubstr("warning")));
  }
}

// Says that it can be repeated, and is not as it says.
class Liar final : public train::Objective {
 public:
  explicit Liar(bool reads) : reads_(reads) {}
  std::string not_repeatable() const override { return ""; }
  train::LossSum operator()(models::Model& model, const data::Batch& batch) override {
    train::LossSum loss = (*inner_)(model, batch);
    if (reads_) RETORT_ASSERT(!std::isnan(loss.sum.item<float>()));
    if (!reads_ && ++calls_ == 3) loss.sum = loss.sum * 2.0;  // of a graph, after two that run as ever
    return loss;
  }
  std::vector<std::string> part_names() const override { return inner_->part_names(); }

 private:
  std::unique_ptr<train::Objective> inner_ = train::make_cross_entropy();
  bool reads_;
  int calls_ = 0;
};

TEST(MicroGraphs, OneThatFailsOrDiffersIsToldOnceAndTrainingGoesOn) {
  const Ran usual = run(llama(), fake_device(), 4);
  for (const bool reads : {true, false}) {
    SCOPED_TRACE(reads);
    train::CapturedLog log;
    Training training = llama();
    training.log = &*log;
    training.objective = [=](const models::Model&, const at::Device&) {
      return std::make_unique<Liar>(reads);
    };
    const Ran got = run(training, fake_device(), 4);
    expect_same_bits(got, usual);
    EXPECT_EQ(counts_of(got), (reads ? Counts{0, 0} : Counts{1, 1}));
    const std::string text = log.text();
    EXPECT_THAT(text, HasSubstr(reads ? "where no graph can have it that the host reads" : "has other bits"));
    EXPECT_EQ(text.find("warning"), text.rfind("warning"));
  }
}

// Memory for every micro-batch, and not for the graph of one.
TEST(MicroGraphs, MemoryThatIsRefusedWhileOneIsCapturedEndsGraphsAlone) {
  const auto with = [](bool graphs, size_t memory, Log& log) {
    Training training = llama();
    training.graphs = graphs;
    training.log = &log;
    training.before_step = [=](models::Model&, int64_t step) {
      if (step > 0) return;
      Memory::get().begin_peak();
      if (memory > 0) Memory::get().limit(memory);
    };
    Ran ran = run(training, fake_device(), 4);
    Memory::get().unlimit();
    return std::pair(std::move(ran), Memory::get().peak());
  };
  train::CapturedLog log;
  const auto [usual, least] = with(false, 0, *log);
  const size_t most = with(true, 0, *log).second;
  ASSERT_GT(most, least);
  EXPECT_EQ(log.text(), "");
  const Ran got = with(true, (least + most) / 2, *log).first;
  expect_same_bits(got, usual);
  EXPECT_EQ(counts_of(got), Counts());
  EXPECT_THAT(log.text(),
              HasSubstr("no graph of a micro-batch can be had, training goes on without (train.graph): "
                        "fake device out of memory"));
  EXPECT_EQ(log.text().find("warning"), log.text().rfind("warning"));
}

TEST(MicroGraphs, WeightsThatMoveAreReadWhereTheyAre) {
  const auto moved = [](bool graphs) {
    Training training = llama();
    training.graphs = graphs;
    training.before_step = [](models::Model& model, int64_t step) {
      models::Parameter& p = model.parameters().at("layers.0.ffn.up.weight");
      if (step == 2) p.working.set_data(p.working.clone()), p.master = p.working.detach();
    };
    return run(training, fake_device(), 4);
  };
  const Ran got = moved(true);
  expect_same_bits(got, moved(false));
  EXPECT_EQ(counts_of(got), (Counts{2, 3 + 3}));
}

// A fault strikes where backward makes the gradient that it spoils, and a step that runs again is compared.
TEST(MicroGraphs, FaultsAndStepsThatRunAgainAreAsEver) {
  const auto struck = [](bool graphs, const char* fault) {
    Injection faults(fault);
    Training training = llama();
    training.graphs = graphs;
    training.faults = &faults;
    training.limits = {.norm = 100.0, .rerun = true};
    return run(training, fake_device(), 5);
  };
  for (const char* fault :
       {"step=3,point=backward,fault=nan", "step=4,point=backward,fault=bitflip:30,times=0",
        "step=3,point=after_backward,fault=inf"}) {
    SCOPED_TRACE(fault);
    const Ran got = struck(true, fault), want = struck(false, fault);
    expect_same_bits(got, want);
    EXPECT_GE(counts_of(got).graphs, 1);
  }
}

// --- whole runs, of one rank and of two

TEST(MicroGraphs, ARunIsTheSameWithThemAndWithout) {
  const auto run_of = [](bool graph, int ranks, train::Divided divided, const Path& directory) {
    train::TinyRun run;
    run.repeatable = true;
    run.learns = true;
    run.device = fake_device();
    run.ranks = ranks;
    run.micro_batches = 3;
    run.divided = divided;
    run.measured = at::kBFloat16;
    run.options.steps = 4;
    run.options.graph = graph;
    const Watch watch;
    const double loss = run(directory).final_loss;
    const Traffic traffic = watch.traffic();
    EXPECT_EQ(traffic.graphs, graph ? ranks : 0);
    EXPECT_EQ(traffic.replays, graph ? ranks * 11 : 0);
    EXPECT_THAT(run.log, ::testing::Not(HasSubstr("graph")));
    return loss;
  };
  for (const auto& [ranks, divided] : {std::pair{1, train::Divided::kNothing},
                                       {2, train::Divided::kNothing},
                                       {2, train::Divided::kMoments},
                                       {2, train::Divided::kGradients}}) {
    SCOPED_TRACE(fmt::format("{} ranks", ranks));
    const TemporaryDirectory with, without;
    EXPECT_EQ(run_of(true, ranks, divided, with.path()), run_of(false, ranks, divided, without.path()));
    train::expect_same(with.path(), without.path());
  }
}

// A repeated micro-batch calls no operation, and one that is captured cannot be waited for: while a profile lives all run
// as ever, and graphs come after it, with the same bits.
TEST(MicroGraphs, AProfileSeesEveryOperationAndGraphsComeAfterIt) {
  const Training training = llama();
  const auto model = training.model();
  models::IdentityMap map;
  models::bind_working(model->parameters(), map, training.dtype);
  models::move_to(model->parameters(), fake_device());
  const auto objective = train::make_cross_entropy();
  const auto optimizer = train::make_optimizer({.lr = kLr, .eps = kEps}, model->parameters());
  const auto comm = comm::make_self_comm();
  train::CapturedLog log;
  train::TrainStep step({*model, map, *objective, *optimizer, *comm, nullptr, nullptr, true, &*log},
                        training.micro_batches, kClip);
  Ran got;
  const auto steps = [&](int64_t first, int64_t last) {
    const Watch watch;
    for (int64_t s = first; s < last; ++s)
      got.steps.push_back(step.run(s, {training.batch(2 * s), training.batch(2 * s + 1)}, training.lr(s)));
    const Traffic traffic = watch.traffic();
    return Counts{traffic.graphs, traffic.replays};
  };
  const auto profiled = [&](int64_t first, int64_t last) {
    step.run_without_graphs(true);
    train::Profile profile(fake_device());
    EXPECT_EQ(steps(first, last), Counts());
    profile.stop();
    step.run_without_graphs(false);
    std::map<std::string, int64_t> calls;
    for (const train::ProfileRow& row : profile.rows()) calls[row.name] = row.calls;
    return calls;
  };
  std::map<std::string, int64_t> before =
      profiled(0, 2);  // whose second micro-batch would have been captured
  EXPECT_EQ(steps(2, 4), (Counts{1, 3}));
  std::map<std::string, int64_t> after = profiled(4, 6);  // whose every micro-batch would have been repeated
  EXPECT_EQ(steps(6, 7), (Counts{0, 2}));
  for (const char* name : {"aten::mm", "retort::attention", "retort::linear_cross_entropy", "retort::swiglu",
                           "retort::gate_backward", "retort::adamw"}) {
    EXPECT_GT(before[name], 0) << name;
    EXPECT_EQ(before[name], after[name]) << name;
  }
  EXPECT_EQ(log.text(), "") << "graphs were not given up";
  for (const models::Parameter& p : model->parameters().unique()) got.masters[p.name] = p.master.cpu();
  Training usual = training;
  usual.graphs = false;
  expect_same_bits(got, run(usual, fake_device(), 7));
}

}  // namespace
}  // namespace retort::testing
