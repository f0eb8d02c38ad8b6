#include "eval/prompts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "tests/testing.h"

namespace retort::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Prompts : public ::testing::Test {
 protected:
  // Writes the records to test.jsonl and returns their prompts.
  std::vector<Prompt> prompts(TaskSpec spec, const std::string& records, const PromptOptions& more = {}) {
    write_durably(local_files(), directory_ / "test.jsonl", records);
    spec.task = "task";
    spec.test_split = "test";
    spec.dataset_kwargs.data_files.test = {"test.jsonl"};
    PromptOptions options = more;
    options.folder = directory_.path();
    return make_prompts(spec, options).prompts;
  }
  std::string refusal(const TaskSpec& spec, const std::string& records) {
    try {
      prompts(spec, records);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  testing::TemporaryDirectory directory_;
};

TaskSpec choice_spec(const std::string& choice, const std::string& target) {
  TaskSpec spec;
  spec.output_type = "multiple_choice";
  spec.doc_to_text = "{{q}}\n";
  spec.doc_to_choice = {choice};
  spec.doc_to_target = target;
  return spec;
}

}  // namespace

// A line break at a template's end stays, and a choice that begins with a space has two.
TEST_F(Prompts, ChoicesFollowTheDelimiter) {
  const Prompt one = prompts(choice_spec("c", "a"), R"({"q": "Q", "c": ["x", " y"], "a": 1})").front();
  EXPECT_THAT(one.requests, ElementsAre(Request{"Q\n", " x"}, Request{"Q\n", "  y"}));
  EXPECT_THAT(one.choices, ElementsAre("x", " y"));
  EXPECT_EQ(one.gold, 1u);
}

// A number, digits, and a choice's own text; by a field's name or by a template.
TEST_F(Prompts, TheRightChoiceIsANumberOrAText) {
  for (const char* target : {"n", "s", "t", "{{n}}", "{{t}}", "1"}) {
    const auto all = prompts(choice_spec("{{[x, 'no']}}", target),
                             R"({"q": "", "x": "it's", "n": 1, "s": "1", "t": "no"})");
    EXPECT_EQ(all.front().gold, 1u) << target;
    EXPECT_EQ(all.front().requests[0].continuation, " it's");
  }
  EXPECT_THAT(refusal(choice_spec("c", "a"), R"({"q": "", "c": ["x"], "a": "z"})"),
              HasSubstr("test.jsonl:1: the right answer must be one of 1 choices, got \"z\""));
  EXPECT_THAT(refusal(choice_spec("c", "a"), R"({"q": "", "c": ["x"], "a": 1})"),
              HasSubstr("one of 1 choices"));
  EXPECT_THAT(refusal(choice_spec("q", "a"), R"({"q": "", "a": 1})"),
              HasSubstr("doc_to_choice must give a list"));
}

TEST_F(Prompts, AFieldThatADocumentLacksIsNamed) {
  EXPECT_THAT(refusal(choice_spec("c", "a"), R"({"p": "", "c": ["x"], "a": 0})"),
              HasSubstr("test.jsonl:1: a document must have the field q, which task.doc_to_text names"));
}

TEST_F(Prompts, ChoicesMayBeContexts) {
  TaskSpec spec = choice_spec("options", "rest");
  spec.doc_to_text = "a";
  const Prompt one = prompts(spec, R"({"options": ["A he", "A she"], "rest": "ran.", "a": 1})").front();
  EXPECT_THAT(one.requests, ElementsAre(Request{"A he", " ran."}, Request{"A she", " ran."}));
  EXPECT_EQ(one.gold, 1u);
}

// The first ones, each with its answer; of choices the text.
TEST_F(Prompts, ExamplesComeBeforeThePrompt) {
  TaskSpec spec = choice_spec("c", "a");
  spec.description = "Say.\n\n";
  spec.num_fewshot = 2;
  spec.fewshot_config.sampler = "first_n";
  const auto all = prompts(spec, R"({"q": "1", "c": ["x", "y"], "a": 1}
{"q": "2", "c": ["x", "y"], "a": 0}
{"q": "3", "c": ["x", "y"], "a": 0})",
                           {.folder = {}, .documents = 1, .chat = {}});
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].requests[0].context, "Say.\n\n1\n y\n\n2\n x\n\n1\n");
}

// A drawn example is never the document itself, and does not depend on how many documents are asked.
TEST_F(Prompts, DrawnExamplesAreOthers) {
  TaskSpec spec = choice_spec("c", "a");
  spec.num_fewshot = 3;
  spec.fewshot_split = "test";
  std::string records;
  for (int i = 0; i < 6; ++i) records += fmt::format("{{\"q\": \"<{}>\", \"c\": [\"x\"], \"a\": 0}}\n", i);
  const auto all = prompts(spec, records);
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string& context = all[i].requests[0].context;
    const std::string own = fmt::format("<{}>", i);
    EXPECT_EQ(context.find(own), context.rfind(own)) << context;
    EXPECT_EQ(std::count(context.begin(), context.end(), '<'), 4) << context;
  }
  const auto some = prompts(spec, records, {.folder = {}, .documents = 2, .chat = {}});
  EXPECT_EQ(some[1].requests, all[1].requests);
}

TEST_F(Prompts, FieldsAreMadeInOrder) {
  TaskSpec spec;
  spec.output_type = "loglikelihood_rolling";
  spec.fields = {
      {.name = "plain",
       .from = "{{page}}",
       .replace = {{.text = "  ", .by = " "}, {.regex = "\\((.)\\)", .by = "[$1]"}}},
      {.name = "parts", .from = "{{plain.split('|')}}", .list = true, .replace = {{.text = "x", .by = "yx"}}},
      {.name = "joined", .from = "{{parts|join('+')}}"}};
  spec.doc_to_target = "joined";
  spec.doc_to_count = "page";
  const Prompt one = prompts(spec, R"({"page": "a    (b)|xx"})").front();
  EXPECT_EQ(one.target, "a  [b]+yxyx") << "one pass: four spaces become two";
  EXPECT_EQ(one.counted, "a    (b)|xx");
}

TEST_F(Prompts, AChatModelGetsWhatItsTemplateWrites) {
  TaskSpec spec = choice_spec("c", "a");
  spec.description = "System.";
  const ChatPrompt chat = [](const std::string& system, const std::string& user) {
    return "<" + system + "|" + user + ">";
  };
  const Prompt one =
      prompts(spec, R"({"q": "Q", "c": ["x"], "a": 0})", {.folder = {}, .documents = 0, .chat = chat})
          .front();
  EXPECT_THAT(one.requests, ElementsAre(Request{"<System.|Q\n>", "x"}));
}

}  // namespace retort::eval
