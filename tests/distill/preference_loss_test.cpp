// Losses on preferences against trl's own values and gradients, and against differences of themselves.
#include "distill/preference_loss.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numeric>
#include <set>

#include "core/error.h"
#include "formats/json.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

using formats::Json;

constexpr double kTolerance = 1e-12;

Answer answer_of(const Json& tokens, double reference) {
  const auto values = tokens.get<std::vector<double>>();
  return {std::accumulate(values.begin(), values.end(), 0.0), std::ssize(values), reference};
}

struct Named {
  const char *entry, *loss;
};
constexpr Named kPaired[] = {{"dpo", "dpo"},           {"dpo_beta_0.5", "dpo"},
                             {"ipo", "ipo"},           {"ipo_beta_0.5", "ipo"},
                             {"robust_0.1", "robust"}, {"sigmoid_norm", "dpo_norm"},
                             {"hinge", "hinge"},       {"exo_pair", "exo"},
                             {"nca_pair", "nca"},      {"sppo_hard", "sppo"},
                             {"apo_zero", "apo_zero"}, {"apo_down", "apo_down"},
                             {"simpo", "simpo"},       {"simpo_trl_defaults", "simpo"},
                             {"cpo", "cpo"},           {"orpo", "orpo"}};
constexpr Named kRated[] = {{"kto", "kto"},
                            {"kto_weights", "kto"},
                            {"kto_kl_clamped", "kto"},
                            {"apo_zero_unpaired", "apo_zero_rated"},
                            {"kto_only_desirable", "kto"}};

class Golden : public ::testing::Test {
 protected:
  void SetUp() override {
    RETORT_NEEDS_TEST_DATA();
    data_ = formats::read_json(testing::test_data() / "finetune" / "preference.json");
  }
  std::vector<Answer> answers(const char* side) const {
    const Json& pairs = data_.at("pairs");
    std::vector<Answer> out;
    for (size_t i = 0; i < pairs.at(side).size(); ++i)
      out.push_back(answer_of(pairs.at(side)[i], pairs.at(std::string("ref_") + side)[i].get<double>()));
    return out;
  }
  Json data_;
};

void expect_logged(const Json& logged, const std::map<std::string, double>& ours, const char* entry) {
  for (const auto& [name, value] : logged.items()) {
    const auto found = ours.find(name);
    if (found == ours.end()) continue;  // trl takes accuracies in f32
    EXPECT_NEAR(found->second, value.get<double>(), name == "rewards/accuracies" ? 1e-7 : kTolerance)
        << entry << " " << name;
  }
}

}  // namespace

TEST_F(Golden, PairsAreTrlsValuesGradientsAndRewards) {
  const std::vector<Answer> chosen = answers("chosen"), rejected = answers("rejected");
  const auto pairs = static_cast<double>(chosen.size());
  std::set<std::string> left;
  for (const auto& item : data_.at("paired").items()) left.insert(item.key());
  for (const auto& [entry, name] : kPaired) {
    ASSERT_EQ(left.erase(entry), 1u) << entry;
    const Json& golden = data_.at("paired").at(entry);
    const PreferenceLoss& loss = preference_losses().at(name);
    PreferenceOptions options{.loss = name, .beta = golden.at("beta").get<double>()};
    if (loss.takes("label_smoothing")) options.label_smoothing = golden.at("label_smoothing").get<double>();
    if (loss.takes("gamma")) options.gamma = golden.at("gamma").get<double>();
    // trl takes the logarithms of exo's label_smoothing in f32.
    const double tolerance = std::string_view(name) == "exo" ? 1e-7 : kTolerance;
    const bool of_means = golden.contains("wrt") && golden.at("wrt") == "mean log-probability";
    double value = 0;
    std::map<std::string, double> logged;
    for (size_t i = 0; i < chosen.size(); ++i) {
      const PairValue one = loss.of_pair(chosen[i], rejected[i], options);
      value += one.value / pairs;
      const double c = of_means ? static_cast<double>(chosen[i].tokens) : 1.0,
                   r = of_means ? static_cast<double>(rejected[i].tokens) : 1.0;
      EXPECT_NEAR(one.chosen * c / pairs, golden.at("d_chosen")[i].get<double>(), tolerance) << entry << i;
      EXPECT_NEAR(one.rejected * r / pairs, golden.at("d_rejected")[i].get<double>(), tolerance)
          << entry << i;
      const double good = loss.reward_of(chosen[i], options), bad = loss.reward_of(rejected[i], options);
      logged["rewards/chosen"] += good / pairs;
      logged["rewards/rejected"] += bad / pairs;
      logged["rewards/margins"] += (good - bad) / pairs;
      logged["rewards/accuracies"] += (good > bad ? 1.0 : 0.0) / pairs;
      logged["logps/chosen"] += chosen[i].log_p / pairs;
      logged["logps/rejected"] += rejected[i].log_p / pairs;
    }
    EXPECT_NEAR(value, golden.at(golden.contains("loss") ? "loss" : "or_term").get<double>(), tolerance)
        << entry;
    expect_logged(golden.at("logged"), logged, entry);
  }
  // Its threshold is a mean over all of training: no function of a pair.
  EXPECT_THAT(left, ::testing::ElementsAre("bco_pair"));
}

TEST_F(Golden, RatedAnswersAreTrlsValuesGradientsAndRewards) {
  const Json& rows = data_.at("unpaired");
  std::set<std::string> left;
  for (const auto& item : data_.at("single").items()) left.insert(item.key());
  for (const auto& [entry, name] : kRated) {
    ASSERT_EQ(left.erase(entry), 1u) << entry;
    const Json& golden = data_.at("single").at(entry);
    const PreferenceLoss& loss = preference_losses().at(name);
    const PreferenceOptions options{.loss = name,
                                    .beta = golden.at("beta").get<double>(),
                                    .desirable_weight = golden.at("desirable_weight").get<double>(),
                                    .undesirable_weight = golden.at("undesirable_weight").get<double>()};
    const bool good_alone = std::string_view(entry) == "kto_only_desirable";
    const char* reference = std::string_view(entry) == "kto_kl_clamped" ? "kl_ref_negative" : "kl_ref";
    std::vector<Answer> answers;
    std::vector<double> gains;
    std::vector<bool> good;
    for (size_t i = 0; i < rows.at("rows").size(); i += good_alone ? 2 : 1) {
      answers.push_back(answer_of(rows.at("rows")[i], rows.at("ref")[i].get<double>()));
      good.push_back(rows.at("labels")[i].get<bool>());
      gains.push_back(rows.at("kl_policy")[i].get<double>() - rows.at(reference)[i].get<double>());
    }
    const double z = loss.baseline != nullptr ? loss.baseline(gains) : 0.0;
    const auto count = static_cast<double>(answers.size()),
               chosen = static_cast<double>(std::count(good.begin(), good.end(), true));
    double value = 0;
    std::map<std::string, double> logged{{"kl", z}};
    for (size_t i = 0; i < answers.size(); ++i) {
      const RatedValue one = loss.of_rated(answers[i], good[i], z, options);
      value += one.value / count;
      EXPECT_NEAR(one.derivative / count, golden.at("d_row")[i].get<double>(), kTolerance) << entry << i;
      const char* side = good[i] ? "chosen" : "rejected";
      const double of_side = good[i] ? chosen : count - chosen;
      logged[std::string("rewards/") + side] += loss.reward_of(answers[i], options) / of_side;
      logged[std::string("logps/") + side] += answers[i].log_p / of_side;
    }
    EXPECT_NEAR(value, golden.at("loss").get<double>(), kTolerance) << entry;
    expect_logged(golden.at("logged"), logged, entry);
  }
  EXPECT_TRUE(left.empty());
}

// Central differences of step h of values near 1 err by h^2 and by 1e-16 / h.
TEST(PreferenceLoss, DerivativesAreThoseOfItsValues) {
  constexpr double kStep = 1e-5;
  const std::vector<Answer> some = {{-4.1, 3, -4.6}, {-9.7, 9, -8.0}, {-0.7, 1, -1.9}, {-31.0, 7, -20.0}};
  const auto moved = [](Answer answer, double by) {
    answer.log_p += by;
    return answer;
  };
  for (const PreferenceLoss& loss : preference_losses()) {
    EXPECT_FALSE(loss.formula.empty());
    EXPECT_EQ(loss.of_pair != nullptr, loss.of_rated == nullptr) << loss.name;
    const PreferenceOptions o{
        .loss = loss.name, .beta = 0.4, .desirable_weight = 1.3, .undesirable_weight = 0.8};
    for (const Answer& a : some)
      for (const Answer& b : some) {
        const auto difference = [&](auto f) { return (f(kStep) - f(-kStep)) / (2 * kStep); };
        if (loss.paired()) {
          const PairValue at = loss.of_pair(a, b, o);
          EXPECT_NEAR(at.chosen, difference([&](double h) { return loss.of_pair(moved(a, h), b, o).value; }),
                      1e-7)
              << loss.name;
          EXPECT_NEAR(at.rejected,
                      difference([&](double h) { return loss.of_pair(a, moved(b, h), o).value; }), 1e-7)
              << loss.name;
        } else {
          for (const bool good : {true, false})
            EXPECT_NEAR(loss.of_rated(a, good, 0.3, o).derivative,
                        difference([&](double h) { return loss.of_rated(moved(a, h), good, 0.3, o).value; }),
                        1e-7)
                << loss.name;
        }
      }
  }
}

TEST(PreferenceLoss, IsLogTwoWhereModelAndReferenceAgree) {
  const Answer a{-4.1, 3, -4.1}, b{-9.7, 9, -9.7};
  for (const char* name : {"dpo", "cdpo", "robust", "dpo_norm"})
    EXPECT_DOUBLE_EQ(preference_losses().at(name).of_pair(a, b, {.loss = name}).value, std::log(2.0)) << name;
  EXPECT_EQ(preference_losses().at("dpo").of_pair(a, b, {}).value, std::log(2.0));
}

// Smoothed labels are the two orders of the pair, weighed; robust divides by what smoothing takes away.
TEST(PreferenceLoss, SmoothingMixesBothOrdersOfAPair) {
  const Answer a{-4.1, 3, -4.6}, b{-9.7, 9, -8.0};
  const PreferenceOptions o{.beta = 0.7, .label_smoothing = 0.2};
  const auto value = [&](const char* name, const Answer& c, const Answer& r) {
    return preference_losses().at(name).of_pair(c, r, o).value;
  };
  const double there = value("dpo", a, b), back = value("dpo", b, a);
  EXPECT_NEAR(value("cdpo", a, b), 0.8 * there + 0.2 * back, 1e-15);
  EXPECT_NEAR(value("robust", a, b), (0.8 * there - 0.2 * back) / 0.6, 1e-14);
}

TEST(PreferenceLoss, StaysFiniteFarOut) {
  for (const double log_p : {-1e-12, -1e4}) {
    const Answer far{log_p, 1, -500.0}, other{-3.0, 2, -2.0};
    for (const PreferenceLoss& loss : preference_losses()) {
      if (!loss.paired()) continue;
      for (const PairValue& one : {loss.of_pair(far, other, {}), loss.of_pair(other, far, {})})
        EXPECT_TRUE(std::isfinite(one.value) && std::isfinite(one.chosen) && std::isfinite(one.rejected))
            << loss.name << " at " << log_p;
    }
  }
}

TEST(PreferenceLoss, WeighsTheChosenAnswersLikelihoodAsItsRowSays) {
  const auto weight = [](const char* name, double nll) {
    return nll_weight(preference_losses().at(name), {.loss = name, .nll = nll});
  };
  EXPECT_EQ(weight("dpo", -1.0), 0.0);
  EXPECT_EQ(weight("dpo", 0.3), 0.3);
  EXPECT_EQ(weight("orpo", -1.0), 1.0);
  EXPECT_EQ(weight("cpo", 0.0), 0.0);
}

}  // namespace retort::distill
