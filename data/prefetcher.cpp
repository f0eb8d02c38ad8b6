#include "data/prefetcher.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "core/error.h"

namespace retort::data {

struct Prefetcher::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Batch> ready;
  std::exception_ptr error;
  bool stop = false;
  std::thread thread;

  void work(const BatchStream& stream, const std::function<int64_t(int64_t)>& number_of, int64_t first,
            size_t ahead);
};

void Prefetcher::State::work(const BatchStream& stream, const std::function<int64_t(int64_t)>& number_of,
                             int64_t first, size_t ahead) {
  try {
    for (int64_t k = first;; ++k) {
      Batch batch = stream.batch(number_of(k));
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return stop || ready.size() < ahead; });
      if (stop) return;
      ready.push_back(std::move(batch));
      changed.notify_all();
    }
  } catch (...) {
    const std::lock_guard lock(mutex);
    error = std::current_exception();
    changed.notify_all();
  }
}

Prefetcher::Prefetcher(const BatchStream& stream, std::function<int64_t(int64_t)> number_of, int64_t first,
                       int64_t ahead)
    : state_(std::make_unique<State>()) {
  check<ConfigError>(ahead > 0, "[prefetcher] ahead must be > 0, got {}", ahead);
  state_->thread =
      std::thread([state = state_.get(), &stream, number_of = std::move(number_of), first, ahead] {
        state->work(stream, number_of, first, static_cast<size_t>(ahead));
      });
}

Prefetcher::~Prefetcher() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->changed.notify_all();
  state_->thread.join();
}

Batch Prefetcher::next() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return !state_->ready.empty() || state_->error; });
  if (state_->ready.empty()) std::rethrow_exception(state_->error);
  Batch batch = std::move(state_->ready.front());
  state_->ready.pop_front();
  state_->changed.notify_all();
  return batch;
}

}  // namespace retort::data
