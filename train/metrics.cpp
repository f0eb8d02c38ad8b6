#include "train/metrics.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"

namespace retort::train {
namespace {

using formats::Json;

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// The whole lines at the head of `text` with at most `done` updates.
std::vector<Json> lines_until(std::string_view text, int64_t done, const std::string& source,
                              uint64_t& bytes) {
  std::vector<Json> lines;
  bytes = 0;
  for (size_t end; (end = text.find('\n', bytes)) != text.npos; bytes = end + 1) {
    Json line;
    try {
      line = formats::parse_json(text.substr(bytes, end - bytes), source);
      if (formats::json_integer(line, "step", source) > done) break;
    } catch (const DataError&) {  // a crash can leave garbage after the lines that were synced
      break;
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace

std::string rate_text(double flops) {
  return flops < 1e12 ? fmt::format("{:.0f} GFLOP/s", 1e-9 * flops)
                      : fmt::format("{:.0f} TFLOP/s", 1e-12 * flops);
}

Metrics::Metrics(FileSystem& files, Log& log, const Path& directory, int64_t done, MetricsOptions options)
    : files_(files),
      log_(log),
      path_(directory / "metrics.jsonl"),
      options_(std::move(options)),
      progress_(log, path_.parent_path().filename().string(), options_.steps, "tok",
                options_.tokens_per_step),
      first_tokens_(static_cast<double>(options_.tokens)),
      first_seconds_(options_.seconds),
      last_tokens_(static_cast<double>(options_.tokens)),
      last_seconds_(options_.seconds) {
  std::vector<Json> lines;
  if (done > 0 && std::filesystem::exists(path_))
    lines = lines_until(read_text(path_), done, path_.string(), good_bytes_);
  write({});
  const Path board = directory / "tensorboard";
  try {
    files_.remove_all(board);
    board_ = std::make_unique<formats::TensorboardWriter>(board);
  } catch (const IoError& error) {
    log_.warn("{}; this run writes no TensorBoard events", error.what());
  }
  for (const Json& line : lines) {
    if (line.contains("validation")) validated_ = line["step"].get<int64_t>();
    draw(line);
  }
  progress_.update(done);
}

void Metrics::step(const StepStats& stats, const Covered& covered) {
  const int64_t done = stats.step + 1;
  note_ = stats.skipped       ? "update skipped"
          : !stats.measured() ? "loss -"
                              : fmt::format("loss {:.4f}", stats.loss);
  const double passed_here = covered.seconds - first_seconds_,
               seen_here = static_cast<double>(covered.tokens) - first_tokens_;
  if (options_.ceiling > 0 && passed_here > 0)
    note_ +=
        fmt::format("  {:.0f} % of {}", 100 * share(seen_here / passed_here), rate_text(options_.ceiling));
  progress_.update(done, note_);
  if (done % options_.log_every != 0 && done != options_.steps && !stats.skipped) return;
  Json line{{"step", done}};
  if (stats.measured()) {
    line["loss"] = stats.loss;
    for (size_t i = 0; i < stats.parts.size(); ++i) line[options_.part_names.at(i)] = stats.parts[i];
    line["gradient_norm"] = stats.gradient_norm;
  }
  line["lr"] = stats.lr;
  line[options_.counted] = stats.counted;
  line["tokens"] = covered.tokens;
  if (!covered.epochs.empty()) line["epochs"] = covered.epochs;
  if (stats.skipped) line["skipped"] = true;
  write(line);
  const double passed = covered.seconds - std::exchange(last_seconds_, covered.seconds);
  const auto tokens = static_cast<double>(covered.tokens);
  const double seen = tokens - std::exchange(last_tokens_, tokens);
  draw(line, passed > 0 ? seen / passed : 0.0);
}

void Metrics::validation(int64_t done, const std::map<std::string, double>& figures) {
  if (figures.empty()) return;
  const Json line{{"step", done}, {"validation", figures}};
  std::string text;
  for (const auto& [name, value] : figures) text += fmt::format("  {} {:.4f}", name, value);
  log_.info("{}  step {}  validation{}", path_.parent_path().filename().string(), done, text);
  write(line);
  draw(line);
  validated_ = done;
}

void Metrics::sync() {
  write({});
  try {
    if (file_) file_->sync();
  } catch (const IoError& error) {
    log_.warn("{}", error.what());
  }
}

void Metrics::finish() { progress_.finish(note_); }

// Without a line it opens the file and writes those that wait.
void Metrics::write(const Json& line) {
  if (!line.is_null())  // a source's path may be no UTF-8
    pending_ += line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  try {
    if (!file_) open();
    file_->append(as_bytes(pending_));
    good_bytes_ += pending_.size();
    pending_.clear();
    warned_ = false;
  } catch (const IoError& error) {
    file_.reset();
    if (!std::exchange(warned_, true))
      log_.warn("{}; the lines are kept and written at the next try", error.what());
  }
}

// Copies the lines to keep into a new file, which takes the old one's place and then grows.
void Metrics::open() {
  const std::string kept =
      good_bytes_ > 0 ? read_text(path_).substr(0, static_cast<size_t>(good_bytes_)) : std::string();
  const Path temporary = path_.string() + ".tmp";
  auto file = files_.create(temporary);
  file->append(as_bytes(kept));
  file->sync();
  files_.rename(temporary, path_);
  file_ = std::move(file);
}

double Metrics::share(double tokens_per_second) const {
  return tokens_per_second * options_.flops_per_token / options_.ceiling;
}

// TensorBoard's scalars of one line.
void Metrics::draw(const Json& line, double tokens_per_second) {
  if (!board_) return;
  std::map<std::string, double> scalars;
  const bool validation = line.contains("validation");
  for (const auto& [name, value] : (validation ? line["validation"] : line).items())
    if (value.is_number() && name != "step")
      scalars[(validation ? "validation/" : "train/") + name] = value.get<double>();
  if (line.contains("epochs"))
    for (const auto& [name, value] : line["epochs"].items()) scalars["epochs/" + name] = value.get<double>();
  if (tokens_per_second > 0) scalars["train/tokens_per_second"] = tokens_per_second;
  if (tokens_per_second > 0 && options_.ceiling > 0)
    scalars["train/share_of_ceiling"] = share(tokens_per_second);
  try {
    board_->scalars(line["step"].get<int64_t>(), wall_time(), scalars);
  } catch (const IoError& error) {
    log_.warn("{}; this run writes no more TensorBoard events", error.what());
    board_.reset();
  }
}

}  // namespace retort::train
