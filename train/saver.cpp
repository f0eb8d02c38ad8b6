#include "train/saver.h"

#include <unistd.h>

#include <algorithm>

#include "core/error.h"
#include "core/host_tensor.h"

namespace retort::train {
namespace {

constexpr const char* kKinds[] = {"async", "sync"};
constexpr int64_t kAtWork = -1;

double seconds_since(Saver::Clock::time_point start) {
  return std::chrono::duration<double>(Saver::Clock::now() - start).count();
}

}  // namespace

std::vector<std::string> save_kinds() { return {std::begin(kKinds), std::end(kKinds)}; }

Saver::Saver(FileSystem& files, RangeFiles& ranges, comm::Comm& comm, Path directory, int64_t keep,
             const std::string& kind)
    : files_(files),
      ranges_(ranges),
      comm_(comm),
      directory_(std::move(directory)),
      keep_(keep),
      background_(kind == kKinds[0]) {}

Saver::~Saver() {
  if (background_ && job_.valid()) job_.wait();
}

uint64_t Saver::copied_bytes() const {
  uint64_t sum = 0;
  for (const auto& [_, copy] : copies_) sum += copy.nbytes();
  return sum;
}

// Into the memory of the save before, where that fits.
void Saver::copy_to_host(CheckpointContent& content) {
  for (auto& [name, share] : content.shares) {
    at::Tensor& copy = copies_[name];
    if (!copy.defined() || copy.sizes() != share.rows.sizes() ||
        copy.scalar_type() != share.rows.scalar_type())
      copy = at::empty(share.rows.sizes(), share.rows.options().device(at::kCPU));
    copy.copy_(share.rows.detach());
    share.rows = copy;
  }
}

void Saver::start(CheckpointContent content, Clock::time_point since, std::function<void(double)> committed) {
  RETORT_ASSERT(!under_way());
  const std::string suffix = comm_.broadcast_text(fmt::format("{}", ::getpid()));
  if (background_) copy_to_host(content);
  step_ = content.step;
  since_ = since;
  stall_ = seconds_since(since);
  committed_ = std::move(committed);
  writer_ = std::make_unique<CheckpointWriter>(files_, ranges_, directory_, std::move(content), suffix);
  begin(Part::kReserve);
}

// The work of a part on this rank. A deferred job is done where it is waited for, on the caller's thread.
void Saver::begin(Part part) {
  part_ = part;
  failure_.reset();
  const bool alone = comm_.size() == 1;
  job_ = std::async(background_ ? std::launch::async : std::launch::deferred, [this, part, alone] {
    work(part);
    if (!alone) return;  // others have to come through it first
    work(Part::kWrite);
    work(Part::kCommit);
  });
  if (alone) part_ = Part::kCommit;
}

void Saver::work(Part part) {
  const bool first = comm_.rank() == 0;
  if (part == Part::kReserve && first) writer_->reserve();
  if (part == Part::kWrite) digests_ = writer_->write();
  if (part != Part::kCommit || !first) return;
  writer_->commit(digests_, keep_);
  committed_(background_ ? stall_ : seconds_since(since_));
}

SaveResult Saver::ended(const std::string& failure) {
  if (!failure.empty() && comm_.rank() == 0) writer_->discard();
  writer_.reset();
  return {step_, failure};
}

// Each of them is 0 on every rank but one.
void Saver::add_up_digests() {
  const at::Tensor sum = at::empty({std::ssize(digests_)}, at::kLong);
  std::ranges::copy(digests_, host_values<int64_t>(sum).begin());
  comm_.all_reduce(sum, comm::Reduce::kSum).wait();
  std::ranges::copy(host_values<const int64_t>(sum), digests_.begin());
}

// One collective a call, more where a part is through.
std::optional<SaveResult> Saver::advance(bool wait) {
  RETORT_ASSERT(under_way());
  if (job_.valid() && (wait || job_.wait_for(std::chrono::seconds(0)) != std::future_status::timeout)) {
    try {
      job_.get();
    } catch (const IoError& error) {
      failure_ = error.what();
    }
  }
  if (wait) comm_.barrier();  // however long other ranks write
  const int64_t mine = job_.valid() ? kAtWork : failure_ ? comm_.rank() : comm_.size();
  const int64_t least = comm_.reduce(mine, comm::Reduce::kMin);
  if (least == kAtWork) return {};
  if (least < comm_.size())
    return ended(comm_.broadcast_text(failure_.value_or(""), static_cast<int>(least)));
  if (part_ == Part::kCommit) return ended("");
  if (part_ == Part::kWrite) add_up_digests();
  begin(part_ == Part::kReserve ? Part::kWrite : Part::kCommit);
  return {};
}

std::optional<SaveResult> Saver::poll() { return advance(false); }

SaveResult Saver::finish() {
  for (;;)
    if (const auto result = advance(true)) return *result;
}

}  // namespace retort::train
