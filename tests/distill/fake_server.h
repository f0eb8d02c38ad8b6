// An HTTP server on loopback for tests of clients: a thread a connection, answers from a function, and whatever may go
// wrong with them: a status, a pause, an end in the middle.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <thread>

#include <fmt/format.h>

namespace retort::testing {

struct FakeRequest {
  std::string method = {}, path = {}, head = {}, body = {};
  int64_t number = 0;  // of all that have come, from 0
};

struct FakeAnswer {
  std::string body = {};
  int status = 200;
  std::string headers = {};         // whole lines
  size_t sent = std::string::npos;  // bytes of the body before the connection is cut
  double pause = 0;                 // seconds before the answer
};

class FakeServer {
 public:
  using Handler = std::function<FakeAnswer(const FakeRequest&)>;

  explicit FakeServer(Handler handler) : handler_(std::move(handler)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener_, any, size) != 0 || ::listen(listener_, 64) != 0 ||
        ::getsockname(listener_, any, &size) != 0)
      throw std::runtime_error("no socket on loopback");
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~FakeServer() {
    closing_ = true;
    acceptor_.join();
    for (std::thread& connection : connections_) connection.join();
    ::close(listener_);
  }
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;

  std::string url() const { return fmt::format("http://127.0.0.1:{}", port_); }
  int64_t requests() const { return requests_; }
  int most_at_once() const { return most_; }

 private:
  static constexpr int kTick = 20;  // ms

  bool readable(int socket) const {
    pollfd one{socket, POLLIN, 0};
    return ::poll(&one, 1, kTick) > 0;
  }
  void accept_all() {
    while (!closing_) {
      if (!readable(listener_)) continue;
      const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (socket >= 0) connections_.emplace_back([this, socket] { serve(socket); });
    }
  }
  void serve(int socket) {
    std::string buffer;
    while (answer_one(socket, buffer)) {
    }
    ::close(socket);
  }
  // Grows the buffer; false when the other side has left.
  bool receive(int socket, std::string& buffer) const {
    while (!closing_) {
      if (!readable(socket)) continue;
      char bytes[4096];
      const ssize_t count = ::recv(socket, bytes, sizeof bytes, 0);
      if (count <= 0) return false;
      buffer.append(bytes, static_cast<size_t>(count));
      return true;
    }
    return false;
  }
  bool answer_one(int socket, std::string& buffer) {
    size_t end = 0;
    while ((end = buffer.find("\r\n\r\n")) == buffer.npos)
      if (!receive(socket, buffer)) return false;
    FakeRequest request{.head = buffer.substr(0, end)};
    const std::string line = request.head.substr(0, request.head.find("\r\n"));
    request.method = line.substr(0, line.find(' '));
    request.path = line.substr(line.find(' ') + 1, line.rfind(' ') - line.find(' ') - 1);
    size_t length = 0;
    if (const size_t at = request.head.find("Content-Length: "); at != std::string::npos)
      length = std::stoul(request.head.substr(at + 16));
    buffer.erase(0, end + 4);
    while (buffer.size() < length)
      if (!receive(socket, buffer)) return false;
    request.body = buffer.substr(0, length);
    buffer.erase(0, length);
    request.number = requests_++;
    enter();
    const FakeAnswer answer = handler_(request);
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(answer.pause);
    while (!closing_ && std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    --at_once_;
    std::string text = fmt::format("HTTP/1.1 {} X\r\nContent-Length: {}\r\n{}\r\n", answer.status,
                                   answer.body.size(), answer.headers);
    text += answer.body.substr(0, answer.sent);
    for (size_t at = 0; at < text.size();) {
      const ssize_t count = ::send(socket, text.data() + at, text.size() - at, MSG_NOSIGNAL);
      if (count <= 0) return false;
      at += static_cast<size_t>(count);
    }
    return answer.sent >= answer.body.size() && !closing_;
  }
  void enter() {
    const int now = ++at_once_;
    int most = most_;
    while (now > most && !most_.compare_exchange_weak(most, now)) {
    }
  }

  Handler handler_;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::atomic<bool> closing_{false};
  std::atomic<int64_t> requests_{0};
  std::atomic<int> at_once_{0}, most_{0};
  std::list<std::thread> connections_;  // of the acceptor, until it ends
  std::thread acceptor_;
};

}  // namespace retort::testing
