// The documents of a task: records of its files, with the fields that its description makes of them. They keep the
// files' order. Throws IoError, and DataError naming file and line.
#pragma once

#include <string>
#include <vector>

#include "core/file.h"
#include "eval/task_spec.h"
#include "formats/json.h"

namespace retort::eval {

struct TaskDocument {
  formats::Json fields;  // an object
  std::string where;     // "arc_easy.jsonl:17"
};

// Of one split. Files that are not absolute lie below `folder`.
std::vector<TaskDocument> read_task_documents(const TaskSpec& spec, const std::string& split,
                                              const Path& folder);

}  // namespace retort::eval
