// The directory of a stage's work, and what was put aside from its place:
//
//   STAGE/                                     the work of the recipe as it is
//   STAGE.replaced/, STAGE.replaced.2/, ...    of other recipes or inputs, or put aside by --resume never
//
// Put aside work is taken back when its recipe is wanted again, and never removed: only what had not come to
// a result or a checkpoint is. The log names everything that is moved. One process at a time; on rank 0.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "artifacts/identify.h"
#include "core/file.h"
#include "core/log.h"
#include "formats/json.h"
#include "recipes/recipe.h"

namespace retort::recipes {

enum class Plan { kSkip, kContinue, kFresh };

struct StageWork {
  Plan plan = Plan::kFresh;
  Path place;  // where the work lies that is skipped or continued: STAGE, or put aside; "" when fresh
};

// What there is for a stage of this hash; `continues`: of a kind that goes on with unfinished work.
StageWork find_work(const Path& directory, const std::string& hash, bool continues, bool start_over);
// The work comes to STAGE, and what stood there aside.
void take_back(const StageWork& work, const Path& directory, FileSystem& files, Log& log);
// Why work goes aside: it is another recipe's, all is to be done again, or it is the same but shorter.
enum class Aside { kChanged, kStartOver, kLonger };
// STAGE is gone then; returns where its work is, "" when there was none. `identity` is the recipe as it is now:
// the log says which keys changed.
Path put_aside(const Path& directory, const std::string& identity, Aside why, FileSystem& files, Log& log);

// What STAGE/stage.json keeps of the work that was begun there; nothing where none was, or it is damaged.
struct BegunWork {
  std::string hash, identity;
  double length = 0;       // StageKind::length
  std::string from = {};   // the checkpoints of shorter work, below the run's directory; or ""
  double from_length = 0;  // its length
};
std::optional<BegunWork> begun_work(const Path& directory);
void write_begun(FileSystem& files, const Path& directory, const BegunWork& work);

// Removes the halves of files that a killed run left in a directory, and of folders that were to get these names.
void sweep(const Path& directory, FileSystem& files, const std::vector<std::string>& folders = {});

using artifacts::is_put_aside;

// A file of JSON. A path may hold bytes that are no UTF-8: they become U+FFFD.
void write_json(FileSystem& files, const Path& path, const formats::Json& json);
// A file of lines of JSON; none where there is no file.
std::vector<formats::Json> read_json_lines(const Path& path);

// ConfigError where a stage's place, or the run's own recipe.yaml, is somebody else's. REQUIRES: before the
// run's files are written, since they tell a run's directory from another.
void check_own(const Recipe& recipe);

}  // namespace retort::recipes
