// The binary, as a user runs it: tests/recipes/mini.yaml, killed, interrupted, and under mpirun.
#include <gmock/gmock.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "core/error.h"
#include "distill/teacher_cache.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "tests/recipes/process.h"
#include "tests/testing.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;
using testing::binary;
using testing::Process;

class SlowEndToEnd : public ::testing::Test {
 protected:
  SlowEndToEnd() {
    std::ofstream text(directory_ / "a.txt");
    for (int i = 0; i < 600; ++i)
      text << "In line " << i << " is " << i * i << ", and then comes the next.\n";
  }

  std::vector<std::string> command(const std::string& run, const std::vector<std::string>& sets = {}) const {
    std::vector<std::string> out = {binary().string(),
                                    "run",
                                    (testing::source_directory() / "tests/recipes/mini.yaml").string(),
                                    "--set",
                                    "run.text=" + (directory_ / "a.txt").string(),
                                    "--set",
                                    "run.dir=" + (directory_ / run).string()};
    for (const std::string& set : sets) out.insert(out.end(), {"--set", set});
    return out;
  }
  int execute(const std::vector<std::string>& command, const std::string& out) const {
    return Process(command, directory_ / out).wait();
  }
  std::string said(const std::string& out) const { return read_text(directory_ / (out + ".err")); }
  std::string printed(const std::string& out) const { return read_text(directory_ / (out + ".out")); }

  // Runs until a checkpoint of the teacher is there, and stops it there and then.
  int stop_in_the_teacher(const std::string& run, int signal) const {
    // More steps than can be done before the signal arrives.
    Process process(command(run, {"stages.teacher.train.steps=300"}), directory_ / (run + "-stopped"));
    const Path checkpoint = directory_ / run / "teacher" / "checkpoints" / "LATEST";
    while (process.running() && !fs::exists(checkpoint))
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_TRUE(process.signal(signal)) << "the run ended by itself: " << said(run + "-stopped");
    return process.wait();
  }

  // Every file of a directory, as one text.
  static std::string bytes_in(const Path& directory) {
    std::vector<Path> files;
    for (const auto& entry : fs::directory_iterator(directory)) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    std::string out;
    for (const Path& file : files) out += file.filename().string() + read_text(file);
    return out;
  }
  std::string checkpoint_bytes(const std::string& run, const std::string& stage) const {
    const Path checkpoints = directory_ / run / stage / "checkpoints";
    std::string newest = read_text(checkpoints / "LATEST");
    while (!newest.empty() && std::isspace(static_cast<unsigned char>(newest.back())) != 0) newest.pop_back();
    return newest + bytes_in(checkpoints / newest);
  }
  void expect_equal_checkpoints(const std::string& a, const std::string& b) const {
    for (const char* stage : {"teacher", "student", "qat"})
      EXPECT_TRUE(checkpoint_bytes(a, stage) == checkpoint_bytes(b, stage))
          << stage << " of " << a << " and " << b;
  }

  // The blocks also name the teacher by its path, which differs.
  void expect_equal_labels(const std::string& a, const std::string& b) const {
    const distill::TeacherCache mine(directory_ / a / "labels" / "cache"),
        theirs(directory_ / b / "labels" / "cache");
    mine.verify();
    theirs.verify();
    ASSERT_EQ(mine.facts().tokens, theirs.facts().tokens);
    const at::Tensor all_N = at::arange(mine.facts().tokens, at::kLong);
    const kernels::SparseLabels labels = mine.read(all_N), others = theirs.read(all_N);
    EXPECT_TRUE(at::equal(labels.ids_NK, others.ids_NK));
    EXPECT_TRUE(testing::same_bits(labels.weights_NK, others.weights_NK));
  }

  testing::TemporaryDirectory directory_;
};

}  // namespace

TEST(Binary, PrintedTextThatIsLostIsAnError) {
  testing::TemporaryDirectory directory;
  const auto shell = [&](const std::string& text) {
    const std::string command =
        fmt::format("cd '{}'; R='{}'; {}", directory.path().string(), binary().string(), text);
    return WEXITSTATUS(std::system(command.c_str()));
  };
  EXPECT_EQ(shell("$R recipe list > /dev/full 2> err"), 74);  // shorter than the buffer
  EXPECT_THAT(read_text(directory / "err"), HasSubstr("stdout: what was printed could not be written"));
  EXPECT_EQ(shell("$R recipe docs > /dev/full 2> err"), 74);
  EXPECT_THAT(read_text(directory / "err"), HasSubstr("stdout: what was printed could not be written"));
  // Whoever closed the pipe wants no more; a parent may have ignored the signal that would end us.
  shell("trap '' PIPE; { sleep 0.2; $R recipe docs 2> err; echo $? > code; } | true; sleep 2");
  EXPECT_EQ(read_text(directory / "code"), "0\n");
  EXPECT_EQ(read_text(directory / "err"), "");
}

TEST_F(SlowEndToEnd, AnEndedProcessIsNotSignalled) {
  Process ended({"true"}, directory_ / "true");
  EXPECT_EQ(ended.wait(), 0);
  EXPECT_FALSE(ended.signal(0));
}

TEST_F(SlowEndToEnd, TextInStudentOut) {
  ASSERT_EQ(execute(command("run"), "first"), 0) << said("first");
  EXPECT_THAT(printed("first"), HasSubstr("| gguf"));
  EXPECT_THAT(printed("first"), HasSubstr("model.gguf ---\nthe "));
  const auto result = [&](const char* stage) {
    return formats::read_json(directory_ / "run" / stage / "result.json");
  };
  // The exported file holds the weights that were judged: the same figure, to the last bit.
  EXPECT_EQ(result("gguf").at("nats"), result("qat").at("nats"));
  EXPECT_EQ(result("gguf").at("bits_per_byte"), result("qat").at("bits_per_byte"));
  EXPECT_GT(result("rtn").at("kl").get<double>(), result("gptq").at("kl").get<double>());
  EXPECT_GT(result("packed").at("agreement").get<double>(), 0.5);
  for (const char* stage : {"gptq", "packed", "qat"})
    EXPECT_THAT(read_text(directory_ / "run" / stage / "quantization.md"), HasSubstr("KL, nats")) << stage;
  EXPECT_LT(result("gguf").at("file_bytes"), result("values").at("file_bytes"));
  EXPECT_EQ(result("student").at("stored"), result("gguf").at("stored"));
  EXPECT_LT(result("student").at("stored"), result("student").at("expanded"));

  const std::string gguf = (directory_ / "run" / "gguf").string();
  ASSERT_EQ(execute({binary().string(), "eval", gguf, "--sequence", "32", "--text",
                     (directory_ / "run" / "text" / "validation").string(), "--json",
                     (directory_ / "eval.json").string()},
                    "eval"),
            0)
      << said("eval");
  EXPECT_EQ(formats::read_json(directory_ / "eval.json").at("nats"), result("qat").at("nats"));

  // The checkpoint itself, opened as a model, generates what the file generates.
  std::vector<std::string> texts;
  for (const std::string& model :
       {gguf, (directory_ / "run" / "qat").string(), (directory_ / "run" / "values").string()}) {
    ASSERT_EQ(
        execute({binary().string(), "generate", model, "--prompt", "In line", "--tokens", "30"}, "generate"),
        0);
    texts.push_back(printed("generate"));
    EXPECT_TRUE(texts.back().starts_with("In line"));
    EXPECT_EQ(texts.back(), texts.front()) << model;
  }
  std::ofstream(directory_ / "ids.json") << "[[1, 2, 3], [4, 5, 6]]";
  ASSERT_EQ(execute({binary().string(), "logits", gguf, "--ids", (directory_ / "ids.json").string(), "--out",
                     (directory_ / "logits.safetensors").string()},
                    "logits"),
            0);
  EXPECT_EQ(formats::SafetensorsFile(directory_ / "logits.safetensors").tensor("logits").sizes(),
            (at::IntArrayRef{2, 3, 256}));
  ASSERT_EQ(execute({binary().string(), "export", (directory_ / "run" / "qat").string(), "--format", "gguf",
                     "--out", (directory_ / "again.gguf").string()},
                    "export"),
            0);
  EXPECT_TRUE(read_text(directory_ / "again.gguf") == read_text(directory_ / "run" / "gguf" / "model.gguf"));
  for (const char* what : {"run", "run/text/train", "run/teacher", "run/gguf/model.gguf", "run/hf"})
    EXPECT_EQ(execute({binary().string(), "inspect", (directory_ / what).string()}, "inspect"), 0)
        << said("inspect");
}

TEST_F(SlowEndToEnd, ASecondRunSkipsEverythingAndOneSeedGivesOneSetOfBytes) {
  ASSERT_EQ(execute(command("run"), "first"), 0) << said("first");
  ASSERT_EQ(execute(command("run"), "second"), 0);
  EXPECT_THAT(said("second"), ::testing::Not(HasSubstr("tok/s")));
  EXPECT_EQ(printed("second"), printed("first"));
  ASSERT_EQ(execute(command("twin"), "twin"), 0);
  expect_equal_checkpoints("run", "twin");
}

TEST_F(SlowEndToEnd, KilledAndInterruptedRunsContinueToTheSameBytes) {
  const std::vector<std::string> sets = {"stages.teacher.train.steps=300"};
  // The stage that is hit is long; a whole run of it is the reference.
  std::filesystem::create_directories(directory_ / "killed");
  std::ofstream(directory_ / "killed" / "exit.json") << R"({"code": 0})";  // an earlier start's
  EXPECT_EQ(stop_in_the_teacher("killed", SIGKILL), 128 + SIGKILL);
  EXPECT_FALSE(std::filesystem::exists(directory_ / "killed" / "exit.json"));
  EXPECT_EQ(stop_in_the_teacher("interrupted", SIGINT), 75);
  EXPECT_EQ(formats::read_json(directory_ / "interrupted" / "exit.json").at("code"), 75);
  EXPECT_THAT(said("interrupted-stopped"), HasSubstr("run the same command again"));
  EXPECT_EQ(execute(command("whole", sets), "whole"), 0) << said("whole");
  for (const char* run : {"killed", "interrupted"}) {
    EXPECT_EQ(execute(command(run, sets), run), 0) << said(run);
    EXPECT_THAT(said(run), HasSubstr("continuing from"));
    expect_equal_checkpoints("whole", run);
  }
}

TEST_F(SlowEndToEnd, MpiRanksGiveTheSameBytes) {
  if (!testing::has_mpirun()) GTEST_SKIP() << "no mpirun";
  ASSERT_EQ(execute(command("one"), "one"), 0) << said("one");
  const auto with = [&](const std::vector<std::string>& rest) {
    std::vector<std::string> out = testing::mpirun(2);
    out.insert(out.end(), rest.begin(), rest.end());
    return out;
  };
  ASSERT_EQ(execute(with(command("two")), "two"), 0) << said("two");
  if (said("two").find("rank 0 of 2 over mpi") == std::string::npos) GTEST_SKIP() << "this build has no MPI";
  expect_equal_checkpoints("one", "two");
  expect_equal_labels("one", "two");
  EXPECT_EQ(printed("two").substr(0, 7), "| stage");  // rank 0 alone prints

  // A mistake is reported once, with its code.
  EXPECT_EQ(execute(with(command("bad", {"train.steps=0"})), "bad"), 2);
  const std::string text = said("bad");
  EXPECT_EQ(text.find("must be an integer >= 1"), text.rfind("must be an integer >= 1")) << text;
}

TEST_F(SlowEndToEnd, TcpRanksGiveTheSameBytes) {
  ASSERT_EQ(execute(command("one"), "one"), 0) << said("one");
  const auto ranked = [&](const std::string& rank) {
    std::vector<std::string> out = {"env", "RANK=" + rank, "WORLD_SIZE=2", "MASTER_ADDR=localhost",
                                    "MASTER_PORT=29511"};
    const std::vector<std::string> rest = command("two");
    out.insert(out.end(), rest.begin(), rest.end());
    return out;
  };
  Process second(ranked("1"), directory_ / "second");
  ASSERT_EQ(execute(ranked("0"), "two"), 0) << said("two");
  EXPECT_EQ(second.wait(), 0) << said("second");
  EXPECT_THAT(said("two"), HasSubstr("rank 0 of 2 over tcp"));
  expect_equal_checkpoints("one", "two");
  expect_equal_labels("one", "two");
}

// Before the first step, on every rank, and without a wait that does not end.
TEST_F(SlowEndToEnd, RanksThatDifferAreRefused) {
  for (const char* place : {"one", "two"}) fs::create_directory(directory_ / place);
  for (const char* place : {"one", "two"}) fs::copy_file(directory_ / "a.txt", directory_ / place / "b.txt");
  std::ofstream(directory_ / "two" / "b.txt", std::ios::app) << "and one line more\n";
  const Path other = directory_ / "retort";
  fs::copy_file(binary(), other);
  std::ofstream(other, std::ios::app) << "another build";
  int port = 29521;
  const auto ranks = [&](const std::vector<std::string>& common, const std::string& second,
                         const std::vector<std::string>& sets) {
    const auto rank = [&](const std::string& number, const std::vector<std::string>& own) {
      std::vector<std::string> out = {"env",
                                      "-C",
                                      (directory_ / (number == "0" ? "one" : "two")).string(),
                                      "RANK=" + number,
                                      "WORLD_SIZE=2",
                                      "MASTER_ADDR=localhost",
                                      "MASTER_PORT=" + std::to_string(port),
                                      "RETORT_COMM_TIMEOUT=60"};
      std::vector<std::string> all = common;
      all.insert(all.end(), own.begin(), own.end());
      const std::vector<std::string> rest = command("run", all);
      out.insert(out.end(), rest.begin(), rest.end());
      if (number == "1" && !second.empty()) *std::find(out.begin(), out.end(), binary().string()) = second;
      return out;
    };
    Process peer(rank("1", sets), directory_ / "peer");
    EXPECT_EQ(execute(rank("0", {}), "first"), 2) << said("first");
    EXPECT_EQ(peer.wait(), 2) << said("peer");
    EXPECT_FALSE(fs::exists(directory_ / "run" / "teacher" / "checkpoints"));
    ++port;
    return said("first");
  };
  EXPECT_THAT(
      ranks({}, "", {"train.optimizer.lr=0.5", "run.seed=77"}),
      ::testing::AllOf(HasSubstr("rank 1: differs from rank 0"), HasSubstr("run.seed is 77 there and"),
                       HasSubstr("stages.teacher.train.optimizer.lr is 0.5 there and")));
  EXPECT_THAT(ranks({}, "", {"stages.teacher.train.steps=9"}), HasSubstr("stages.teacher.train.steps is 9"));
  EXPECT_THAT(ranks({}, other.string(), {}), HasSubstr("differs from rank 0: retort is"));
  EXPECT_THAT(ranks({"run.text=b.txt"}, "", {}),
              HasSubstr("rank 1: differs from rank 0: run.text (b.txt) is"));
}

TEST_F(SlowEndToEnd, BadInputHasDocumentedCodes) {
  EXPECT_EQ(execute(command("a", {"run.text=/nowhere.txt"}), "a"), 2);
  EXPECT_THAT(said("a"), HasSubstr("retort: --set run.text: no such file: /nowhere.txt"));
  std::ofstream(directory_ / "empty.txt") << "";
  EXPECT_EQ(execute(command("b", {"run.text=" + (directory_ / "empty.txt").string()}), "b"), 2);
  EXPECT_THAT(said("b"),
              HasSubstr("retort: --set run.text: must hold at least one byte, got the empty file"));
  EXPECT_EQ(execute({binary().string(), "generate", "/nowhere.gguf", "--prompt", "x"}, "c"), 74);
  std::ofstream(directory_ / "bad.gguf") << "GGUF and nothing more";
  EXPECT_EQ(
      execute({binary().string(), "generate", (directory_ / "bad.gguf").string(), "--prompt", "x"}, "d"), 65);
  EXPECT_EQ(execute({binary().string(), "fly"}, "e"), 2);
  fs::create_directory(directory_ / "own");  // whose recipe.yaml the resolved one would replace
  const Path recipe = directory_ / "own" / "recipe.yaml";
  fs::copy_file(testing::source_directory() / "tests" / "recipes" / "mini.yaml", recipe);
  const std::string written = read_text(recipe);
  std::vector<std::string> run = command("own", {});
  *std::find_if(run.begin(), run.end(), [](const std::string& word) { return word.ends_with("mini.yaml"); }) =
      recipe.string();
  EXPECT_EQ(execute(run, "f"), 2);
  EXPECT_THAT(said("f"), HasSubstr("holds a recipe.yaml that no run has written"));
  EXPECT_EQ(read_text(recipe), written);
}

// The checkpoint before a damaged one is taken, loudly.
TEST_F(SlowEndToEnd, DamagedCheckpointsFallBack) {
  EXPECT_EQ(stop_in_the_teacher("run", SIGKILL), 128 + SIGKILL);
  const std::vector<std::string> sets = {"stages.teacher.train.steps=40"};
  ASSERT_EQ(execute(command("run", sets), "once"), 0)
      << said("once");  // another recipe: done again, in 40 steps
  EXPECT_THAT(said("once"), ::testing::Not(HasSubstr("continuing from")));
  const Path newest =
      directory_ / "run" / "teacher" / "checkpoints" / "step_00000040" / "weights.safetensors";
  fs::resize_file(newest, fs::file_size(newest) - 8);
  fs::remove(directory_ / "run" / "teacher" / "result.json");
  ASSERT_EQ(execute(command("run", sets), "again"), 0) << said("again");
  EXPECT_THAT(said("again"), HasSubstr("warning:"));
  EXPECT_THAT(said("again"), HasSubstr("continuing from"));
  EXPECT_THAT(said("again"), HasSubstr("step_00000030"));
}

}  // namespace retort::recipes
