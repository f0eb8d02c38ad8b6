#include "recipes/device.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/nearest.h"
#include "recipes/validate.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

Devices devices(int gpus, const std::string& unloadable = "") {
  return {true,
          [=] {
            CudaDriver driver;
            if (gpus == 0) driver.missing = "no GPU";
            for (int i = 0; i < gpus; ++i) driver.gpus.push_back({.name = fmt::format("GPU {}", i)});
            return driver;
          },
          [=] { return unloadable; }};
}

std::string refusal(const std::string& wanted, int64_t ranks, const Devices& here) {
  try {
    choose_device(wanted, ranks, {}, here);
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return error.what();
  }
  return "no error";
}

TEST(Device, AutoTakesAGpuThatAnswersAndSaysWhyNot) {
  const ChosenDevice gpu = choose_device("auto", 1, {}, devices(2));
  EXPECT_EQ(gpu.device, c10::Device(c10::kCUDA, 0));
  EXPECT_THAT(gpu.sentence, HasSubstr("cuda:0: GPU 0"));
  const auto why_cpu = [](int64_t ranks, const Devices& here) {
    const ChosenDevice chosen = choose_device("auto", ranks, {}, here);
    EXPECT_TRUE(chosen.device.is_cpu());
    return chosen.sentence;
  };
  EXPECT_THAT(why_cpu(1, devices(0)), HasSubstr("no GPU"));
  EXPECT_THAT(why_cpu(3, devices(2)), HasSubstr("3 ranks are to train, and this machine has 2 GPUs"));
  EXPECT_THAT(why_cpu(1, devices(1, "libcudnn is missing")), HasSubstr("libcudnn is missing"));
  EXPECT_THAT(why_cpu(1, {}), HasSubstr("a build with CUDA makes"));
}

TEST(Device, NothingIsLoadedWithoutNeed) {
  Devices here = devices(0);
  here.load = []() -> std::string {
    ADD_FAILURE() << "loaded";
    return "";
  };
  choose_device("auto", 1, {}, here);
  EXPECT_NE(device_misfit("cuda", 1, here), "");
  here.driver = []() -> CudaDriver {
    ADD_FAILURE() << "asked";
    return {};
  };
  EXPECT_TRUE(choose_device("cpu", 4, {}, here).device.is_cpu());
  EXPECT_EQ(device_misfit("cpu", 4, here), "");
  EXPECT_EQ(device_misfit("auto", 4, here), "");
}

TEST(Device, OneThatIsNotThereIsRefused) {
  EXPECT_EQ(choose_device("cuda:1", 1, {}, devices(2)).device, c10::Device(c10::kCUDA, 1));
  EXPECT_EQ(choose_device("cuda", 1, {}, devices(2)).device, c10::Device(c10::kCUDA, 0));
  EXPECT_THAT(refusal("cuda:2", 1, devices(2)), HasSubstr("there is no cuda:2: this machine has 2 GPUs"));
  EXPECT_THAT(refusal("cuda", 1, devices(0)), HasSubstr("no GPU; take run.device: cpu or auto"));
  EXPECT_THAT(refusal("cuda", 1, {}), HasSubstr("a build with CUDA makes"));
  EXPECT_THAT(refusal("cuda", 1, devices(1, "no libcudnn")), HasSubstr("no libcudnn"));
}

// Two ranks never share a GPU: backward of both would run on one thread, where one may wait for the other.
TEST(Device, EachRankHasAGpuOfItsOwn) {
  for (const char* wanted : {"auto", "cuda"})
    for (int local : {0, 1}) {
      const ChosenDevice chosen = choose_device(wanted, 2, {local, 2}, devices(2));
      EXPECT_EQ(chosen.device, c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(local)));
      EXPECT_THAT(chosen.sentence, HasSubstr(fmt::format("GPU {}; a GPU for each rank", local)));
    }
  EXPECT_THAT(refusal("cuda:1", 2, devices(2)),
              HasSubstr("cuda:1: 2 ranks are to train, and this is one GPU"));
  EXPECT_THAT(refusal("cuda", 3, devices(2)), HasSubstr("3 ranks are to train, and this machine has 2 GPUs"));
  EXPECT_THAT(device_misfit("cuda:0", 2, devices(2)), HasSubstr("this is one GPU"));
  EXPECT_EQ(device_misfit("cuda", 2, devices(2)), "");
}

// A launcher may show each process one GPU, which every process then calls 0.
TEST(Device, AProcessTakesTheOnlyGpuThatItIsShown) {
  for (const char* wanted : {"auto", "cuda"})
    for (int local : {0, 1, 3}) {
      const ChosenDevice chosen = choose_device(wanted, 4, {local, 4}, devices(1));
      EXPECT_EQ(chosen.device, c10::Device(c10::kCUDA, 0)) << local;
    }
  EXPECT_THAT(refusal("cuda", 4, devices(1)), HasSubstr("this machine has 1 GPU, one for each rank"));
}

namespace {

// What each of the ranks ends with, as processes that chose so.
std::vector<std::string> agreed(const std::string& wanted, const std::vector<std::string>& uuids) {
  std::vector<std::string> out(uuids.size());
  comm::run_thread_ranks(static_cast<int>(uuids.size()), [&](comm::Comm& comm) {
    const auto rank = static_cast<size_t>(comm.rank());
    ChosenDevice mine{c10::Device(c10::kCUDA, 0), "device cuda:0", uuids[rank]};
    if (uuids[rank] == "cpu") mine = {c10::kCPU, "device cpu: why"};
    try {
      const ChosenDevice chosen = agree_on_device(wanted, mine, comm);
      EXPECT_EQ(chosen.device.is_cpu(), chosen.sentence.starts_with("device cpu"));
      out[rank] = chosen.sentence;
    } catch (const ConfigError& error) {
      out[rank] = error.what();
    }
  });
  return out;
}

}  // namespace

TEST(Device, RanksCompareWhatTheyTook) {
  using ::testing::Each;
  EXPECT_THAT(agreed("cuda", {"a", "b", "c"}), Each("device cuda:0"));
  EXPECT_THAT(agreed("cuda", {"", ""}), Each("device cuda:0")) << "a driver that tells no number";
  EXPECT_THAT(agreed("auto", {"cpu", "cpu"}), Each("device cpu: why"));
  EXPECT_THAT(agreed("cuda", {"a", "b", "a"}),
              Each(::testing::AllOf(HasSubstr("run.device: cuda: ranks 0 and 2 are shown the same GPU"),
                                    HasSubstr("take run.device: cpu or auto"))));
  EXPECT_THAT(agreed("auto", {"a", "b", "b"}), Each(HasSubstr("device cpu: ranks 1 and 2")));
  EXPECT_THAT(agreed("auto", {"a", "cpu"}),
              Each(HasSubstr("device cpu: rank 1 has no GPU, and others have one")));
}

TEST(Device, ItsNamesAreChecked) {
  const Rule<std::string> rule = device_rule();
  for (const char* name : {"auto", "cpu", "cuda", "cuda:0", "cuda:7"}) EXPECT_TRUE(rule.holds(name)) << name;
  for (const char* name : {"", "gpu", "cuda:", "cuda:-1", "cuda:1x", "cuda:1000", "cpu:0"})
    EXPECT_FALSE(rule.holds(name)) << name;
  EXPECT_EQ(did_you_mean("gpu", rule.choices), "") << "cpu is nearest, and the opposite";
  EXPECT_EQ(did_you_mean("cudda", rule.choices), "; did you mean \"cuda\"?");
}

// A check finds what the run would refuse, on a machine or a build without a GPU.
TEST(Device, ACheckRefusesWhatIsNotThere) {
  Recipe recipe;
  recipe.stages = {Stage("train")};
  const auto findings = [&] {
    std::vector<std::string> out;
    for (const Finding& finding : validate(recipe))
      if (finding.keys.front() == "run.device") out.push_back(finding.text);
    return out;
  };
  EXPECT_TRUE(findings().empty());
  recipe.run.device = "cuda:127";
  ASSERT_EQ(findings().size(), 1u);
  EXPECT_THAT(findings().front(), HasSubstr("take run.device: cpu or auto"));
}

}  // namespace
}  // namespace retort::recipes
