// A claim's stages, seeds and figures.
#include <algorithm>
#include <set>

#include "core/nearest.h"
#include "recipes/validate.h"

namespace retort::recipes {
namespace {

class ClaimValidator {
 public:
  explicit ClaimValidator(const Recipe& recipe) : recipe_(recipe), claim_(*recipe.claim) {}

  std::vector<Finding> run() {
    const std::set<int64_t> seeds(claim_.seeds.begin(), claim_.seeds.end());
    if (seeds.empty() || seeds.size() != claim_.seeds.size())
      add("claim.seeds", "must name at least one seed, each once");
    if (claim_.figures.empty()) add("claim.figures", "must name at least one figure");
    for (const std::string& arm : claim_.arms) check_arm("claim.arms", "an arm", arm);
    for (const std::string& figure : claim_.figures)
      check_figure("claim.figures", figure, claim_.arms.empty() ? all_stages() : claim_.arms);
    for (const std::string& shared : claim_.shared) check_shared(shared);
    for (size_t i = 0; i < claim_.bars.size(); ++i) check_bar(claim_.bars[i], i + 1);
    return std::move(findings_);
  }

 private:
  void add(const char* key, std::string text) { findings_.push_back({"", {key}, std::move(text)}); }

  std::vector<std::string> all_stages() const {
    std::vector<std::string> names;
    for (const Stage& stage : recipe_.stages) names.push_back(stage.name);
    return names;
  }

  void check_bar(const BarOptions& bar, size_t number) {
    std::vector<std::pair<const char*, std::string>> arms = {{"arm", bar.arm}, {"against", bar.against}};
    if (bar.of == "recovery") arms.emplace_back("reference", bar.reference);
    for (const auto& [key, arm] : arms) {
      check_arm("claim.bars", fmt::format("{} of bar {}", key, number), arm);
      check_figure("claim.bars", bar.figure, {arm});
    }
  }

  void check_shared(const std::string& name) {
    check_arm("claim.shared", "a shared stage", name);
    const Stage* stage = recipe_.find(name);
    if (stage == nullptr) return;
    for (const std::string& input : stages_before(recipe_, *stage))
      if (std::find(claim_.shared.begin(), claim_.shared.end(), input) == claim_.shared.end())
        add("claim.shared",
            fmt::format("stage \"{}\" takes from \"{}\", which must be shared too", name, input));
  }

  void check_arm(const char* key, const std::string& what, const std::string& arm) {
    if (recipe_.find(arm) != nullptr) return;
    add(key, fmt::format("{} must be a stage of this recipe, got \"{}\"{}", what, arm,
                         did_you_mean(arm, all_stages())));
  }

  // One of these stages can have it.
  void check_figure(const char* key, const std::string& figure, const std::vector<std::string>& arms) {
    std::vector<std::string> known;
    for (const std::string& arm : arms)
      if (const Stage* stage = recipe_.find(arm))
        for (const std::string& name : kind_of(*stage).figures)
          if (std::find(known.begin(), known.end(), name) == known.end()) known.push_back(name);
    if (known.empty() || std::find(known.begin(), known.end(), figure) != known.end()) return;
    add(key, fmt::format("{} is no figure of {}{}; known: {}", figure, fmt::join(arms, ", "),
                         did_you_mean(figure, known), fmt::join(known, ", ")));
  }

  const Recipe& recipe_;
  const ClaimOptions& claim_;
  std::vector<Finding> findings_;
};

}  // namespace

std::vector<Finding> validate_claim(const Recipe& recipe) { return ClaimValidator(recipe).run(); }

}  // namespace retort::recipes
