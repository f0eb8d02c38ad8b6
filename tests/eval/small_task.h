// A described task of each kind of question, over nine records of growing length: its file in a folder, and what
// asks of them.
#pragma once

#include <string>

#include "core/file.h"
#include "eval/task_spec.h"

namespace retort::testing {

inline void write_small_task(const Path& folder) {
  std::string records;
  for (int i = 0; i < 9; ++i)
    records += fmt::format(
        "{{\"q\": \"{} and {}\", \"c\": [\"one\", \"two {}\"], \"a\": {}, \"t\": \"a text of its own, "
        "{}\"}}\n",
        i, std::string(static_cast<size_t>(3 * i), 'x'), i, i % 2, i);
  write_durably(local_files(), folder / "test.jsonl", records);
}

inline eval::TaskSpec small_task(const std::string& output_type, int64_t most_tokens) {
  eval::TaskSpec spec;
  spec.task = "task";
  spec.output_type = output_type;
  spec.test_split = spec.fewshot_split = "test";
  spec.dataset_kwargs.data_files.test = {"test.jsonl"};
  spec.doc_to_text = "{{q}} is";
  spec.doc_to_target = spec.multiple_choice() ? "a" : "t";
  if (spec.multiple_choice()) spec.doc_to_choice = {"c"};
  spec.num_fewshot = spec.rolling() ? 0 : 1;
  spec.generation_kwargs.max_gen_toks = most_tokens;
  return spec;
}

}  // namespace retort::testing
