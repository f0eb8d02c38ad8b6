#include "recipes/identity.h"

#include "data/prepare.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kRecipe = R"(
data: { train: stage:text, validation: stage:text, sequence: 16, batch_tokens: 128, micro_batch: 4 }
model: { context: 32, layers: 1, width: 32, heads: 1, ffn_width: 32 }
train: { steps: 2, precision: fp32, schedule: { warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: model, kind: train }
  - { name: labels, kind: capture, model: { from: stage:model } }
  - { name: small, kind: quantize, model: { from: stage:model }, quantize: {}, export: { format: hf } }
  - { name: file, kind: export, model: { from: stage:model } }
  - { name: sample, kind: generate, model: { from: stage:model } }
  - { name: scores, kind: evaluate, model: { from: stage:model } }
  - { name: report, kind: report }
)";

class Identity : public RecipeRun {
 protected:
  // The stages whose identity a setting moves.
  std::vector<std::string> moved_by(const std::string& set) const {
    const Recipe before = recipe(kRecipe), after = recipe(kRecipe, {set});
    std::vector<std::string> names;
    for (size_t i = 0; i < before.stages.size(); ++i)
      if (stage_identity(before, before.stages[i]) != stage_identity(after, after.stages[i]))
        names.push_back(before.stages[i].name);
    return names;
  }
};

}  // namespace

// The keys that a stage uses, and no others.
TEST_F(Identity, HoldsTheKeysThatTheStageUses) {
  using ::testing::ElementsAre;
  using ::testing::IsEmpty;
  EXPECT_THAT(moved_by("run.seed=2"), ElementsAre("model", "labels", "sample"));
  EXPECT_THAT(moved_by("run.name=other"), IsEmpty());
  EXPECT_THAT(moved_by("run.threads=1"), IsEmpty());
  EXPECT_THAT(moved_by("run.device=cpu"), IsEmpty());
  EXPECT_THAT(moved_by("parallel.ranks=2"), IsEmpty());
  EXPECT_THAT(moved_by("data.sequence=8"), ElementsAre("model", "labels", "small", "scores"));
  EXPECT_THAT(moved_by("data.micro_batch=2"), IsEmpty());
  EXPECT_THAT(moved_by("data.limit=64"), ElementsAre("model"));
  EXPECT_THAT(moved_by("data.isolate_documents=true"), ElementsAre("model", "labels"));
  EXPECT_THAT(moved_by("prepare.validation=0.2"), ElementsAre("text"));
  EXPECT_THAT(moved_by("prepare.chat_template=chatml"), IsEmpty());  // there are no conversations
  EXPECT_THAT(moved_by("train.log_every=1"), IsEmpty());
  EXPECT_THAT(moved_by("train.guard.compare_every=1"), IsEmpty());
  EXPECT_THAT(moved_by("train.guard.zscore=6"), ElementsAre("model"));
  EXPECT_THAT(moved_by("train.steps=3"), ElementsAre("model"));
}

TEST_F(Identity, ATokenizerFileThatIsEditedInPlaceCounts) {
  const Path path = directory_ / "words.json";
  const auto write = [&](const char* merged) {
    std::ofstream(path) << fmt::format(
        R"({{"model": {{"type": "BPE", "vocab": {{"v": 0, "e": 1, "r": 2, "s": 3, " ": 4, "o": 5, "f": 6, "a": 7,
        "m": 8, "l": 9, "t": 10, "x": 11, "0": 12, "1": 13, "2": 14, "3": 15, "4": 16, "5": 17, "6": 18, "7": 19,
        "8": 20, "9": 21, "\\u010a": 22, "\\u0120": 23, "{0}": 24}}, "merges": [["{1}", "{2}"]]}},
        "pre_tokenizer": {{"type": "ByteLevel", "add_prefix_space": false}}}})",
        merged, merged[0], merged[1]);
  };
  const std::string only = R"(
stages:
  - { name: text, kind: prepare }
)";
  const std::vector<std::string> sets = {"prepare.tokenizer=" + path.string()};
  write("ve");
  run(recipe(only, sets));
  EXPECT_THAT(run(recipe(only, sets)), HasSubstr("done already"));
  write("er");
  EXPECT_THAT(run(recipe(only, sets)), Not(HasSubstr("done already")));
  EXPECT_THAT(run(recipe(only, sets)), HasSubstr("done already"));
}

TEST_F(Identity, ATemplateFileThatIsEditedInPlaceCounts) {
  const Path form = directory_ / "x.jinja", chats = directory_ / "chats.jsonl";
  std::ofstream(chats)
      << R"({"m": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]})";
  const auto write = [&](const char* mark) {
    std::ofstream(form) << "{% for m in messages %}" << mark << "{{ m.content }}{% endfor %}";
  };
  const std::string only = R"(
stages:
  - { name: text, kind: prepare }
)";
  const std::vector<std::string> sets = {"run.text=" + chats.string(), "prepare.messages=m",
                                         "prepare.validation=0", "prepare.chat_template=" + form.string()};
  write("> ");
  run(recipe(only, sets));
  EXPECT_THAT(run(recipe(only, sets)), HasSubstr("done already"));
  write("- ");
  EXPECT_THAT(run(recipe(only, sets)), Not(HasSubstr("done already")));
  EXPECT_THAT(run(recipe(only, sets)), HasSubstr("done already"));
}

TEST_F(Identity, PreparationIsDoneOnceWhateverTrainsOnIt) {
  run(recipe(kRecipe), {.only = "prepare"});
  EXPECT_THAT(run(recipe(kRecipe, {"run.seed=9", "data.sequence=8", "data.limit=64"}), {.only = "prepare"}),
              HasSubstr("text (prepare): done already"));
}

}  // namespace retort::recipes
