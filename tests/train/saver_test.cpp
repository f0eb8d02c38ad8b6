#include "train/saver.h"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <thread>

#include "core/error.h"
#include "models/placement.h"
#include "tests/train/tiny_run.h"
#include "train/checkpoint_writer.h"

namespace retort::train {
namespace {

using ::testing::HasSubstr;
using testing::TemporaryDirectory;

formats::NamedTensors tensors_at(int64_t step) {
  const auto value = static_cast<double>(step);
  return {{"wide", at::arange(700 * 131, at::kFloat).view({700, 131}).mul(value)},
          {"short", at::full({3}, value)},
          {"count", at::full({}, step, at::kLong)}};
}

// What one of several ranks saves; the values go after the copy was made, or never.
CheckpointContent content(int64_t step, const comm::Comm& comm) {
  CheckpointContent out{
      .step = step, .extra = {{"tokens", step}}, .recipe = "run: {}\n", .weights = {}, .optimizer = {}};
  for (const auto& [name, tensor] : tensors_at(step)) {
    const at::Tensor rows = tensor.dim() == 0 ? tensor.view({1}) : tensor;
    const models::RowBlocks blocks = models::cut_into_blocks(rows.sizes());
    const int64_t first = blocks.count() * comm.rank() / comm.size() * blocks.step,
                  end = blocks.count() * (comm.rank() + 1) / comm.size() * blocks.step;
    auto& list = name == "wide" ? out.weights : out.optimizer;
    list.emplace_back(name, at::empty(tensor.sizes(), tensor.options().device(at::kMeta)));
    out.shares[name] = {rows.slice(0, first, std::min(end, rows.size(0))), first, blocks.step};
  }
  return out;
}

// One save of several ranks, and what came of it.
SaveResult save(comm::Comm& comm, QuickFiles& files, const Path& directory, int64_t step,
                const std::string& kind) {
  Saver saver(files, files, comm, directory, 1, kind);
  saver.start(content(step, comm), Saver::Clock::now(), [](double) {});
  return saver.finish();
}

void save_on(int ranks, QuickFiles& files, const Path& directory, int64_t step, const std::string& kind) {
  comm::run_thread_ranks(
      ranks, [&](comm::Comm& comm) { EXPECT_EQ(save(comm, files, directory, step, kind).failure, ""); });
}

void expect_content(const LoadedCheckpoint& loaded) {
  for (const auto& [name, tensor] : tensors_at(loaded.step))
    EXPECT_TRUE(testing::same_bits((name == "wide" ? loaded.weights : loaded.optimizer).at(name), tensor))
        << name << " of step " << loaded.step;
}

bool has_temporaries(const Path& directory) {
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    if (entry.path().filename().string().find(".tmp.") != std::string::npos) return true;
  return false;
}

constexpr const char* kBoth[] = {"sync", "async"};

}  // namespace

TEST(Saver, Fault19AnAsynchronousSaveHasTheBytesOfASynchronousOneOnAnyRanks) {
  const testing::Threads one_thread(1);
  const TemporaryDirectory alone;
  save_on(1, quick_files(), alone / "run", 7, "sync");
  const auto expected = contents(alone / "run");
  EXPECT_EQ(expected.size(), 5u);
  for (const char* kind : kBoth)
    for (const int ranks : {1, 2, 3, 4}) {
      const TemporaryDirectory directory;
      save_on(ranks, quick_files(), directory / "run", 7, kind);
      EXPECT_TRUE(contents(directory / "run") == expected) << kind << " on " << ranks;
    }
}

namespace {

// After a second save that ended in operation `at`; `done`: or that did not. The next start has a whole checkpoint, and
// no other; its save leaves nothing temporary.
void expect_one_of_both(const Path& run, bool done, int ranks, const std::string& what) {
  CapturedLog log;
  const auto loaded = load_latest_checkpoint(run, *log);
  ASSERT_TRUE(loaded.has_value()) << what;
  EXPECT_TRUE(loaded->step == 20 || (!done && loaded->step == 10)) << what;
  expect_content(*loaded);
  EXPECT_EQ(log.text(), "") << "what was not whole was a temporary one: " << what;
  save_on(ranks, quick_files(), run, 30, "async");
  EXPECT_FALSE(has_temporaries(run)) << what;
}

}  // namespace

// A process is killed in one operation of its second save after another.
TEST(Saver, Fault03AKillAtAnyPointOfASaveLeavesAWholeCheckpoint) {
  const testing::Threads one_thread(1);
  const auto comm = comm::make_self_comm();
  for (const char* kind : kBoth) {
    int64_t at = 0;
    for (bool killed = true; killed; ++at) {
      const TemporaryDirectory run;
      ASSERT_EQ(save(*comm, quick_files(), run.path(), 10, "sync").failure, "");
      const pid_t child = fork();
      if (child == 0) {
        FaultyFiles files(Fault::kKill, at);
        save(*comm, files, run.path(), 20, kind);
        _exit(0);
      }
      int status = 0;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
      ASSERT_TRUE(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) << status;
      expect_one_of_both(run.path(), !killed, 1, fmt::format("{}, operation {}", kind, at));
    }
    EXPECT_GT(at, 30) << kind;
  }
}

// The same with two ranks, both of which end there and lose what was not synced.
TEST(Saver, Fault03ACrashAtAnyPointOfASaveOfSeveralRanksLeavesAWholeCheckpoint) {
  const testing::Threads one_thread(1);
  for (const char* kind : kBoth) {
    int64_t at = 0;
    for (bool fired = true; fired; ++at) {
      const TemporaryDirectory run;
      save_on(1, quick_files(), run.path(), 10, "sync");
      FaultyFiles files(Fault::kCrash, at);
      const auto both = [&] {
        comm::run_thread_ranks(2, [&](comm::Comm& comm) { save(comm, files, run.path(), 20, kind); });
      };
      try {
        both();
      } catch (const Crash&) {
      } catch (const Error&) {  // the peer has left
      }
      fired = files.fired();
      expect_one_of_both(run.path(), !fired, 2, fmt::format("{}, operation {}", kind, at));
    }
    EXPECT_GT(at, 30) << kind;
  }
}

// The failure of any rank, in any operation, is the failure of all, and leaves the checkpoint before it alone.
TEST(Saver, Fault15AFullDiskInAnyOperationOfAnyRankIsToldToAll) {
  const testing::Threads one_thread(1);
  for (const char* kind : kBoth) {
    int64_t at = 0;
    for (bool fired = true; fired; ++at) {
      const TemporaryDirectory run;
      save_on(1, quick_files(), run.path(), 10, "sync");
      FaultyFiles files(Fault::kNoSpace, at);
      std::vector<std::string> failures(3);
      comm::run_thread_ranks(3, [&](comm::Comm& comm) {
        const SaveResult result = save(comm, files, run.path(), 20, kind);
        EXPECT_EQ(result.step, 20);
        failures[static_cast<size_t>(comm.rank())] = result.failure;
      });
      fired = files.fired();
      EXPECT_EQ(failures, std::vector<std::string>(3, failures[0]));
      EXPECT_EQ(failures[0].empty(), !fired) << "operation " << at;
      EXPECT_THAT(failures[0], HasSubstr(fired ? "No space left" : "")) << at;
      EXPECT_FALSE(fired && has_temporaries(run.path())) << "operation " << at;
      CapturedLog log;
      expect_content(*load_latest_checkpoint(run.path(), *log));
    }
    EXPECT_GT(at, 30) << kind;
  }
}

namespace {

// Lets nobody write into a file of step 10 before it is told to.
class Gate final : public QuickFiles {
 public:
  std::unique_ptr<WritableFile> open_at(const Path& path, uint64_t offset) override {
    std::unique_lock lock(mutex_);
    const bool waits = path.string().find("step_00000010") != std::string::npos;
    if (waits && !opened_.wait_for(lock, std::chrono::seconds(60), [&] { return open_; })) timed_out_ = true;
    return QuickFiles::open_at(path, offset);
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    opened_.notify_all();
  }
  bool timed_out() const { return timed_out_; }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = false, timed_out_ = false;
};

// Says when a save begins while another one's temporary is there.
class OneAtATime final : public QuickFiles {
 public:
  void make_directories(const Path& path) override {
    EXPECT_FALSE(path.string().find(".tmp.") != std::string::npos && has_temporaries(path.parent_path()));
    QuickFiles::make_directories(path);
    ++made_;
  }
  int made() const { return made_; }

 private:
  std::atomic<int> made_ = 0;
};

class Slow final : public QuickFiles {
 public:
  std::unique_ptr<WritableFile> open_at(const Path& path, uint64_t offset) override {
    if (path.string().find("step_00000020") != std::string::npos)
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
    return QuickFiles::open_at(path, offset);
  }
};

}  // namespace

namespace {

// The longest file that this process may write, as by ulimit -f.
class FileLimit {
 public:
  explicit FileLimit(rlim_t bytes) {
    before_handler_ = ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, before_handler_);
  }

 private:
  rlimit before_{};
  sighandler_t before_handler_;
};

}  // namespace

// A write that the system cuts short goes on where it ended, up to the system's own error.
TEST(Saver, Fault16AShortWriteGoesOnAndEndsInTheSystemsError) {
  const TemporaryDirectory directory;
  const Path path = directory / "file";
  write_durably(local_files(), path, std::string(10, 'a'));
  const std::string text(300, 'b');
  {
    const FileLimit limit(100);
    const auto file = local_ranges().open_at(path, 40);
    try {
      file->append(as_bytes(text));
      ADD_FAILURE() << "300 bytes were written";
    } catch (const IoError& error) {
      EXPECT_THAT(error.what(), HasSubstr(path.string() + ": cannot write: File too large"));
    }
  }
  EXPECT_EQ(read_text(path), std::string(10, 'a') + std::string(30, '\0') + std::string(60, 'b'));
  const auto file = local_ranges().open_at(path, 5);
  file->append(as_bytes(text).first(2));
  file->sync();
  file->close();
  EXPECT_EQ(read_text(path).substr(0, 10), "aaaaabbaaa");
  EXPECT_THROW(local_ranges().open_at(directory / "none", 0), IoError);
}

// No file may be as long as a checkpoint's, or there can be no directory: a failed save, and nothing is left of it.
TEST(Saver, Fault16WhatTheSystemRefusesIsAFailedSave) {
  const testing::Threads one_thread(1);
  const TemporaryDirectory directory;
  write_durably(local_files(), directory / "file", "");
  std::filesystem::create_directory(directory / "run");
  for (const char* kind : kBoth)
    comm::run_thread_ranks(2, [&](comm::Comm& comm) {
      EXPECT_THAT(save(comm, quick_files(), directory / "file", 10, kind).failure,
                  HasSubstr("cannot create directory: Not a directory"));
    });
  const FileLimit limit(100'000);
  for (const char* kind : kBoth)
    comm::run_thread_ranks(2, [&](comm::Comm& comm) {
      EXPECT_THAT(save(comm, quick_files(), directory / "run", 10, kind).failure,
                  HasSubstr("File too large"));
    });
  EXPECT_TRUE(std::filesystem::is_empty(directory / "run"));
}

// Two writers of a half each, one after the other, make the files of one that writes all.
TEST(CheckpointWriter, PartsMakeTheBytesOfTheWhole) {
  const TemporaryDirectory directory;
  const at::Tensor w = at::arange(48, at::kFloat).view({12, 4});
  const auto write = [&](const Path& run, const std::vector<std::pair<int64_t, int64_t>>& parts) {
    std::vector<std::unique_ptr<CheckpointWriter>> writers;
    for (const auto& [begin, end] : parts) {
      CheckpointContent part{
          .step = 3, .extra = {{"tokens", 9}}, .recipe = "run: {}\n", .weights = {}, .optimizer = {}};
      part.weights.emplace_back("w", at::empty({12, 4}, at::TensorOptions(at::kFloat).device(at::kMeta)));
      part.shares["w"] = {w.slice(0, begin, end), begin, 3};
      writers.push_back(
          std::make_unique<CheckpointWriter>(local_files(), local_ranges(), run, part, ".tmp.test"));
    }
    writers.front()->reserve();
    std::vector<int64_t> digests;
    for (const auto& writer : writers) {
      const std::vector<int64_t> mine = writer->write();
      digests.resize(mine.size());
      for (size_t i = 0; i < mine.size(); ++i) digests[i] += mine[i];
    }
    writers.front()->commit(digests, 1);
  };
  write(directory / "one", {{0, 12}});
  write(directory / "two", {{0, 6}, {6, 12}});
  EXPECT_TRUE(contents(directory / "one") == contents(directory / "two"));
  EXPECT_TRUE(
      testing::same_bits(load_checkpoint(list_checkpoints(directory / "two").at(0)).weights.at("w"), w));
}

// Steps are taken while a checkpoint is being written, which holds what the weights were before them.
TEST(Saver, Fault19TrainingGoesOnDuringASaveAndChangesNoByteOfIt) {
  for (const int ranks : {1, 2}) {
    const TemporaryDirectory gated_run, run;
    TinyRun gated, plain;
    gated.ranks = plain.ranks = ranks;
    gated.options.checkpoint_every = plain.options.checkpoint_every = 10;
    gated.options.keep_checkpoints = plain.options.keep_checkpoints = 3;
    plain.options.save = "sync";
    Gate gate;
    gated.files = &gate;
    gated.before_step = [&](int rank, int64_t step, std::atomic<bool>&) {
      if (rank != 0 || step != 16) return;
      EXPECT_TRUE(list_checkpoints(gated_run / "checkpoints").empty()) << "ten updates are done";
      gate.open();
    };
    gated(gated_run.path());
    plain(run.path());
    EXPECT_FALSE(gate.timed_out());
    EXPECT_EQ(list_checkpoints(run / "checkpoints").size(), 2u);
    EXPECT_TRUE(contents(gated_run.path()) == contents(run.path())) << ranks;
  }
}

TEST(Saver, ASaveWaitsForTheOneBefore) {
  for (const int ranks : {1, 2}) {
    const TemporaryDirectory run, whole;
    TinyRun often, once;
    often.ranks = once.ranks = ranks;
    often.options.checkpoint_every = 1;
    OneAtATime files;
    often.files = &files;
    often(run.path());
    once(whole.path());
    EXPECT_GE(files.made(), 20);
    expect_same(run.path(), whole.path());
  }
}

// A crash in the background: LATEST names a checkpoint that is whole, and the run goes on from it to the same bytes.
TEST(Saver, Fault18ACrashBeforeASaveIsDurableLeavesTheOneBefore) {
  const TemporaryDirectory whole;
  const auto tiny = [] {
    TinyRun out;
    out.ranks = 2, out.micro_batches = 1;
    out.options.steps = 8;
    out.options.validate_every = 0;
    out.options.checkpoint_every = 3;
    return out;
  };
  TinyRun undisturbed = tiny();
  FaultyFiles counting(Fault::kCrash, -1);
  undisturbed.files = &counting;
  undisturbed(whole.path());
  for (int64_t at = 11; at < counting.operations(); at += 8) {
    const TemporaryDirectory directory;
    TinyRun crashed = tiny(), again = tiny();
    FaultyFiles files(Fault::kCrash, at);
    crashed.files = &files;
    EXPECT_ANY_THROW(crashed(directory.path())) << "operation " << at;
    const Path checkpoints = directory / "checkpoints";
    if (std::filesystem::exists(checkpoints / "LATEST")) {
      std::string latest = read_text(checkpoints / "LATEST");
      latest.pop_back();
      EXPECT_NO_THROW(load_checkpoint(checkpoints / latest)) << "operation " << at;
    }
    again(directory.path());
    expect_same(directory.path(), whole.path());
  }
}

// What a save keeps training from is in progress.json; in the background that is no writing.
TEST(Saver, TheStallIsMeasured) {
  std::map<std::string, double> seconds;
  for (const char* kind : kBoth) {
    const TemporaryDirectory run;
    TinyRun tiny;
    tiny.options.save = kind;
    Slow files;
    tiny.files = &files;
    tiny(run.path());
    const formats::Json progress = formats::read_json(run / "progress.json");
    EXPECT_EQ(progress.at("step"), 20);
    seconds[kind] = progress.at("save_stall_seconds");
  }
  EXPECT_GE(seconds["sync"], 0.5);
  EXPECT_GT(seconds["async"], 0.0);
  EXPECT_LT(seconds["async"], seconds["sync"]);
}

// The copy stays for the next save, and is named among what holds memory.
TEST(Saver, TheCopyOfASaveIsNamedAmongWhatHoldsMemory) {
  for (const char* kind : kBoth) {
    const TemporaryDirectory run;
    TinyRun tiny;
    tiny.options.save = kind;
    tiny.options.steps = 5;
    tiny.options.checkpoint_every = 1;
    tiny.before_run = [](int, TrainerParts& parts) { parts.profile = 1; };
    tiny(run.path());
    EXPECT_THAT(tiny.log, HasSubstr("what holds cpu's memory"));
    EXPECT_EQ(tiny.log.find("| saves ") != std::string::npos, std::string(kind) == "async")
        << tiny.log;
  }
}

// A run that ends on steps that are not finite has the checkpoint that was being written.
TEST(Saver, NonFiniteStepsWaitForTheSave) {
  const TemporaryDirectory run;
  TinyRun tiny;
  tiny.ranks = 2, tiny.micro_batches = 1;
  tiny.options.checkpoint_every = 10;
  tiny.options.max_skipped = 1;
  tiny.poison_from = 10;
  EXPECT_THROW(tiny(run.path()), NonFiniteError);
  EXPECT_EQ(load_checkpoint(run / "checkpoints/step_00000010").step, 10);
}

}  // namespace retort::train
