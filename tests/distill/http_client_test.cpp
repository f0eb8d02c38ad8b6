#include "distill/http_client.h"

#include <gmock/gmock.h>

#include <map>

#include "core/error.h"
#include "tests/distill/fake_server.h"

namespace retort::distill {
namespace {

using ::testing::AllOf;
using testing::FakeAnswer;
using testing::FakeRequest;
using testing::FakeServer;
using ::testing::HasSubstr;
using ::testing::Not;

class HttpClientTest : public ::testing::Test {
 protected:
  HttpClient client(const FakeServer& server, int64_t lanes = 1) {
    return HttpClient({.url = server.url(),
                       .lanes = lanes,
                       .timeout = 5,
                       .retries = 3,
                       .back_off = 0.01,
                       .key = "secret-key"},
                      log_, stop_);
  }
  // Asks for /0 .. /count-1 and gives back the answers by number.
  std::map<int64_t, std::string> ask(HttpClient& client, int64_t count, size_t limit = 1 << 20) {
    std::map<int64_t, std::string> answers;
    std::map<int64_t, int64_t> asked;  // of a lane
    int64_t next = 0;
    finished_ = client.run(
        [&](int64_t lane) -> std::optional<HttpRequest> {
          if (next == count) return std::nullopt;
          asked[lane] = next++;
          return HttpRequest{
              .path = fmt::format("/{}", asked[lane]), .body = "{}", .about = "a test", .limit = limit};
        },
        [&](int64_t lane, std::string_view answer) -> std::string {
          if (answer == "garbage") return "garbage";
          EXPECT_TRUE(answers.emplace(asked[lane], answer).second);
          return "";
        });
    return answers;
  }
  template <class E>
  std::string error_of(HttpClient& client, size_t limit = 1 << 20) {
    try {
      ask(client, 1, limit);
    } catch (const E& error) {
      return error.what();
    }
    return "no error";
  }

  Log log_{stderr, "", true};
  std::atomic<bool> stop_{false};
  bool finished_ = false;
};

// What comes at the request of this number; all others are answered.
FakeAnswer with_faults(const std::map<int64_t, FakeAnswer>& faults, const FakeRequest& request) {
  const auto fault = faults.find(request.number);
  return fault != faults.end() ? fault->second : FakeAnswer{.body = "answer to " + request.path};
}

}  // namespace

TEST_F(HttpClientTest, WhatFailsInPassingIsAskedAgain) {
  const std::map<int64_t, FakeAnswer> faults = {
      {1, {.body = "busy", .status = 503}},
      {3, {.body = "this is cut", .sent = 4}},
      {5, {.body = "slow", .status = 429, .headers = "Retry-After: 0\r\n"}},
      {7, {.body = "", .status = 500, .sent = 0}},
      {9, {.body = "garbage"}},
      {11, {.body = "late", .pause = 30}},
  };
  FakeServer server([&](const FakeRequest& request) { return with_faults(faults, request); });
  HttpClient client({.url = server.url(), .timeout = 3, .retries = 3, .back_off = 0.01}, log_, stop_);
  const auto answers = ask(client, 8);
  EXPECT_TRUE(finished_);
  ASSERT_EQ(answers.size(), 8u);
  for (const auto& [number, answer] : answers) EXPECT_EQ(answer, fmt::format("answer to /{}", number));
  EXPECT_GE(server.requests(), 8 + std::ssize(faults));
}

TEST_F(HttpClientTest, GivesUpAfterSoManyRetries) {
  FakeServer server([](const FakeRequest&) { return FakeAnswer{.body = "no secret-key\n", .status = 500}; });
  HttpClient one = client(server);
  EXPECT_THAT(error_of<IoError>(one), AllOf(HasSubstr("/0: a test: failed 4 times, at last: HTTP 500"),
                                            HasSubstr("no ***\\n"), Not(HasSubstr("secret"))));
  EXPECT_EQ(server.requests(), 4);
}

TEST_F(HttpClientTest, ARefusalIsNotRepeated) {
  for (const int status : {400, 401, 404, 302}) {
    FakeServer server([&](const FakeRequest&) {
      return FakeAnswer{.body = "wrong", .status = status, .headers = "Location: http://127.0.0.1:1/\r\n"};
    });
    HttpClient one = client(server);
    EXPECT_THAT(error_of<ConfigError>(one), HasSubstr(fmt::format("refuses: HTTP {}, \"wrong\"", status)));
    EXPECT_EQ(server.requests(), 1);
  }
}

TEST_F(HttpClientTest, NobodyThereIsAnErrorOfInput) {
  std::string url;
  {
    const FakeServer gone([](const FakeRequest&) { return FakeAnswer{}; });
    url = gone.url();
  }
  HttpClient one({.url = url, .retries = 1, .back_off = 0.01}, log_, stop_);
  EXPECT_THAT(error_of<IoError>(one), HasSubstr("failed 2 times"));
}

TEST_F(HttpClientTest, TheKeyGoesAsABearerToken) {
  std::string head;
  FakeServer server([&](const FakeRequest& request) {
    head = request.head;
    return FakeAnswer{.body = request.method + " " + request.body};
  });
  HttpClient one = client(server);
  EXPECT_EQ(ask(one, 1)[0], "POST {}");
  EXPECT_THAT(head, AllOf(HasSubstr("Authorization: Bearer secret-key"),
                          HasSubstr("Content-Type: application/json")));
  EXPECT_EQ(one.get("/models"), "GET ");
}

TEST_F(HttpClientTest, AnAnswerBeyondItsLimitIsRefused) {
  FakeServer server([](const FakeRequest&) { return FakeAnswer{.body = std::string(1001, 'x')}; });
  HttpClient one = client(server);
  EXPECT_THAT(error_of<DataError>(one, 1000), HasSubstr("at most 1000 bytes"));
  EXPECT_EQ(server.requests(), 1);
  EXPECT_EQ(ask(one, 1, 1001)[0].size(), 1001u);  // and the client works on
}

// Every one of the first three waits until all three are there.
TEST_F(HttpClientTest, KeepsAsManyRequestsUnderWayAsItHasLanes) {
  std::atomic<int> there{0};
  FakeServer server([&](const FakeRequest& request) {
    ++there;
    for (int i = 0; request.number < 3 && i < 5000 && there < 3; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return FakeAnswer{.body = "x"};
  });
  HttpClient three = client(server, 3);
  EXPECT_EQ(ask(three, 30).size(), 30u);
  EXPECT_EQ(server.most_at_once(), 3);
}

TEST_F(HttpClientTest, AStopEndsTheWaitForAnAnswer) {
  FakeServer server([&](const FakeRequest&) {
    stop_ = true;
    return FakeAnswer{.body = "x", .pause = 60};
  });
  HttpClient one({.url = server.url(), .timeout = 1e6, .back_off = 60}, log_, stop_);
  EXPECT_TRUE(ask(one, 3).empty());
  EXPECT_FALSE(finished_);
}

}  // namespace retort::distill
