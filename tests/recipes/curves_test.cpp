#include "recipes/curves.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

namespace retort::recipes {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

}  // namespace

TEST(Curves, TicksAreRoundAndHoldTheRange) {
  EXPECT_THAT(ticks(0, 100), ElementsAre(0, 20, 40, 60, 80, 100));
  EXPECT_THAT(ticks(0.9, 2.1), ElementsAre(0.5, 1.0, 1.5, 2.0, 2.5));
  for (const auto& [low, high] : std::vector<std::pair<double, double>>{
           {3, 3}, {0, 0}, {-1e-9, 1e-9}, {1e6, 1e6 + 1}, {-7, 1234}, {1e-30, 2e-30}}) {
    const auto values = ticks(low, high);
    EXPECT_LE(values.front(), low);
    EXPECT_GE(values.back(), high);
    EXPECT_GE(values.size(), 2u);
    EXPECT_LE(values.size(), 9u);
  }
}

TEST(Curves, AreLinesWithTheirNames) {
  const std::string svg =
      curves_svg("loss", "step", {{"a<b>", {{1, 3}, {2, 2}, {3, 1}}}, {"two", {{1, 1}, {3, 2}}}});
  EXPECT_EQ(count(svg, "<polyline"), 2u);
  EXPECT_THAT(svg, HasSubstr("a&lt;b&gt;"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

TEST(Curves, ValuesThatAreNotFiniteLeaveAGap) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string svg = curves_svg("loss", "step", {{"a", {{1, 3}, {2, 2}, {3, nan}, {4, 1}, {5, 1}}}});
  EXPECT_EQ(count(svg, "<polyline"), 2u);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_EQ(curves_svg("loss", "step", {{"a", {{1, nan}}}}), "");
  EXPECT_EQ(curves_svg("loss", "step", {{"a", {{1, 2}}}}), "") << "one point shows nothing";
  EXPECT_EQ(count(curves_svg("loss", "step", {{"a", {{1, 2}}}, {"b", {{1, 2}, {3, 1}}}}), "<circle"), 1u);
}

TEST(Curves, AFileIsAnSvgOfItsOwn) {
  const std::string svg = svg_file(curves_svg("loss", "tokens", {{"a", {{1, 3}, {2, 2}}}}));
  EXPECT_THAT(svg, ::testing::StartsWith("<svg xmlns=\"http://www.w3.org/2000/svg\" "));
  EXPECT_THAT(svg, ::testing::EndsWith("</svg>\n"));
  EXPECT_EQ(count(svg, "<svg"), 1u);
  EXPECT_THAT(svg, HasSubstr("<style>"));
}

TEST(Curves, LongSeriesAreThinned) {
  Curve curve{"a", {}};
  for (int i = 0; i < 100000; ++i) curve.points.emplace_back(i, std::sin(i * 1e-3));
  EXPECT_LT(curves_svg("loss", "step", {curve}).size(), 10000u);
}

TEST(Curves, TextIsEscaped) {
  EXPECT_EQ(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
  EXPECT_EQ(escaped("a\x01\xff"), "a\xef\xbf\xbd\xef\xbf\xbd");
}

}  // namespace retort::recipes
