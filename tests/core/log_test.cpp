#include "core/log.h"

#include <gtest/gtest.h>

#include <cstdio>

namespace retort {
namespace {

// What is written to a plain file: not a terminal.
std::string captured(const std::function<void(std::FILE*)>& body) {
  std::FILE* file = std::tmpfile();
  body(file);
  std::string text(static_cast<size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  return text;
}

}  // namespace

TEST(Log, PrefixesAndQuietKeepsWarnings) {
  EXPECT_EQ(captured([](std::FILE* f) { Log(f).info("a {}", 1); }), "a 1\n");
  EXPECT_EQ(captured([](std::FILE* f) {
              Log log(f, "rank 3: ", true);
              log.info("unheard");
              log.warn("heard");
            }),
            "rank 3: warning: heard\n");
}

TEST(Progress, PlainLinesWhenNotATerminal) {
  const std::string text = captured([](std::FILE* f) {
    Log log(f);
    Progress progress(log, "train", 4, "tok", 100, 0.0);
    for (int i = 0; i <= 4; ++i) progress.update(i, "loss 1.5");
    progress.finish("done");
  });
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_NE(text.find("train  2/4  50%"), std::string::npos);
  EXPECT_NE(text.find("loss 1.5"), std::string::npos);
  EXPECT_NE(text.find("train  4/4  100%"), std::string::npos);
}

TEST(Progress, PlainLinesAreSparse) {
  const std::string text = captured([](std::FILE* f) {
    Log log(f);
    Progress progress(log, "train", 1000, "", 1, 3600);
    for (int i = 0; i <= 1000; ++i) progress.update(i);
  });
  EXPECT_EQ(text, "");
}

TEST(Format, Units) {
  EXPECT_EQ(format_seconds(48.2), "48s");
  EXPECT_EQ(format_seconds(185), "3m05s");
  EXPECT_EQ(format_seconds(7800), "2h10m");
  EXPECT_EQ(format_rate(950), "950");
  EXPECT_EQ(format_rate(9800), "9.8k");
  EXPECT_EQ(format_rate(1250000), "1.25M");
  EXPECT_EQ(format_bytes(912), "912 B");
  EXPECT_EQ(format_bytes(4404412), "4.4 MB");
}

}  // namespace retort
