#include "eval/task_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "eval/task_documents.h"
#include "tests/testing.h"

namespace retort::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TaskSpec generating() {
  TaskSpec spec;
  spec.task = "t";
  spec.test_split = "test";
  spec.dataset_kwargs.data_files.test = {"a.jsonl", "b.jsonl"};
  spec.dataset_kwargs.data_files.train = {"c.jsonl"};
  spec.doc_to_text = "q";
  spec.doc_to_target = "a";
  return spec;
}

std::string refusal(const std::function<void(TaskSpec&)>& change) {
  TaskSpec spec = generating();
  change(spec);
  try {
    spec.validate();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no ConfigError";
}

}  // namespace

TEST(TaskSpec, RulesBetweenKeys) {
  EXPECT_EQ(refusal([](TaskSpec&) {}), "no ConfigError");
  EXPECT_THAT(refusal([](TaskSpec& s) { s.test_split = "dev"; }),
              HasSubstr("[task t] dataset_kwargs.data_files"));
  EXPECT_THAT(refusal([](TaskSpec& s) { s.doc_to_choice = {"a", "b"}; }), HasSubstr("doc_to_choice"));
  EXPECT_THAT(refusal([](TaskSpec& s) { s.output_type = "multiple_choice"; }), HasSubstr("doc_to_choice"));
  EXPECT_THAT(refusal([](TaskSpec& s) { s.generation_kwargs.until = {""}; }), HasSubstr("no empty text"));
  EXPECT_THAT(refusal([](TaskSpec& s) { s.generation_kwargs.do_sample = true; }), HasSubstr("do_sample"));
  EXPECT_THAT(refusal([](TaskSpec& s) { s.doc_to_target = ""; }), HasSubstr("doc_to_target"));
  EXPECT_THAT(refusal([](TaskSpec& s) { s.fields = {{.name = "f", .from = "q", .replace = {{.by = "x"}}}}; }),
              HasSubstr("a text or a regex"));
  EXPECT_THAT(refusal([](TaskSpec& s) { s.metric_list.emplace_back().metric = "acc"; }),
              HasSubstr("must fit the output type generate_until, got acc"));
}

TEST(TaskSpec, ReadsTheFilesOfTheSplitsThatItUses) {
  TaskSpec spec = generating();
  EXPECT_THAT(spec.all_files(), ElementsAre("a.jsonl", "b.jsonl"));
  spec.num_fewshot = 1;
  EXPECT_EQ(spec.shots_split(), "test");
  spec.training_split = "train";
  EXPECT_EQ(spec.shots_split(), "train");
  EXPECT_THAT(spec.all_files(), ElementsAre("a.jsonl", "b.jsonl", "c.jsonl"));
}

TEST(TaskDocuments, AreTheRecordsOfAllFilesInOrder) {
  const testing::TemporaryDirectory directory;
  write_durably(local_files(), directory / "a.jsonl", std::string_view("{\"q\": 1}\n{\"q\": 2}\n"));
  write_durably(local_files(), directory / "b.jsonl", std::string_view("{\"q\": 3}\n"));
  const auto all = read_task_documents(generating(), "test", directory.path());
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[2].fields.at("q"), 3);
  EXPECT_THAT(all[1].where, HasSubstr("a.jsonl:2"));
  TaskSpec other = generating();
  other.dataset_kwargs.data_files.test = {"a.parquet"};
  EXPECT_THROW(read_task_documents(other, "test", directory.path()), DataError);
  write_durably(local_files(), directory / "c.jsonl", std::string_view(""));
  EXPECT_THROW(read_task_documents(generating(), "train", directory.path()), DataError) << "no document";
}

}  // namespace retort::eval
