// The start of ranks that divide weights which come from disk (parallel.shard: parameters): what a rank holds of them at
// most, and that its rows are those of a model that was opened whole.
#include <gtest/gtest.h>

#include <cmath>

#include "artifacts/export_model.h"
#include "artifacts/open_stored.h"
#include "comm/together.h"
#include "models/stored_adapters.h"
#include "quantize/quantize_map.h"
#include "tests/artifacts/tiny.h"
#include "tests/plan/counted_tensors.h"
#include "tests/testing.h"
#include "train/divided_model.h"

namespace retort::recipes {
namespace {

using artifacts::OpenedStored;
using models::Parameter;
using models::StoredModel;

constexpr int kRanks = 4;

models::DecoderSpec deep_spec() {
  models::DecoderSpec spec;
  spec.layers = 6;
  spec.width = 128;
  spec.heads = spec.kv_heads = 2;
  spec.head_dim = 64;
  spec.ffn_width = 512;
  spec.context = 32;
  spec.tie_embeddings = false;
  return spec;
}

quantize::QuantizeOptions grid(const std::string& name) {
  quantize::QuantizeOptions out;
  out.weights.grid = name;
  return out;
}

// The same model in several forms.
struct Files {
  testing::TemporaryDirectory directory;
  Log quiet{stderr, "", true};

  Files() {
    models::Decoder model(deep_spec());
    models::initialise(model.parameters(), "normal", 0.1, 7);
    artifacts::save_tiny(model, directory / "stage", 10, std::nullopt);
    artifacts::save_tiny(model, directory / "grid", 10, grid("q4_0"));
    const artifacts::OpenedModel opened = artifacts::open_model(directory / "stage", quiet);
    artifacts::ExportOptions options;
    options.type = "q8_0";
    artifacts::export_model(opened, options, directory / "model.gguf", local_files());
    options = {.format = "hf", .type = "bf16"};
    artifacts::export_model(opened, options, directory / "hf", local_files());
  }
};

StoredModel masters(OpenedStored opened) { return {std::move(opened.model.decoder), opened.values}; }
StoredModel base(OpenedStored opened) { return opened.take_base(); }
StoredModel adapted(OpenedStored opened) {
  models::AdapterOptions options;
  options.rank = 4;
  options.dora = true;
  options.whole = {"lm_head"};
  return models::adapt(opened.take_base(), options, 3);
}

// Scales that the model does not bring have no value.
models::ParameterValues with_scales(models::ParameterValues values) {
  return [values = std::move(values)](const Parameter& p) {
    return p.role == models::Role::kScale ? at::full(p.shape, NAN) : values(p);
  };
}

std::unique_ptr<models::WeightMap> map_of(const std::string& name, models::Parameters& parameters) {
  if (name.empty()) return std::make_unique<models::IdentityMap>();
  return std::make_unique<quantize::QuantizeMap>(grid(name), parameters);
}

struct Start {
  StoredModel model;
  std::unique_ptr<models::WeightMap> map;
  std::unique_ptr<train::Owners> owners;

  // As a train stage does.
  Start(StoredModel given, const std::string& grid, at::ScalarType dtype, comm::Comm& comm)
      : model(std::move(given)) {
    const at::NoGradGuard no_grad;
    models::Parameters& parameters = model.model->parameters();
    map = map_of(grid, parameters);
    models::bind_working(parameters, *map, dtype);
    owners =
        std::make_unique<train::Owners>(parameters, comm, train::Divided::kParameters, model.model.get());
    if (!model.values) {
      owners->divide_weights();
      return;
    }
    owners->take_weights(with_scales(model.values));
    if (!grid.empty()) owners->refresh_all(parameters, *map);
  }
  int64_t shares() const {  // bytes that this rank keeps
    int64_t sum = 0;
    for (const Parameter& p : model.model->parameters().unique()) {
      const bool divided = owners->gathered()->has(p);
      const at::Tensor working = divided ? owners->gathered()->rows(p) : p.working.detach();
      sum += static_cast<int64_t>(working.nbytes());
      if (!p.master.is_alias_of(working)) sum += static_cast<int64_t>(p.master.nbytes());
    }
    return sum;
  }
};

// Of f32 values.
int64_t largest_group(models::Model& model) {
  int64_t largest = 0;
  for (const auto& group : model.weight_groups()->groups()) {
    int64_t bytes = 0;
    for (const Parameter* p : group) bytes += 4 * p->numel();
    largest = std::max(largest, bytes);
  }
  return largest;
}

void expect_same_rows(Start& streamed, Start& whole) {
  for (const Parameter& p : streamed.model.model->parameters().unique()) {
    const Parameter& other = whole.model.model->parameters().at(p.name);
    EXPECT_TRUE(testing::same_bits(p.master, other.master)) << p.name;
    ASSERT_EQ(streamed.owners->gathered()->has(p), whole.owners->gathered()->has(other)) << p.name;
    if (streamed.owners->gathered()->has(p))
      EXPECT_TRUE(
          testing::same_bits(streamed.owners->gathered()->rows(p), whole.owners->gathered()->rows(other)))
          << p.name;
    else
      EXPECT_TRUE(testing::same_bits(p.working.detach(), other.working.detach())) << p.name;
    EXPECT_EQ(p.frozen, other.frozen) << p.name;
    EXPECT_EQ(p.working.requires_grad(), other.working.requires_grad()) << p.name;
  }
}

struct Case {
  std::string file;
  StoredModel (*form)(OpenedStored);
  std::string grid;
  at::ScalarType dtype;
};

const std::vector<Case> kCases = {
    {"hf", masters, "", at::kFloat},         {"hf", masters, "", at::kBFloat16},
    {"model.gguf", masters, "", at::kFloat}, {"stage", masters, "", at::kBFloat16},
    {"stage", adapted, "", at::kFloat},      {"hf", adapted, "", at::kBFloat16},
    {"grid", base, "", at::kFloat},          {"stage", masters, "q4_0", at::kFloat},
    {"hf", masters, "lsq4", at::kBFloat16},  {"model.gguf", masters, "nvfp4", at::kFloat},
    {"grid", masters, "lsq4", at::kFloat},
};

}  // namespace

TEST(StoredStart, ARankHoldsItsSharesAndAGroup) {
  Files files;
  for (const Case& one : kCases) {
    const testing::CountedTensors counted;
    comm::run_thread_ranks(kRanks, [&](comm::Comm& comm) {
      SCOPED_TRACE(one.file + " " + one.grid);
      testing::CountedTensors::OfThread mine;
      Start start(one.form(artifacts::open_stored(files.directory / one.file, files.quiet)), one.grid,
                  one.dtype, comm);
      const int64_t peak = mine.peak(), largest = largest_group(*start.model.model);
      EXPECT_LE(peak, start.shares() + largest);
      EXPECT_LT(start.shares() + largest, 4 * start.model.model->parameters().stored());
      if (one.grid != "") return;
      mine.begin();
      OpenedStored whole{artifacts::open_model(files.directory / one.file, files.quiet), {}};
      EXPECT_GT(mine.peak(), 4 * start.model.model->parameters().stored()) << "the count sees a whole model";
    });
  }
}

// After the first step's scales too.
TEST(StoredStart, ItsRowsAreThoseOfAModelThatWasWhole) {
  Files files;
  for (const Case& one : kCases)
    comm::run_thread_ranks(kRanks, [&](comm::Comm& comm) {
      SCOPED_TRACE(one.file + " " + one.grid);
      const Path path = files.directory / one.file;
      Start streamed(one.form(artifacts::open_stored(path, files.quiet)), one.grid, one.dtype, comm);
      Start whole(one.form({artifacts::open_model(path, files.quiet), {}}), one.grid, one.dtype, comm);
      ASSERT_TRUE(streamed.model.values);
      ASSERT_FALSE(whole.model.values);
      expect_same_rows(streamed, whole);
      for (Start* start : {&streamed, &whole})
        if (start->map->begin_step(0))
          start->owners->refresh_all(start->model.model->parameters(), *start->map);
      expect_same_rows(streamed, whole);
    });
}

// A reference and a teacher: no masters, and the hidden states of a whole one.
TEST(StoredStart, ADividedModelGivesTheSameStates) {
  Files files;
  const at::NoGradGuard no_grad;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const testing::CountedTensors counted;
    comm::run_thread_ranks(kRanks, [&](comm::Comm& comm) {
      const testing::Threads one_thread(1);
      testing::CountedTensors::OfThread mine;
      OpenedStored opened = artifacts::open_stored(files.directory / "hf", files.quiet);
      train::DividedModel divided(std::move(opened.model.decoder), dtype, comm, 2);
      divided.take(opened.values);
      const int64_t elements = divided.model().parameters().stored(),
                    largest = largest_group(divided.model());
      // Of two groups of two ranks each.
      EXPECT_LE(mine.peak(), elements * static_cast<int64_t>(c10::elementSize(dtype)) * 6 / 10 + largest);
      artifacts::OpenedModel whole = artifacts::open_model(files.directory / "hf", files.quiet);
      models::IdentityMap identity;
      models::bind_working(whole.decoder->parameters(), identity, dtype);
      const at::Tensor tokens_BT = at::arange(comm.rank(), comm.rank() + 32).view({2, 16});
      EXPECT_TRUE(testing::same_bits(divided.model().hidden({.tokens_BT = tokens_BT}),
                                     whole.decoder->hidden({.tokens_BT = tokens_BT})));
      EXPECT_TRUE(testing::same_bits(divided.model().head().weight_VD.detach(),
                                     whole.decoder->head().weight_VD.detach()));
      for (const Parameter& p : divided.model().parameters().unique())
        EXPECT_EQ(p.master.numel(), 0) << p.name;
    });
  }
}

TEST(StoredStart, WhatIsNotFiniteIsRefusedByAll) {
  comm::run_thread_ranks(2, [&](comm::Comm& comm) {
    models::Decoder model(deep_spec());
    models::initialise(model.parameters(), "normal", 0.1, 7);
    model.parameters().at("layers.3.ffn.up.weight").master.view(-1)[0] = NAN;  // of one rank's rows
    train::DividedModel divided(std::make_unique<models::Decoder>(deep_spec(), at::kMeta), at::kFloat, comm,
                                1);
    EXPECT_THROW(
        comm::together(
            comm,
            [&] { divided.take([&](const Parameter& p) { return model.parameters().at(p.name).master; }); }),
        comm::SharedError);
  });
}

}  // namespace retort::recipes
