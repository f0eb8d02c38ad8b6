#include "core/inject.h"

#include <gmock/gmock.h>

#include <bit>
#include <cmath>

#include "core/error.h"

namespace retort {
namespace {

using ::testing::HasSubstr;

std::string refusal_of(const std::string& text) {
  try {
    const Injection injection(text);
    return "taken";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

}  // namespace

TEST(Injection, StrikesAtItsPlaceAndAsOftenAsItSays) {
  Injection injection(
      "rank=1,step=7,point=after_update,fault=nan;step=3..4,point=backward,fault=inf,times=0");
  const auto due = [&](InjectionPoint point, int rank, int64_t step) {
    return injection.due(point, rank, step);
  };
  EXPECT_TRUE(injection.any());
  EXPECT_TRUE(due(InjectionPoint::kAfterUpdate, 1, 6));
  EXPECT_FALSE(due(InjectionPoint::kAfterUpdate, 0, 6));
  EXPECT_FALSE(due(InjectionPoint::kAfterUpdate, 1, 7));
  EXPECT_FALSE(due(InjectionPoint::kBeforeStep, 1, 6));
  for (const int64_t step : {1, 2, 3, 4})
    EXPECT_EQ(due(InjectionPoint::kBackward, 5, step), step == 2 || step == 3) << step;

  const at::Tensor weight = at::ones({2, 2});
  injection.strike(InjectionPoint::kAfterUpdate, 1, 6, weight);
  EXPECT_TRUE(std::isnan(weight[1][0].item<float>()));
  EXPECT_EQ(weight.isnan().sum().item<int64_t>(), 1);
  EXPECT_FALSE(due(InjectionPoint::kAfterUpdate, 1, 6));  // once
  for (int i = 0; i < 3; ++i) injection.strike(InjectionPoint::kBackward, 0, 2, weight);
  EXPECT_TRUE(std::isinf(weight[1][0].item<float>()));
  EXPECT_TRUE(due(InjectionPoint::kBackward, 0, 2));  // always
}

TEST(Injection, FlipsOneBitAndThrowsWithItsWords) {
  Injection injection("point=after_backward,fault=bitflip:3;point=before_step,fault=throw");
  const at::Tensor gradient = at::full({5}, 1.5);
  injection.strike(InjectionPoint::kAfterBackward, 0, 0, gradient);
  EXPECT_EQ(std::bit_cast<uint32_t>(gradient[2].item<float>()), std::bit_cast<uint32_t>(1.5f) ^ 8U);
  EXPECT_EQ((gradient != 1.5f).sum().item<int64_t>(), 1);
  try {
    injection.strike(InjectionPoint::kBeforeStep, 0, 4);
    FAIL() << "went on";
  } catch (const InternalError& error) {
    EXPECT_THAT(error.what(), HasSubstr("step 5: point=before_step,fault=throw"));
  }
}

TEST(Injection, RefusesWhatItDoesNotUnderstand) {
  EXPECT_FALSE(Injection("").any());
  EXPECT_THAT(refusal_of("rank=1"), HasSubstr("needs point= and fault="));
  EXPECT_THAT(refusal_of("point=backward,fault=kill,when=now"), HasSubstr("got \"when\""));
  EXPECT_THAT(refusal_of("point=somewhere,fault=kill"), HasSubstr("point must be before_step"));
  EXPECT_THAT(refusal_of("point=backward,fault=explode"), HasSubstr("fault must be kill"));
  EXPECT_THAT(refusal_of("point=backward,fault=kill:9"), HasSubstr("kill takes no number"));
  EXPECT_THAT(refusal_of("point=backward,fault=slow"), HasSubstr("slow must be an integer"));
  EXPECT_THAT(refusal_of("point=backward,fault=bitflip:32"), HasSubstr("in [0, 31]"));
  EXPECT_THAT(refusal_of("step=0,point=backward,fault=kill"), HasSubstr("step must be an integer in [1"));
  EXPECT_THAT(refusal_of("rank=one,point=backward,fault=kill"), HasSubstr("got \"one\""));
  EXPECT_THAT(refusal_of("point=before_step,fault=nan"), HasSubstr("no value to spoil"));
  EXPECT_THAT(refusal_of("point=save,fault=bitflip"), HasSubstr("no value to spoil"));
}

}  // namespace retort
