// Requests to one server over HTTP, several at a time, by libcurl (https://curl.se/libcurl/c/), on the caller's
// thread. What fails in passing is asked again after a pause that doubles: a connection that breaks, a timeout,
// 408, 425, 429, 5xx, an answer that cannot be read. Pause i lasts back_off 2^i seconds, at most a minute, times
// 0.5 .. 1.5 from (seed, request, i), or what the server's Retry-After asks for, at most five minutes.
//
// Certificates are verified, redirections not followed. One thread. IoError when the retries are used up, ConfigError
// for a request that the server refuses, DataError for an answer beyond its limit. None of them shows the key.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/log.h"

namespace retort::distill {

struct HttpOptions {
  std::string url = {};  // http://HOST:PORT or https://, and perhaps the beginning of a path
  int64_t lanes = 1;     // requests at a time
  double timeout = 600;  // seconds for one answer
  int64_t retries = 6;   // of one request
  double back_off = 1;   // seconds
  std::string key = {};  // goes as a bearer token; "" for none
  uint64_t seed = 0;     // of the pauses
};

struct HttpRequest {
  std::string path;        // begins with a slash
  std::string body = {};   // JSON, and a POST; "" for a GET
  std::string about = {};  // what it asks for, in errors: "window at token 4096"
  size_t limit = 1 << 20;  // bytes of the answer
};

class HttpClient {
 public:
  HttpClient(HttpOptions options, Log& log, const std::atomic<bool>& stop);
  ~HttpClient();

  // A lane's next request; nothing when it has none.
  using Next = std::function<std::optional<HttpRequest>(int64_t lane)>;
  // Uses an answer; returns why it cannot be read, "" when it could.
  using Take = std::function<std::string(int64_t lane, std::string_view answer)>;
  // Keeps each lane at one request at a time until none has any. False when stopped.
  bool run(const Next& next, const Take& take);
  // One request by itself; nothing when stopped.
  std::optional<std::string> get(const std::string& path);

 private:
  class Round;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retort::distill
