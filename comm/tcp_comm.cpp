// TCP as a Transport: one connection between every two ranks, polled, so that a watchdog can end the wait.
//
// The ranks meet at LibTorch's TCPStore, which rank 0 serves unless torchrun's agent does. Each rank puts the
// address at which it listens there, connects to the lower ranks and accepts the higher ones; whoever
// connects sends the group's token and its rank. The ranks leave the store as soon as all are joined.
//
// Beside each connection is a second one for signs of life: a zero byte now and then, and, when a rank ends the group, why.
#include <arpa/inet.h>
#include <fmt/ranges.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "comm/comm.h"
#include "comm/pulse.h"
#include "comm/queued_comm.h"
#include "core/errno_text.h"
#include "core/error.h"

namespace retort::comm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kNapMilliseconds = 50;        // between two checks of interrupt() and the watchdog
constexpr int kGreetingSeconds = 10;        // until a connection has sent its greeting
constexpr double kVanishedSeconds = 60;     // until a machine that answers nothing counts as gone
constexpr int kFarewellMilliseconds = 500;  // for why a peer has left
constexpr size_t kMaxPiece = 1 << 20;       // so that sending to one peer does not hold up the others

[[noreturn]] void fail_call(std::string_view what) {
  fail<CommError>("[tcp] {} failed: {}", what, errno_text());
}

Clock::time_point after(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~Socket() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  int get() const { return descriptor_; }
  void set(int level, int option, int value) const {
    if (::setsockopt(descriptor_, level, option, &value, sizeof(value)) != 0) fail_call("setsockopt");
  }

 private:
  int descriptor_ = -1;
};

struct Address {
  sockaddr_storage bytes = {};
  socklen_t size = sizeof(sockaddr_storage);
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&bytes); }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&bytes); }
};

// This machine's address towards the meeting: the near end of a route there. Sends nothing.
Address own_address(const TcpMeeting& at) {
  addrinfo hints = {}, *found = nullptr;
  hints.ai_socktype = SOCK_DGRAM;
  const int code = ::getaddrinfo(at.host.c_str(), std::to_string(at.port).c_str(), &hints, &found);
  check<CommError>(code == 0, "[tcp] no address for {}:{}: {}", at.host, at.port, ::gai_strerror(code));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> all(found, &::freeaddrinfo);
  for (; found != nullptr; found = found->ai_next) {  // a name may have addresses that lead nowhere
    const Socket probe(::socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    Address near;
    if (probe.get() >= 0 && ::connect(probe.get(), found->ai_addr, found->ai_addrlen) == 0 &&
        ::getsockname(probe.get(), near.get(), &near.size) == 0)
      return near;
  }
  fail_call(fmt::format("finding the way to {}:{}", at.host, at.port));
}

Socket listen_at(Address& address, int backlog) {
  auto& port = address.bytes.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address.bytes).sin6_port
                                                   : reinterpret_cast<sockaddr_in&>(address.bytes).sin_port;
  port = 0;
  Socket out(::socket(address.bytes.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (out.get() < 0 || ::bind(out.get(), address.get(), address.size) != 0 ||
      ::listen(out.get(), backlog) != 0 || ::getsockname(out.get(), address.get(), &address.size) != 0)
    fail_call("listening");
  return out;
}

// What a rank sends first. Both ends are this program, so the bytes keep the machine's order.
struct Greeting {
  uint64_t token;
  int32_t rank, signs;  // signs: 1 for the connection of signs of life
};

// The store; its exceptions become CommErrors.
class Meeting {
 public:
  Meeting(const TcpMeeting& at, double timeout) {
    tell([&] {
      c10d::TCPStoreOptions options;
      options.port = static_cast<uint16_t>(at.port);
      options.isServer = at.rank == 0 && !at.served;
      options.waitWorkers = false;
      options.timeout = std::chrono::milliseconds(static_cast<int64_t>(timeout * 1000));
      store_ = c10::make_intrusive<c10d::PrefixStore>("retort/" + at.attempt,
                                                      c10::make_intrusive<c10d::TCPStore>(at.host, options));
    });
  }
  void set(const std::string& key, const void* data, size_t size) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    tell([&] { store_->set(key, std::vector<uint8_t>(bytes, bytes + size)); });
  }
  // Waits for it.
  template <class T>
  T get(const std::string& key) {
    std::vector<uint8_t> bytes;
    tell([&] { bytes = store_->get(key); });
    T out;
    check<CommError>(bytes.size() == sizeof(T), "[tcp] {} at the meeting must have {} bytes, got {}", key,
                     sizeof(T), bytes.size());
    std::memcpy(&out, bytes.data(), sizeof(T));
    return out;
  }

 private:
  template <class Work>
  static void tell(const Work& work) {
    try {
      work();
    } catch (const c10::Error& error) {
      fail<CommError>("[tcp] {}", error.what_without_backtrace());
    }
  }
  c10::intrusive_ptr<c10d::Store> store_;
};

class TcpTransport final : public Transport {
 public:
  TcpTransport(const TcpMeeting& at, const CommOptions& options)
      : timeout_(options.timeout_seconds),
        rank_(at.rank),
        size_(at.size),
        peers_(at.size),
        signs_(at.size),
        farewells_(at.size),
        lost_(at.size),
        pulse_(at.size, options.timeout_seconds, options.alone_seconds) {
    Meeting meeting(at, timeout_);
    if (rank_ == 0) {
      std::random_device random;
      const uint64_t token = uint64_t{random()} << 32 | random();
      meeting.set("token", &token, sizeof(token));
    }
    const auto token = meeting.get<uint64_t>("token");
    Address mine = own_address(at);
    const Socket door = listen_at(mine, size_);
    meeting.set(fmt::format("address {}", rank_), &mine, sizeof(mine));
    for (int peer = 0; peer < rank_; ++peer) {
      const auto address = meeting.get<Address>(fmt::format("address {}", peer));
      peers_[peer] = connect_to(peer, address, token, false);
      signs_[peer] = connect_to(peer, address, token, true);
    }
    let_in(door, token);
    for (const auto* sockets : {&peers_, &signs_})
      for (const Socket& one : *sockets)
        if (one.get() >= 0) prepare(one);
    wait_for_all();  // the store may go when every rank is joined
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string name() const override { return "tcp"; }

  void exchange(const std::vector<std::span<const std::byte>>& send,
                const std::vector<std::span<std::byte>>& receive, Wait how) override {
    std::vector<Progress> open;
    for (int step = 1; step < size_; ++step) {
      const int peer = (rank_ + step) % size_;
      if (!send[peer].empty() || !receive[peer].empty()) open.push_back({peer, send[peer], receive[peer]});
    }
    Clock::time_point moved = Clock::now();
    while (!open.empty()) {
      check<CommError>(!interrupted_, "[tcp] rank {} was interrupted", rank_);
      bool any = false;
      for (Progress& p : open) any |= move(p);
      std::erase_if(open, [](const Progress& p) { return p.send.empty() && p.receive.empty(); });
      if (open.empty()) break;
      if (pulse_.due()) beat();
      const Clock::time_point now = Clock::now();
      if (any) moved = now;
      if (any) continue;
      std::vector<int> waited_for;
      for (const Progress& p : open) {
        waited_for.push_back(p.peer);
        listen_to(p.peer);
        check<CommError>(lost_[p.peer].empty(), "[tcp] rank {} lost rank {}: {}", rank_, p.peer,
                         lost_[p.peer]);
      }
      pulse_.check(waited_for, moved, how);
      nap(open);
    }
  }

  // A byte to each peer, and what they have sent. What does not fit now says nothing new.
  void beat() override {
    const char sign = 0;
    pulse_.sent();
    for (const Socket& one : signs_)
      if (one.get() >= 0) (void)::send(one.get(), &sign, 1, MSG_NOSIGNAL);
    for (int peer = 0; peer < size_; ++peer) listen_to(peer);
  }
  double beat_seconds() const override { return pulse_.interval(); }
  void tell(const std::string& why) noexcept override {
    for (const Socket& one : signs_)
      if (one.get() >= 0) (void)::send(one.get(), why.data(), why.size(), MSG_NOSIGNAL);
  }

  void interrupt() noexcept override { interrupted_ = true; }
  [[noreturn]] void abort(int exit_code) override { std::_Exit(exit_code); }

 private:
  // What is still to be sent to one peer, and received from it.
  struct Progress {
    int peer;
    std::span<const std::byte> send;
    std::span<std::byte> receive;
  };

  Socket connect_to(int peer, const Address& address, uint64_t token, bool signs) const;
  void let_in(const Socket& door, uint64_t token);
  std::vector<int> strangers() const;
  void prepare(const Socket& peer) const;
  void wait_for_all();
  bool move(Progress& p);
  void nap(const std::vector<Progress>& open) const;
  bool listen_to(int peer);
  std::string why_left(int peer);

  const double timeout_;
  const int rank_, size_;
  std::vector<Socket> peers_, signs_;
  std::vector<std::string> farewells_;  // what each has told of its end
  std::vector<std::string> lost_;       // why its machine cannot be reached
  Pulse pulse_;
  std::atomic<bool> interrupted_ = false;
};

// Whether the socket is connected before `end`; errno says why not. It does not block: a blocking call with a time
// limit ends early by any signal, SIGCONT too (signal(7)).
bool connects(const Socket& socket, const Address& address, Clock::time_point end) {
  if (::connect(socket.get(), address.get(), address.size) == 0) return true;
  if (errno != EINPROGRESS) return false;
  pollfd ready{socket.get(), POLLOUT, 0};
  while (::poll(&ready, 1, kNapMilliseconds) <= 0)
    if (Clock::now() > end) return errno = ETIMEDOUT, false;
  socklen_t size = sizeof(errno);
  return ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &errno, &size) == 0 && errno == 0;
}

// Whether all bytes come within kGreetingSeconds.
bool receives(const Socket& guest, std::span<std::byte> bytes) {
  const Clock::time_point end = Clock::now() + std::chrono::seconds(kGreetingSeconds);
  pollfd ready{guest.get(), POLLIN, 0};
  while (!bytes.empty()) {
    if (Clock::now() > end) return false;
    if (::poll(&ready, 1, kNapMilliseconds) <= 0) continue;
    const ssize_t got = ::recv(guest.get(), bytes.data(), bytes.size(), 0);
    if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) return false;
    if (got > 0) bytes = bytes.subspan(static_cast<size_t>(got));
  }
  return true;
}

Socket TcpTransport::connect_to(int peer, const Address& address, uint64_t token, bool signs) const {
  Socket out(::socket(address.bytes.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const Greeting greeting{token, rank_, signs ? 1 : 0};
  if (out.get() < 0 || !connects(out, address, after(timeout_)) ||
      ::send(out.get(), &greeting, sizeof(greeting), MSG_NOSIGNAL) != sizeof(greeting))
    fail_call(fmt::format("connecting to rank {}", peer));
  return out;
}

void TcpTransport::let_in(const Socket& door, uint64_t token) {
  const Clock::time_point end = after(timeout_);
  for (int missing = 2 * (size_ - 1 - rank_); missing > 0;) {
    check<CommError>(Clock::now() < end, "[tcp] rank {} waited {:g} s for rank {} to connect", rank_,
                     timeout_, fmt::join(strangers(), ", "));
    pollfd at_door{door.get(), POLLIN, 0};
    if (::poll(&at_door, 1, kNapMilliseconds) <= 0) continue;
    Socket guest(::accept4(door.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    Greeting greeting{};
    if (guest.get() < 0 || !receives(guest, std::as_writable_bytes(std::span(&greeting, 1)))) continue;
    if (greeting.token != token || greeting.rank <= rank_ || greeting.rank >= size_) continue;  // a stranger
    Socket& place = (greeting.signs == 1 ? signs_ : peers_)[greeting.rank];
    check<CommError>(place.get() < 0, "[tcp] two processes have joined as rank {}", greeting.rank);
    place = std::move(guest);
    --missing;
  }
}

// The higher ranks that have not connected.
std::vector<int> TcpTransport::strangers() const {
  std::vector<int> out;
  for (int peer = rank_ + 1; peer < size_; ++peer)
    if (peers_[peer].get() < 0 || signs_[peer].get() < 0) out.push_back(peer);
  return out;
}

// Small messages are not delayed, and a machine that is gone is noticed, also by ranks that only wait.
// Of the two limits the user timeout decides (tcp(7)).
void TcpTransport::prepare(const Socket& peer) const {
  peer.set(IPPROTO_TCP, TCP_NODELAY, 1);
  peer.set(IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(std::min(timeout_, kVanishedSeconds) * 1000));
  peer.set(SOL_SOCKET, SO_KEEPALIVE, 1);
  peer.set(IPPROTO_TCP, TCP_KEEPIDLE, 30);
  peer.set(IPPROTO_TCP, TCP_KEEPINTVL, 10);
  peer.set(IPPROTO_TCP, TCP_KEEPCNT, 3);
}

void TcpTransport::wait_for_all() {
  const std::byte here{};
  std::vector<std::byte> there(size_);
  std::vector<std::span<std::byte>> receive;
  for (std::byte& one : there) receive.emplace_back(&one, 1);
  try {
    exchange(std::vector<std::span<const std::byte>>(size_, {&here, 1}), receive, Wait::kWatched);
  } catch (const MissingRanks& missing) {
    fail<CommError>("[tcp] rank {} waited {:g} s for rank {} to join", rank_, missing.seconds,
                    fmt::join(missing.ranks, ", "));
  }
}

// Sends and receives what can be moved now; true when anything was.
bool TcpTransport::move(Progress& p) {
  const int peer = peers_[p.peer].get();
  const auto stays = [&](bool there) {
    if (!there) fail<CommError>("[tcp] rank {} waits for rank {}, {}", rank_, p.peer, why_left(p.peer));
  };
  const auto moved = [&](ssize_t bytes) {
    stays(bytes >= 0 || (errno != ECONNRESET && errno != EPIPE));  // left with bytes of ours unread
    check<CommError>(bytes >= 0 || errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR,
                     "[tcp] rank {} lost rank {}: {}", rank_, p.peer, errno_text());
    return bytes > 0 ? static_cast<size_t>(bytes) : 0;
  };
  size_t sent = 0, received = 0;
  if (!p.send.empty()) {
    sent = moved(::send(peer, p.send.data(), std::min(p.send.size(), kMaxPiece), MSG_NOSIGNAL));
    p.send = p.send.subspan(sent);
  }
  if (!p.receive.empty()) {
    const ssize_t bytes = ::recv(peer, p.receive.data(), std::min(p.receive.size(), kMaxPiece), 0);
    stays(bytes != 0);
    received = moved(bytes);
    p.receive = p.receive.subspan(received);
  }
  return sent + received > 0;
}

// Takes what a peer has said; false at the end of it.
bool TcpTransport::listen_to(int peer) {
  if (signs_[peer].get() < 0) return false;
  std::array<char, 4096> said;
  for (;;) {
    const ssize_t bytes = ::recv(signs_[peer].get(), said.data(), said.size(), 0);
    if (bytes < 0 && (errno == ETIMEDOUT || errno == EHOSTUNREACH || errno == ENETUNREACH))
      lost_[peer] = errno_text();
    if (bytes <= 0) return bytes < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
    pulse_.heard(peer);
    std::ranges::copy_if(said.begin(), said.begin() + bytes, std::back_inserter(farewells_[peer]),
                         [](char c) { return c != 0; });
  }
}

std::string TcpTransport::why_left(int peer) {
  const Clock::time_point end = Clock::now() + std::chrono::milliseconds(kFarewellMilliseconds);
  pollfd ready{signs_[peer].get(), POLLIN, 0};
  while (listen_to(peer) && Clock::now() < end) ::poll(&ready, 1, kNapMilliseconds);
  return farewells_[peer].empty() ? "which has left the group"
                                  : fmt::format("which has left the group ({})", farewells_[peer]);
}

void TcpTransport::nap(const std::vector<Progress>& open) const {
  std::vector<pollfd> ready;
  for (const Progress& p : open)
    ready.push_back({peers_[p.peer].get(),
                     static_cast<short>((p.send.empty() ? 0 : POLLOUT) | (p.receive.empty() ? 0 : POLLIN)),
                     0});
  ::poll(ready.data(), ready.size(), kNapMilliseconds);
}

}  // namespace

std::unique_ptr<Comm> make_tcp_comm(const TcpMeeting& at, const CommOptions& options) {
  check<CommError>(at.rank >= 0 && at.rank < at.size, "[tcp] the rank must be in [0, {}), got {}", at.size,
                   at.rank);
  check<CommError>(at.port > 0 && at.port < 65536, "[tcp] the port must be in [1, 65535], got {}", at.port);
  return std::make_unique<QueuedComm>([at, options] { return std::make_unique<TcpTransport>(at, options); });
}

}  // namespace retort::comm
