// Runs as one HTML page.
#include <fmt/format.h>

#include "artifacts/out_path.h"
#include "launch/verbs.h"
#include "recipes/html_report.h"

namespace retort::launch {

ExitCode report_verb(const ReportArguments& arguments) {
  artifacts::probe_out("--out", arguments.out, true, "");
  write_durably(local_files(), arguments.out,
                recipes::html_report({arguments.runs.begin(), arguments.runs.end()}));
  fmt::print("{}\n", arguments.out);
  return ExitCode::kDone;
}

}  // namespace retort::launch
