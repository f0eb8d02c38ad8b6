// R rows of a source.
#include "distill/reference.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "core/digest.h"
#include "core/error.h"
#include "core/host_tensor.h"
#include "core/shape.h"
#include "data/on_device.h"
#include "distill/divided_teacher.h"
#include "formats/safetensors.h"
#include "models/row_log_probability.h"

namespace retort::distill {
namespace {

constexpr int64_t kRows = 16;                          // of a batch of all rows
constexpr const char* kIdentity = "retort.reference";  // in the file's metadata

std::vector<double> numbers(const at::Tensor& values_B) {
  const at::Tensor host = values_B.detach().cpu().to(at::kDouble).contiguous();
  const std::span<const double> values = host_values<const double>(host);
  return {values.begin(), values.end()};
}

void check_finite(double log_p) {
  check<NonFiniteError>(
      std::isfinite(log_p),
      "[preference] the reference's log-probability of an answer is not finite: its weights or "
      "precision are wrong; checkpoints so far, if any, are whole");
}

class LiveReference final : public Reference {
 public:
  explicit LiveReference(std::unique_ptr<Teacher> teacher) : teacher_(std::move(teacher)) {}
  std::vector<double> log_p(const data::Batch& batch) override {
    const at::NoGradGuard no_grad;
    const TeacherSignal signal = teacher_->signal(batch, {});
    const kernels::TeacherHead& head = signal.rows.heads.at(0);
    const at::Tensor h_BTD = head.hidden_ND.view({batch.tokens_BT.size(0), batch.tokens_BT.size(1), -1});
    std::vector<double> out = numbers(models::row_log_probability(h_BTD, head.head, batch.labels_BT).sum_B);
    std::ranges::for_each(out, check_finite);
    return out;
  }

 private:
  std::unique_ptr<Teacher> teacher_;
};

class KeptReference final : public Reference {
 public:
  explicit KeptReference(std::vector<KeptLogP> sources) : sources_(std::move(sources)) {}
  std::vector<double> log_p(const data::Batch& batch) override {
    const at::Tensor begins_B = batch.corpus_BT.select(1, 0).cpu().contiguous(),
                     source_B = batch.source_B.cpu();
    const std::span<const int64_t> begins = host_values<const int64_t>(begins_B),
                                   sources = host_values<const int64_t>(source_B);
    std::vector<double> out;
    for (size_t b = 0; b < begins.size(); ++b) {
      const KeptLogP& kept = sources_.at(static_cast<size_t>(sources[b]));
      const auto found = std::ranges::lower_bound(kept.begins, begins[b]);
      check<DataError>(found != kept.begins.end() && *found == begins[b],
                       "[preference] nothing was kept of the answer at token {} of source {}", begins[b],
                       sources[b]);
      out.push_back(host_values<const float>(kept.log_p_R)[static_cast<size_t>(found - kept.begins.begin())]);
    }
    return out;
  }

 private:
  std::vector<KeptLogP> sources_;
};

// The first `rows` rows.
data::Batch first_rows(data::Batch batch, int64_t rows) {
  for (at::Tensor* part :
       {&batch.tokens_BT, &batch.labels_BT, &batch.corpus_BT, &batch.source_B, &batch.chosen_B})
    *part = part->narrow(0, 0, rows);
  batch.samples.resize(static_cast<size_t>(rows));
  return batch;
}

std::string source_name(size_t number, const char* part) { return fmt::format("source.{}.{}", number, part); }

// A tensor of the file that must be a vector of that type.
at::Tensor vector_of(const formats::SafetensorsFile& file, const std::string& name, at::ScalarType dtype) {
  const at::Tensor values = file.tensor(name);
  check<DataError>(values.dim() == 1 && values.scalar_type() == dtype,
                   "{}: {} must be a vector of {}, got {} of {}", file.path().string(), name,
                   c10::toString(dtype), format_shape(values.sizes()), c10::toString(values.scalar_type()));
  return values;
}

}  // namespace

std::unique_ptr<Reference> make_live_reference(std::unique_ptr<Teacher> teacher) {
  RETORT_ASSERT(teacher != nullptr);
  check<ConfigError>(teacher->kind().name == "dense",
                     "[preference] a reference must give its whole distribution, got {} labels",
                     teacher->kind().name);
  return std::make_unique<LiveReference>(std::move(teacher));
}

AnswerBatches::AnswerBatches(std::shared_ptr<const data::TokenShards> shards, int64_t sequence,
                             int64_t limit) {
  const auto stream = [&](int64_t rows) {
    return std::make_unique<data::BatchStream>(
        shards, data::BatchOptions{.sequence = sequence, .rows = rows, .shuffle = false, .limit = limit});
  };
  stream_ = stream(kRows);
  rows_ = stream_->samples_per_epoch();
  int64_t rows = kRows;  // none of them alone at the end: a rated answer may want the next one's
  while (rows > 2 && rows_ % rows == 1) --rows;
  if (rows < kRows) stream_ = stream(rows);
}

data::Batch AnswerBatches::batch(int64_t number) const {
  const int64_t first = number * stream_->options().rows;
  RETORT_ASSERT(first < rows_);
  return first_rows(stream_->batch(number), std::min(stream_->options().rows, rows_ - first));
}

std::vector<int64_t> AnswerBatches::begins() const {
  std::vector<int64_t> out;
  for (int64_t row = 0; row < rows_; ++row) out.push_back(stream_->answers(0)->row(row).begin);
  return out;
}

KeptLogP compute_log_p(Reference& reference, const AnswerBatches& rows, const at::Device& device,
                       comm::Comm& comm) {
  KeptLogP out{rows.begins(), at::zeros({rows.rows()}, at::kFloat)};
  const at::Tensor all_R = at::zeros({rows.rows()}, at::kDouble);
  const std::span<double> values = host_values<double>(all_R);
  const int64_t step = rows.batch(0).tokens_BT.size(0);
  for (int64_t first = 0; first < rows.size(); first += comm.size()) {  // ranks ask for weights together
    const int64_t n = first + comm.rank();
    const data::Batch batch = rows.batch(std::min(n, rows.size() - 1));
    const std::vector<double> log_p = reference.log_p(data::on_device(batch, device));
    if (n < rows.size()) std::ranges::copy(log_p, values.begin() + n * step);
  }
  comm.all_reduce(all_R, comm::Reduce::kSum).wait();  // each entry has one rank's number and zeros
  out.log_p_R.copy_(all_R);
  return out;
}

std::unique_ptr<Reference> make_kept_reference(std::vector<KeptLogP> sources) {
  return std::make_unique<KeptReference>(std::move(sources));
}

std::string reference_identity(const models::Parameters& parameters, at::ScalarType precision,
                               const std::vector<data::Source>& sources, const data::BatchOptions& options) {
  return reference_identity(parameters, {}, precision, sources, options);
}

std::string reference_identity(const models::Parameters& parameters, const models::ParameterValues& stored,
                               at::ScalarType precision, const std::vector<data::Source>& sources,
                               const data::BatchOptions& options) {
  Digest digest;
  for (const models::Parameter& p : parameters.unique()) {
    const at::Tensor values = models::f32_of(stored, p).detach().cpu();
    digest.add(as_bytes(fmt::format("{}{}", p.name, format_shape(values.sizes()))));
    digest.add(host_bytes(values));
  }
  std::string out = fmt::format("weights {} in {}\n", hex(digest.value()), c10::toString(precision));
  for (const data::Source& source : sources)
    out += fmt::format("text {} in rows of {} tokens, limit {}\n", hex(source.shards->digest()),
                       options.sequence, options.limit);
  return out;
}

void write_log_p(FileSystem& files, const Path& path, const std::vector<KeptLogP>& sources,
                 const std::string& identity) {
  formats::NamedTensors tensors;
  for (size_t i = 0; i < sources.size(); ++i) {
    tensors.emplace_back(source_name(i, "begins"), at::tensor(sources[i].begins, at::kLong));
    tensors.emplace_back(source_name(i, "log_p"), sources[i].log_p_R);
  }
  formats::write_safetensors(files, path, tensors, {{kIdentity, identity}});
}

std::optional<std::vector<KeptLogP>> read_log_p(const Path& path, const std::string& identity) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  const formats::SafetensorsFile file(path);
  const auto found = file.metadata().find(kIdentity);
  if (found == file.metadata().end() || found->second != identity) return std::nullopt;
  std::vector<KeptLogP> out;
  for (size_t i = 0; file.contains(source_name(i, "begins")); ++i) {
    const at::Tensor begins_R = vector_of(file, source_name(i, "begins"), at::kLong),
                     log_p_R = vector_of(file, source_name(i, "log_p"), at::kFloat);
    const std::span<const int64_t> begins = host_values<const int64_t>(begins_R);
    check<DataError>(log_p_R.size(0) == begins_R.size(0) && std::ranges::is_sorted(begins),
                     "{}: source {} must have a number for each of its rows, in the corpus' order",
                     path.string(), i);
    for (const float one : host_values<const float>(log_p_R))
      check<DataError>(std::isfinite(one), "{}: source {} holds a number that is not finite", path.string(),
                       i);
    out.push_back({{begins.begin(), begins.end()}, log_p_R.clone()});
  }
  return out;
}

}  // namespace retort::distill
