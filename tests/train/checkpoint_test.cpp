#include "train/checkpoint.h"

#include <gmock/gmock.h>

#include <cmath>
#include <fstream>

#include "comm/comm.h"
#include "core/digest.h"
#include "core/error.h"
#include "tests/refused_reads.h"
#include "tests/testing.h"
#include "tests/train/captured_log.h"
#include "tests/train/faulty_files.h"
#include "train/manifest.h"

namespace retort::train {
namespace {

using testing::TemporaryDirectory;

const std::vector<std::string> kFiles = {"weights.safetensors", "optimizer.safetensors", "recipe.yaml",
                                         "manifest.json"};

// A content that its step determines.
CheckpointContent content(int64_t step) {
  const auto value = static_cast<double>(step);
  return {
      .step = step,
      .extra = {{"tokens", 100 * step}, {"loss", 1.0 / value}},
      .recipe = fmt::format("run: {{ seed: {} }}\n", step),
      .weights = {{"a", at::full({3, 5}, value)}, {"b", at::arange(7) * std::sqrt(value)}},
      .optimizer = {{"adamw.step", at::full({}, step, at::kLong)}, {"adamw.m.a", at::full({3, 5}, -value)}}};
}

void expect_content(const LoadedCheckpoint& loaded, int64_t step) {
  const CheckpointContent expected = content(step);
  EXPECT_EQ(loaded.step, step);
  EXPECT_EQ(loaded.extra, expected.extra);
  EXPECT_EQ(loaded.recipe, expected.recipe);
  ASSERT_EQ(loaded.weights.size(), expected.weights.size());
  ASSERT_EQ(loaded.optimizer.size(), expected.optimizer.size());
  for (const auto& [name, tensor] : expected.weights)
    EXPECT_TRUE(testing::same_bits(loaded.weights.at(name), tensor)) << name;
  for (const auto& [name, tensor] : expected.optimizer)
    EXPECT_TRUE(testing::same_bits(loaded.optimizer.at(name), tensor)) << name;
}

void save(const Path& directory, int64_t step, int64_t keep = 2) {
  save_checkpoint(quick_files(), directory, content(step), keep, quick_files());
}

std::vector<std::string> entries(const Path& directory) {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    out.push_back(entry.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

bool has_temporaries(const Path& directory) {
  for (const std::string& name : entries(directory))
    if (name.find(".tmp") != name.npos) return true;
  return false;
}

void flip_bit(const Path& path, uint64_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  const char byte = static_cast<char>(file.get() ^ 0x10);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(byte);
}

std::string error_of(const Path& checkpoint) {
  try {
    load_checkpoint(checkpoint);
  } catch (const CheckpointError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST(Checkpoint, KeepsTheTokenizersFiles) {
  testing::TemporaryDirectory directory;
  CheckpointContent with = content(5);
  with.tokenizer = {{"tokenizer.json", "{}"}, {"tokenizer_config.json", "{ }"}};
  save_checkpoint(quick_files(), directory.path(), with, 1);
  const Path checkpoint = directory / "step_00000005";
  expect_content(load_checkpoint(checkpoint), 5);
  EXPECT_EQ(read_text(checkpoint / "tokenizer_config.json"), "{ }");
  flip_bit(checkpoint / "tokenizer.json", 1);
  EXPECT_THAT(error_of(checkpoint), ::testing::HasSubstr("tokenizer.json"));
}

TEST(Checkpoint, RoundTrips) {
  TemporaryDirectory run;
  save_checkpoint(local_files(), run.path(), content(400), 2);
  const Path path = run / "step_00000400";
  expect_content(load_checkpoint(path), 400);
  EXPECT_EQ(read_text(run / "LATEST"), "step_00000400\n");
  std::vector<std::string> sorted = kFiles;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(entries(path), sorted);
}

TEST(Checkpoint, EqualContentIsEqualBytes) {
  TemporaryDirectory one, two;
  save(one.path(), 10);
  save(two.path(), 5);
  save(two.path(), 10, 1);
  EXPECT_EQ(entries(one.path()), entries(two.path()));
  for (const std::string& name : kFiles)
    EXPECT_EQ(read_text(one / "step_00000010" / name), read_text(two / "step_00000010" / name)) << name;
}

TEST(Checkpoint, NothingThereIsNothingLoaded) {
  TemporaryDirectory run;
  CapturedLog log;
  EXPECT_FALSE(load_latest_checkpoint(run / "none", *log));
  std::filesystem::create_directory(run / "step_00000010.tmp.77");
  std::filesystem::create_directory(run / "step_10");
  EXPECT_FALSE(load_latest_checkpoint(run.path(), *log));
  EXPECT_EQ(log.text(), "");
}

TEST(Checkpoint, KeepsTheNewestAndClearsWhatFailedSavesLeft) {
  TemporaryDirectory run;
  for (const int64_t step : {10, 20, 30}) save(run.path(), step);
  std::filesystem::create_directory(run / "step_00000025.tmp.77");
  save(run.path(), 40);
  EXPECT_EQ(entries(run.path()), (std::vector<std::string>{"LATEST", "step_00000030", "step_00000040"}));
}

TEST(Checkpoint, AnAbandonedFutureGoes) {
  TemporaryDirectory run;
  for (const int64_t step : {10, 20}) save(run.path(), step);
  flip_bit(run / "step_00000020" / "weights.safetensors", 200);
  CapturedLog log;
  expect_content(*load_latest_checkpoint(run.path(), *log), 10);
  save(run.path(), 15);  // the run went on from 10
  EXPECT_EQ(entries(run.path()), (std::vector<std::string>{"LATEST", "step_00000010", "step_00000015"}));
  expect_content(*load_latest_checkpoint(run.path(), *log), 15);
}

TEST(Checkpoint, WhatAKilledSaveHasLeftGoesWithoutAnotherSave) {
  TemporaryDirectory run;
  for (const int64_t step : {10, 20, 30}) save(run.path(), step, 3);
  std::filesystem::create_directory(run / "step_00000040.tmp.77");
  std::filesystem::create_directory(run / "LATEST.tmp.77");
  finish_save(quick_files(), run.path(), 20, 1);  // 30 was passed over
  EXPECT_EQ(read_text(run / "LATEST"), "step_00000020\n");
  EXPECT_EQ(entries(run.path()), (std::vector<std::string>{"LATEST", "step_00000020", "step_00000030"}));
  expect_content(load_checkpoint(run / "step_00000020"), 20);
}

TEST(Checkpoint, ReplacesADamagedOneOfTheSameStep) {
  TemporaryDirectory run;
  for (const int64_t step : {10, 20}) save(run.path(), step);
  flip_bit(run / "step_00000020" / "weights.safetensors", 200);
  save(run.path(), 20);
  expect_content(load_checkpoint(run / "step_00000020"), 20);
  EXPECT_FALSE(has_temporaries(run.path()));
}

// ---- Faults while saving

// Every operation of a save fails once; afterwards a whole checkpoint loads, and the next save cleans up.
void fail_everywhere(Fault fault, int64_t keep) {
  CapturedLog log;
  int64_t at = 0;
  for (bool fired = true; fired; ++at) {
    TemporaryDirectory run;
    save(run.path(), 10, keep);
    FaultyFiles files(fault, at);
    bool finished = false;
    try {
      save_checkpoint(files, run.path(), content(20), keep, files);
      finished = true;
    } catch (const IoError&) {
      EXPECT_NE(fault, Fault::kCrash);
      EXPECT_FALSE(has_temporaries(run.path())) << "operation " << at;
    } catch (const Crash&) {
      EXPECT_EQ(fault, Fault::kCrash);
    }
    fired = files.fired();
    const auto loaded = load_latest_checkpoint(run.path(), *log);
    ASSERT_TRUE(loaded.has_value()) << "operation " << at;
    EXPECT_TRUE(!finished || loaded->step == 20) << "operation " << at;
    expect_content(*loaded, loaded->step == 20 ? 20 : 10);

    save(run.path(), 30, keep);
    EXPECT_FALSE(has_temporaries(run.path())) << "operation " << at;
    expect_content(*load_latest_checkpoint(run.path(), *log), 30);
  }
  EXPECT_GT(at, 30);  // 3 + 1 files are made, written, synced and closed, then renamed
}

TEST(Checkpoint, Fault15AFullDiskInAnyOperationLeavesTheOneBefore) { fail_everywhere(Fault::kNoSpace, 1); }

TEST(Checkpoint, Fault03ACrashInAnyOperationLeavesAWholeCheckpoint) { fail_everywhere(Fault::kCrash, 1); }

TEST(Manifest, ABlockThatIsNotFullHasADigestToo) {
  EXPECT_EQ(
      (SavedTensor{.name = "w", .dtype = "F32", .shape = {5}, .begin = 8, .end = 28, .block = 8}.blocks()),
      3);
  EXPECT_EQ(
      (SavedTensor{.name = "w", .dtype = "F32", .shape = {4}, .begin = 8, .end = 24, .block = 8}.blocks()),
      2);
  EXPECT_EQ(
      (SavedTensor{.name = "w", .dtype = "F32", .shape = {0}, .begin = 8, .end = 8, .block = 8}.blocks()), 0);
}

TEST(Checkpoint, Fault20ALyingDiskIsFoundBeforeAnythingOlderGoes) { fail_everywhere(Fault::kLie, 1); }

// Two are kept. The newest is damaged after it was verified: the one before is there; and when the newest is
// damaged as a save begins, that one goes only after the new one has been verified.
TEST(Checkpoint, Fault20TheLastVerifiedOneOutlivesTheRotation) {
  TemporaryDirectory run;
  for (const int64_t step : {10, 20, 30}) save(run.path(), step);
  flip_bit(run / "step_00000030" / "optimizer.safetensors", 100);
  CapturedLog log;
  expect_content(*load_latest_checkpoint(run.path(), *log), 20);
  FaultyFiles full(Fault::kNoSpace, 20);
  EXPECT_THROW(save_checkpoint(full, run.path(), content(40), 2, full), IoError);
  expect_content(*load_latest_checkpoint(run.path(), *log), 20);
  save(run.path(), 40);
  EXPECT_EQ(entries(run.path()), (std::vector<std::string>{"LATEST", "step_00000030", "step_00000040"}));
  expect_content(*load_latest_checkpoint(run.path(), *log), 40);
}

TEST(Checkpoint, Fault15AFullDiskShowsBeforeAnythingIsWritten) {
  struct Full final : QuickFiles {
    std::unique_ptr<WritableFile> create(const Path& path, uint64_t bytes) override {
      ADD_FAILURE() << "created " << path;
      return QuickFiles::create(path, bytes);
    }
    uint64_t free_bytes(const Path&) override { return 300; }
  } files;
  TemporaryDirectory run;
  EXPECT_THROW(save_checkpoint(files, run.path(), content(10), 2), IoError);
  EXPECT_TRUE(entries(run.path()).empty());
}

// ---- Damage found while loading

TEST(Checkpoint, Fault12ABitFlippedAnywhereIsFoundAndItsFileNamed) {
  TemporaryDirectory run;
  save(run.path(), 10);
  const Path path = run / "step_00000010";
  for (const std::string& name : kFiles) {
    const uint64_t size = std::filesystem::file_size(path / name);
    for (uint64_t at = 0; at < size; at += at + 5 < size ? 5 : 1) {
      flip_bit(path / name, at);
      EXPECT_NE(error_of(path).find(name), std::string::npos)
          << name << " byte " << at << ": " << error_of(path);
      flip_bit(path / name, at);
    }
  }
  expect_content(load_checkpoint(path), 10);
}

// Of version 1, whose digests are of whole tensors and files.
TEST(Checkpoint, TheFirstManifestsAreStillRead) {
  TemporaryDirectory run;
  save(run.path(), 10);
  const Path path = run / "step_00000010";
  formats::Json manifest = formats::read_json(path / "manifest.json").at("manifest");
  EXPECT_EQ(manifest.at("version"), 2);
  manifest["version"] = 1;
  for (auto& file : manifest["files"]) {
    const std::string bytes = read_text(path / file.at("name").get<std::string>());
    file["xxh3"] = hex(xxh3(bytes));
    for (auto& tensor : file["tensors"]) {
      const size_t begin = tensor.at("begin"), end = tensor.at("end");
      tensor["xxh3"] = hex(xxh3(std::string_view(bytes).substr(begin, end - begin)));
      tensor.erase("block");
    }
  }
  std::ofstream(path / "manifest.json")
      << formats::Json{{"manifest", manifest}, {"xxh3", hex(xxh3(manifest.dump(1)))}}.dump(1) << "\n";
  expect_content(load_checkpoint(path), 10);
  flip_bit(path / "weights.safetensors", std::filesystem::file_size(path / "weights.safetensors") - 1);
  EXPECT_THAT(error_of(path), ::testing::HasSubstr("weights.safetensors: damaged: b does not match"));
}

TEST(Checkpoint, Fault12DamageInATensorNamesIt) {
  TemporaryDirectory run;
  save(run.path(), 10);
  const Path file = run / "step_00000010" / "optimizer.safetensors";
  flip_bit(file, std::filesystem::file_size(file) - 1);
  EXPECT_NE(error_of(run / "step_00000010").find("adamw.m.a"), std::string::npos)
      << error_of(run / "step_00000010");
}

TEST(Checkpoint, Fault11ATruncatedOrMissingFileFallsBackWithAWarning) {
  for (const std::string& name : kFiles)
    for (const double share : {0.0, 0.5, 0.99, -1.0}) {
      TemporaryDirectory run;
      for (const int64_t step : {10, 20}) save(run.path(), step);
      const Path file = run / "step_00000020" / name;
      if (share < 0)
        std::filesystem::remove(file);
      else
        std::filesystem::resize_file(
            file, static_cast<uint64_t>(share * static_cast<double>(std::filesystem::file_size(file))));
      CapturedLog log;
      const auto loaded = load_latest_checkpoint(run.path(), *log);
      ASSERT_TRUE(loaded.has_value());
      expect_content(*loaded, 10);
      EXPECT_TRUE(log.says(name) && log.says("step_00000020") && log.says("warning")) << log.text();
    }
}

TEST(Checkpoint, AModelWhoseNewestCheckpointIsDamagedWarnsOnce) {
  TemporaryDirectory run;
  for (const int64_t step : {10, 20}) save(run.path(), step);
  flip_bit(run / "step_00000020/weights.safetensors", 150);
  CapturedLog log;
  expect_content(*load_model_checkpoint(run.path(), *log), 10);
  const std::string text = log.text(), words = "; falling back to the checkpoint before";
  EXPECT_NE(text.find(words), text.npos) << text;
  EXPECT_EQ(text.find("falling back"), text.rfind("falling back")) << text;
}

TEST(Checkpoint, Fault11AStrictLoadRefusesADamagedNewestOneOnEveryRank) {
  TemporaryDirectory run;
  for (const int64_t step : {10, 20}) save(run.path(), step);
  CapturedLog log;
  const auto self = comm::make_self_comm();
  const auto strict = [&](comm::Comm& comm, int64_t until = INT64_MAX) {
    return load_latest_checkpoint(run.path(), *log, comm, until, /*strict=*/true);
  };
  expect_content(*strict(*self), 20);
  flip_bit(run / "step_00000020/weights.safetensors", 150);
  EXPECT_THROW(strict(*self), CheckpointError);
  expect_content(*strict(*self, 10), 10);
  comm::run_thread_ranks(2, [&](comm::Comm& comm) {
    try {
      strict(comm);
      ADD_FAILURE() << "rank " << comm.rank() << " goes on";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadData);
      EXPECT_THAT(error.what(), ::testing::HasSubstr("step_00000020/weights.safetensors"));
    }
  });
  EXPECT_EQ(log.text(), "");
}

TEST(Checkpoint, Fault16OneThatTheDiskRefusesFallsBackWithAWarning) {
  TemporaryDirectory run;
  for (const int64_t step : {10, 20}) save(run.path(), step);
  testing::Reads reads;
  for (const std::string& name : kFiles) {
    reads.refused = "step_00000020/" + name;
    CapturedLog log;
    expect_content(*load_latest_checkpoint(run.path(), *log), 10);
    EXPECT_TRUE(log.says(reads.refused + ": cannot read: Input/output error")) << log.text();
    EXPECT_THROW(load_latest_checkpoint(run.path(), *log, *comm::make_self_comm(), 20, /*strict=*/true),
                 CheckpointError);
  }
  reads.refused = "/weights.safetensors";
  CapturedLog log;
  EXPECT_THROW(load_latest_checkpoint(run.path(), *log), CheckpointError);
}

TEST(Checkpoint, Fault16InterruptedAndShortReadsGoOn) {
  TemporaryDirectory run;
  save(run.path(), 10);
  testing::Reads reads;
  reads.interruptions = 20, reads.most = 13;
  expect_content(load_checkpoint(run / "step_00000010"), 10);
  EXPECT_EQ(reads.interruptions, 0);
}

TEST(Checkpoint, AllDamagedIsAnError) {
  TemporaryDirectory run;
  for (const int64_t step : {10, 20}) {
    save(run.path(), step);
    flip_bit(run / fmt::format("step_{:08}", step) / "weights.safetensors", 150);
  }
  CapturedLog log;
  EXPECT_THROW(load_latest_checkpoint(run.path(), *log), CheckpointError);
  EXPECT_TRUE(log.says("step_00000010") && log.says("step_00000020")) << log.text();
}

TEST(Checkpoint, Fault14FilesOfAnotherCheckpointAndStrangersAreRefused) {
  TemporaryDirectory run;
  for (const int64_t step : {10, 20}) save(run.path(), step);
  const Path ten = run / "step_00000010", twenty = run / "step_00000020";
  std::ofstream(ten / "stranger.safetensors") << "x";
  EXPECT_NE(error_of(ten).find("stranger"), std::string::npos) << error_of(ten);
  for (const char* name : {"weights.safetensors", "optimizer.safetensors", "recipe.yaml"}) {
    const std::string own = read_text(twenty / name);
    std::filesystem::copy_file(ten / name, twenty / name, std::filesystem::copy_options::overwrite_existing);
    EXPECT_THAT(error_of(twenty), ::testing::HasSubstr(name));
    std::filesystem::remove(twenty / name);
    EXPECT_THAT(error_of(twenty), ::testing::HasSubstr(name));
    std::ofstream(twenty / name, std::ios::binary) << own;
  }
  expect_content(load_checkpoint(twenty), 20);
  std::filesystem::remove(ten / "stranger.safetensors");
  std::filesystem::rename(ten, run / "step_00000030");
  EXPECT_NE(error_of(run / "step_00000030"), "");  // a whole checkpoint of step 10 under a wrong name
}

TEST(Checkpoint, RanksFallBackTogether) {
  TemporaryDirectory shared, other;  // rank 1 sees a damaged newest one
  for (const int64_t step : {10, 20}) save(shared.path(), step), save(other.path(), step);
  flip_bit(other / "step_00000020" / "recipe.yaml", 3);
  comm::run_thread_ranks(2, [&](comm::Comm& comm) {
    CapturedLog log;
    const auto loaded = load_latest_checkpoint(comm.rank() == 0 ? shared.path() : other.path(), *log, comm);
    ASSERT_TRUE(loaded.has_value());
    EXPECT_EQ(loaded->step, 10);
  });
}

TEST(Checkpoint, WeightsGoIntoTheSameModelOnly) {
  TemporaryDirectory run;
  save(run.path(), 10);
  const LoadedCheckpoint loaded = load_checkpoint(run / "step_00000010");
  models::Parameters same, reshaped, fewer;
  same.add("a", {3, 5}, models::Role::kMatrix);
  same.add("b", {7}, models::Role::kNorm);
  copy_weights(loaded, same);
  EXPECT_TRUE(testing::same_bits(same.at("a").master, content(10).weights[0].second));
  reshaped.add("a", {5, 3}, models::Role::kMatrix);
  reshaped.add("b", {7}, models::Role::kNorm);
  EXPECT_THROW(copy_weights(loaded, reshaped), CheckpointError);
  fewer.add("a", {3, 5}, models::Role::kMatrix);
  EXPECT_THROW(copy_weights(loaded, fewer), CheckpointError);
}

// Several blocks of a tensor, one that is not contiguous and one without dimensions, are written block by
// block and read as what they were, digests included.
TEST(Checkpoint, TensorsOfManyBlocksRoundTrip) {
  TemporaryDirectory run;
  const at::Tensor wide = at::arange(300 * 131, at::kFloat).view({300, 131});
  ASSERT_GT(models::cut_into_blocks(wide.sizes()).count(), 1);
  CheckpointContent many = content(10);
  many.weights = {{"wide", wide}, {"turned", wide.t()}, {"none", at::empty({0, 3})}};
  save_checkpoint(quick_files(), run.path(), many, 1);
  const LoadedCheckpoint loaded = load_checkpoint(run / "step_00000010");
  for (const auto& [name, tensor] : many.weights)
    EXPECT_TRUE(testing::same_bits(loaded.weights.at(name), tensor.contiguous())) << name;
  flip_bit(run / "step_00000010" / "weights.safetensors",
           std::filesystem::file_size(run / "step_00000010" / "weights.safetensors") - 1);
  EXPECT_NE(error_of(run / "step_00000010").find("turned"), std::string::npos)
      << error_of(run / "step_00000010");
}

// They lie in one file, and are told apart by their names.
TEST(Checkpoint, WhatAnObjectiveLearnedIsNotTheModels) {
  testing::TemporaryDirectory directory;
  CheckpointContent written = content(10);
  written.weights.emplace_back("objective.p.0.weight", at::full({2}, 2.0));
  save_checkpoint(quick_files(), directory.path(), written, 1);
  const LoadedCheckpoint loaded = load_checkpoint(list_checkpoints(directory.path()).front());
  EXPECT_EQ(loaded.weights.size(), 2u);
  models::Parameters model, learned, other;
  model.add("a", {3, 5}, models::Role::kMatrix);
  model.add("b", {7}, models::Role::kNorm);
  copy_weights(loaded, model);
  EXPECT_TRUE(testing::same_bits(model.at("a").master, written.weights[0].second));
  learned.add("objective.p.0.weight", {2}, models::Role::kObjective);
  copy_learned(loaded, learned);
  EXPECT_TRUE(at::equal(learned.at("objective.p.0.weight").master, at::full({2}, 2.0)));
  EXPECT_THROW(copy_learned(loaded, other), CheckpointError);
  other.add("objective.q.0.weight", {2}, models::Role::kObjective);
  EXPECT_THROW(copy_learned(loaded, other), CheckpointError);
}

}  // namespace retort::train
