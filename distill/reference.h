// What the reference of a preference loss says of whole answers: log p of each row of a batch. Live it is a model beside
// the one that is trained; kept, numbers that were computed once for all rows of a text and are found by the place in the
// corpus where a row begins. What is kept may lie in a file, which names what it was computed from. docs/preferences.md.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "core/file.h"
#include "data/batch_stream.h"
#include "distill/teacher.h"

namespace retort::distill {

class Reference {
 public:
  virtual ~Reference() = default;
  virtual std::vector<double> log_p(const data::Batch& batch) = 0;
};

// ConfigError unless the teacher gives its whole distribution.
std::unique_ptr<Reference> make_live_reference(std::unique_ptr<Teacher> teacher);

// All rows of answers of one source, each once and in the corpus' order, in batches that follow from the source alone:
// whoever computes a number of theirs computes the same one.
class AnswerBatches {
 public:
  AnswerBatches(std::shared_ptr<const data::TokenShards> shards, int64_t sequence, int64_t limit = 0);
  int64_t rows() const { return rows_; }
  int64_t size() const { return (rows_ + stream_->options().rows - 1) / stream_->options().rows; }
  data::Batch batch(int64_t number) const;
  std::vector<int64_t> begins() const;  // of each row in the corpus, ascending

 private:
  int64_t rows_;
  std::unique_ptr<data::BatchStream> stream_;
};

// Of one source: where its rows begin, ascending, and log p of each, f32.
struct KeptLogP {
  std::vector<int64_t> begins;
  at::Tensor log_p_R;
};
// Collective: ranks share the batches, and every rank gets the same bits.
KeptLogP compute_log_p(Reference& reference, const AnswerBatches& rows, const at::Device& device,
                       comm::Comm& comm);
// Of the sources of a batch. A row that is not among them is a DataError.
std::unique_ptr<Reference> make_kept_reference(std::vector<KeptLogP> sources);

// What numbers are computed from, as text: the weights' values, the precision of their products, and each source's digest
// with the length and the limit that its rows are cut to.
std::string reference_identity(const models::Parameters& parameters, at::ScalarType precision,
                               const std::vector<data::Source>& sources, const data::BatchOptions& options);
void write_log_p(FileSystem& files, const Path& path, const std::vector<KeptLogP>& sources,
                 const std::string& identity);
// Nothing where there is no file, or one that was computed from something else; DataError for one that does not hold.
std::optional<std::vector<KeptLogP>> read_log_p(const Path& path, const std::string& identity);

}  // namespace retort::distill
