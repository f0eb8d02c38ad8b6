#include "distill/http_client.h"

#include <curl/curl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/random.h"

namespace retort::distill {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kLongestPause = 60, kLongestRetryAfter = 300;  // seconds
constexpr size_t kShown = 300;                                  // bytes of a refusal
constexpr int kPollMilliseconds = 100;                          // how soon a stop is seen

struct FreeMulti {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
struct FreeEasy {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

void start_library() {
  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
  check<InternalError>(started == CURLE_OK, "[http] libcurl does not start: {}", curl_easy_strerror(started));
}

// Whether asking again may help.
bool passes(CURLcode code) {
  switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_OUT_OF_MEMORY:
    case CURLE_BAD_FUNCTION_ARGUMENT:
      return false;
    default:
      return true;
  }
}

bool passes(long status) { return status == 408 || status == 425 || status == 429 || status >= 500; }

Clock::duration seconds(double count) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(count));
}

}  // namespace

struct HttpClient::State {
  HttpOptions options;
  Log& log;
  const std::atomic<bool>& stop;
  std::unique_ptr<CURLM, FreeMulti> multi;  // keeps connections from one round to the next
  std::unique_ptr<curl_slist, FreeList> headers;
  uint64_t requests = 0;  // so far
};

// One call of run(). Its end leaves no request under way.
class HttpClient::Round {
 public:
  Round(State& state, const Next& next, const Take& take, int64_t lanes)
      : state_(state), next_(next), take_(take) {
    for (int64_t lane = 0; lane < lanes; ++lane) lanes_.push_back(std::make_unique<Lane>(lane));
  }
  ~Round() {
    for (const auto& lane : lanes_)
      if (lane->phase == Phase::kUnderWay) curl_multi_remove_handle(state_.multi.get(), lane->easy.get());
  }

  bool run() {
    for (;;) {
      if (state_.stop.load()) return false;
      if (!start_lanes()) return true;
      int running = 0;
      check(curl_multi_perform(state_.multi.get(), &running));
      int left = 0;
      bool any = false;
      while (const CURLMsg* message = curl_multi_info_read(state_.multi.get(), &left))
        if (message->msg == CURLMSG_DONE) finish(message->easy_handle, message->data.result), any = true;
      if (!any) check(curl_multi_poll(state_.multi.get(), nullptr, 0, kPollMilliseconds, nullptr));
    }
  }

 private:
  enum class Phase { kIdle, kUnderWay, kWaiting };
  struct Lane {
    explicit Lane(int64_t index) : index(index) {}
    int64_t index;
    std::unique_ptr<CURL, FreeEasy> easy{curl_easy_init()};
    Phase phase = Phase::kIdle;
    HttpRequest request;
    uint64_t number = 0;    // of the request
    int64_t failures = 0;   // of the request
    Clock::time_point due;  // when it is asked again
    std::string answer;
    bool too_long = false;
  };

  static void check(CURLMcode code) {
    retort::check<InternalError>(code == CURLM_OK, "[http] libcurl: {}", curl_multi_strerror(code));
  }

  // False when no lane has anything to do.
  bool start_lanes() {
    bool busy = false;
    for (const auto& one : lanes_) {
      Lane& lane = *one;
      if (lane.phase == Phase::kIdle) {
        std::optional<HttpRequest> request = next_(lane.index);
        if (!request) continue;
        lane.request = std::move(*request);
        lane.number = state_.requests++;
        lane.failures = 0;
        start(lane);
      } else if (lane.phase == Phase::kWaiting && Clock::now() >= lane.due) {
        start(lane);
      }
      busy = true;
    }
    return busy;
  }

  static size_t receive(char* bytes, size_t, size_t count, void* to) {
    Lane& lane = *static_cast<Lane*>(to);
    lane.too_long = lane.answer.size() + count > lane.request.limit;
    if (lane.too_long) return 0;
    lane.answer.append(bytes, count);
    return count;
  }

  void start(Lane& lane) {
    CURL* const easy = lane.easy.get();
    RETORT_ASSERT(easy != nullptr);
    lane.answer.clear();
    lane.too_long = false;
    curl_easy_reset(easy);
    const std::string url = state_.options.url + lane.request.path;
    curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    // Proxies of the environment are for other machines.
    curl_easy_setopt(easy, CURLOPT_NOPROXY, no_proxy().c_str());
    const auto milliseconds = static_cast<long>(std::ceil(state_.options.timeout * 1000));
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, milliseconds);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, std::min(milliseconds, 30000L));
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, state_.headers.get());
    if (!lane.request.body.empty()) {
      curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(lane.request.body.size()));
      curl_easy_setopt(easy, CURLOPT_POSTFIELDS, lane.request.body.c_str());
    }
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Round::receive);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &lane);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, &lane);
    check(curl_multi_add_handle(state_.multi.get(), easy));
    lane.phase = Phase::kUnderWay;
  }

  static std::string no_proxy() {
    const char* const given = std::getenv("no_proxy");
    return fmt::format("localhost,127.0.0.1,::1{}{}", given != nullptr ? "," : "",
                       given != nullptr ? given : "");
  }

  void finish(CURL* easy, CURLcode code) {
    Lane* found = nullptr;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &found);
    Lane& lane = *found;
    curl_multi_remove_handle(state_.multi.get(), easy);
    lane.phase = Phase::kIdle;
    const std::string where = fmt::format("{}{}{}{}", state_.options.url, lane.request.path,
                                          lane.request.about.empty() ? "" : ": ", lane.request.about);
    retort::check<DataError>(!lane.too_long, "{}: the answer must be at most {} bytes", where,
                             lane.request.limit);
    if (code != CURLE_OK) {
      if (!passes(code)) fail<IoError>("{}: {}", where, curl_easy_strerror(code));
      return ask_again(lane, where, curl_easy_strerror(code), 0);
    }
    long status = 0;
    curl_off_t pause = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &pause);
    if (status == 200) {
      const std::string unreadable = take_(lane.index, lane.answer);
      return unreadable.empty() ? void() : ask_again(lane, where, unreadable, 0);
    }
    const std::string refusal = fmt::format("HTTP {}{}", status, shown(lane.answer));
    if (!passes(status)) fail<ConfigError>("{}: the server refuses: {}", where, refusal);
    ask_again(lane, where, refusal, static_cast<double>(pause));
  }

  void ask_again(Lane& lane, const std::string& where, const std::string& why, double asked) {
    const HttpOptions& options = state_.options;
    if (lane.failures == options.retries)
      fail<IoError>("{}: failed {} times, at last: {}", where, options.retries + 1, why);
    const double jitter =
        0.5 +
        Random(options.seed, "http back-off", static_cast<uint64_t>(lane.failures), lane.number).uniform(0);
    const double pause = std::max(
        std::min(options.back_off * std::exp2(static_cast<double>(lane.failures)), kLongestPause) * jitter,
        std::min(asked, kLongestRetryAfter));
    ++lane.failures;
    state_.log.warn("{}: {}; asked again in {:.1f} s ({} of {})", where, why, pause, lane.failures,
                    options.retries);
    lane.due = Clock::now() + seconds(pause);
    lane.phase = Phase::kWaiting;
  }

  // The beginning of what the server says, on one line and without the key.
  std::string shown(std::string said) const {
    const std::string& key = state_.options.key;
    for (size_t at = 0; !key.empty() && (at = said.find(key, at)) != said.npos;)
      said.replace(at, key.size(), "***");
    return said.empty() ? "" : fmt::format(", {:?}", said.substr(0, kShown));
  }

  State& state_;
  const Next& next_;
  const Take& take_;
  std::vector<std::unique_ptr<Lane>> lanes_;
};

HttpClient::HttpClient(HttpOptions options, Log& log, const std::atomic<bool>& stop) {
  start_library();
  state_.reset(
      new State{std::move(options), log, stop, std::unique_ptr<CURLM, FreeMulti>(curl_multi_init()), {}});
  RETORT_ASSERT(state_->multi != nullptr);
  std::vector<std::string> lines = {"Content-Type: application/json", "Expect:"};
  if (!state_->options.key.empty()) lines.push_back("Authorization: Bearer " + state_->options.key);
  for (const std::string& line : lines) {
    curl_slist* const longer = curl_slist_append(state_->headers.get(), line.c_str());
    RETORT_ASSERT(longer != nullptr);
    (void)state_->headers.release();
    state_->headers.reset(longer);
  }
}

HttpClient::~HttpClient() = default;

bool HttpClient::run(const Next& next, const Take& take) {
  return Round(*state_, next, take, state_->options.lanes).run();
}

std::optional<std::string> HttpClient::get(const std::string& path) {
  std::optional<std::string> out;
  bool asked = false;
  const Next next = [&](int64_t) {
    return std::exchange(asked, true) ? std::nullopt : std::optional(HttpRequest{.path = path});
  };
  const Take take = [&](int64_t, std::string_view answer) {
    out = std::string(answer);
    return std::string();
  };
  const bool whole = Round(*state_, next, take, 1).run();
  return whole ? out : std::nullopt;
}

}  // namespace retort::distill
