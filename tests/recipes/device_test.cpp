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
    choose_device(wanted, ranks, 0, here);
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return error.what();
  }
  return "no error";
}

TEST(Device, AutoTakesAGpuThatAnswersAndSaysWhyNot) {
  const ChosenDevice gpu = choose_device("auto", 1, 0, devices(2));
  EXPECT_EQ(gpu.device, c10::Device(c10::kCUDA, 0));
  EXPECT_THAT(gpu.sentence, HasSubstr("cuda:0: GPU 0"));
  const auto why_cpu = [](int64_t ranks, const Devices& here) {
    const ChosenDevice chosen = choose_device("auto", ranks, 0, here);
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
  choose_device("auto", 1, 0, here);
  EXPECT_NE(device_misfit("cuda", 1, here), "");
  here.driver = []() -> CudaDriver {
    ADD_FAILURE() << "asked";
    return {};
  };
  EXPECT_TRUE(choose_device("cpu", 4, 0, here).device.is_cpu());
  EXPECT_EQ(device_misfit("cpu", 4, here), "");
  EXPECT_EQ(device_misfit("auto", 4, here), "");
}

TEST(Device, OneThatIsNotThereIsRefused) {
  EXPECT_EQ(choose_device("cuda:1", 1, 0, devices(2)).device, c10::Device(c10::kCUDA, 1));
  EXPECT_EQ(choose_device("cuda", 1, 0, devices(2)).device, c10::Device(c10::kCUDA, 0));
  EXPECT_THAT(refusal("cuda:2", 1, devices(2)), HasSubstr("there is no cuda:2: this machine has 2 GPUs"));
  EXPECT_THAT(refusal("cuda", 1, devices(0)), HasSubstr("no GPU; take run.device: cpu or auto"));
  EXPECT_THAT(refusal("cuda", 1, {}), HasSubstr("a build with CUDA makes"));
  EXPECT_THAT(refusal("cuda", 1, devices(1, "no libcudnn")), HasSubstr("no libcudnn"));
}

// Two ranks never share a GPU: backward of both would run on one thread, where one may wait for the other.
TEST(Device, EachRankHasAGpuOfItsOwn) {
  for (const char* wanted : {"auto", "cuda"})
    for (int local : {0, 1}) {
      const ChosenDevice chosen = choose_device(wanted, 2, local, devices(2));
      EXPECT_EQ(chosen.device, c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(local)));
      EXPECT_THAT(chosen.sentence, HasSubstr(fmt::format("GPU {}; a GPU for each rank", local)));
    }
  EXPECT_THAT(refusal("cuda:1", 2, devices(2)),
              HasSubstr("cuda:1: 2 ranks are to train, and this is one GPU"));
  EXPECT_THAT(refusal("cuda", 3, devices(2)), HasSubstr("3 ranks are to train, and this machine has 2 GPUs"));
  EXPECT_THAT(device_misfit("cuda:0", 2, devices(2)), HasSubstr("this is one GPU"));
  EXPECT_EQ(device_misfit("cuda", 2, devices(2)), "");
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
