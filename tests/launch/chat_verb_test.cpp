#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <fstream>
#include <iostream>

#include "core/file.h"
#include "formats/json.h"
#include "launch/command_line.h"
#include "launch/verbs.h"
#include "tests/artifacts/tiny.h"
#include "tests/testing.h"

namespace retort::launch {
namespace {

using ::testing::HasSubstr;
using Words = std::vector<std::string>;

// A model of 64 tokens' context that writes noise. Lines come as from a pipe.
class ChatVerb : public ::testing::Test {
 protected:
  ChatVerb() {
    const int nothing = ::open("/dev/null", O_RDONLY);
    ::dup2(nothing, STDIN_FILENO);
    ::close(nothing);
    artifacts::save_tiny(*artifacts::tiny_model(4), directory_ / "model", 1, std::nullopt);
    std::ofstream(directory_ / "form.jinja")
        << "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}a:";
  }
  std::string at(const std::string& name) const { return (directory_ / name).string(); }

  struct Said {
    std::string out, aside, error;
  };
  Said chat(const std::string& lines, Words more = {}) const {
    Words words = {"chat", at("model"), "--template", at("form.jinja"), "--tokens", "4"};
    words.insert(words.end(), more.begin(), more.end());
    return run(words, lines);
  }
  static Said run(const Words& words, const std::string& lines) {
    std::istringstream in(lines);
    std::streambuf* before = std::cin.rdbuf(in.rdbuf());
    std::cin.clear();
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    Said said;
    try {
      EXPECT_EQ(parse_command_line(words)(), ExitCode::kDone);
    } catch (const Error& error) {
      said.error = error.what();
    }
    said.out = ::testing::internal::GetCapturedStdout();
    said.aside = ::testing::internal::GetCapturedStderr();
    std::cin.rdbuf(before);
    return said;
  }

  testing::TemporaryDirectory directory_;
};

}  // namespace

TEST_F(ChatVerb, AnswersLinesAndSavesWhatRenderReads) {
  const Said said = chat("Hi\n\nGo on\n/save " + at("talk.json") + "\n", {"--system", "S"});
  EXPECT_EQ(said.error, "");
  const formats::Json talk = formats::read_json(at("talk.json"));
  ASSERT_EQ(talk.size(), 5u);  // the empty line is no turn
  EXPECT_EQ(talk[0], (formats::Json{{"role", "system"}, {"content", "S"}}));
  EXPECT_EQ(talk[3]["content"], "Go on");
  EXPECT_EQ(said.out,
            talk[2]["content"].get<std::string>() + "\n" + talk[4]["content"].get<std::string>() + "\n");
  EXPECT_THAT(said.aside, HasSubstr("cut off after 4 tokens (--tokens)\n"));
  EXPECT_EQ(said.aside.find('>'), std::string::npos);  // nothing to type at
  EXPECT_THAT(run({"data", "render", at("form.jinja"), "--messages", at("talk.json")}, "").out,
              HasSubstr("s:S;u:Hi;a:"));
}

TEST_F(ChatVerb, AMistakeEndsAPipe) {
  EXPECT_THAT(chat("/rest\nHi\n").error, HasSubstr("unknown command /rest"));
  EXPECT_THAT(chat("Hi\n", {"--top-p", "2"}).error, HasSubstr("--top-p must be"));
}

}  // namespace retort::launch
