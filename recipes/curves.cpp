#include "recipes/curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "data/tokenizers/utf8.h"

namespace retort::recipes {

const char* const kSvgStyle = R"(
svg { width: 100%; font: 11px system-ui, sans-serif; fill: currentColor; }
svg .title { font-weight: 600; font-size: 13px; }
svg .grid { stroke: currentColor; stroke-opacity: .15; }
svg .x { text-anchor: middle; } svg .y, svg .legend { text-anchor: end; }
)";

namespace {

constexpr double kWidth = 640, kHeight = 280, kLeft = 64, kRight = 28, kTop = 30, kBottom = 40;
constexpr size_t kMostPoints = 400;
// Okabe and Ito 2008: told apart by all eyes.
constexpr const char* kColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                    "#e69f00", "#56b4e9", "#000000"};

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  void add(double value) { low = std::min(low, value), high = std::max(high, value); }
  bool empty() const { return low > high; }
};

// Means of equal runs of points.
std::vector<std::pair<double, double>> thinned(const std::vector<std::pair<double, double>>& points) {
  if (points.size() <= kMostPoints) return points;
  std::vector<std::pair<double, double>> out;
  for (size_t i = 0; i < kMostPoints; ++i) {
    const size_t begin = i * points.size() / kMostPoints, end = (i + 1) * points.size() / kMostPoints;
    double sum = 0;
    for (size_t j = begin; j < end; ++j) sum += points[j].second;
    out.emplace_back(points[end - 1].first, sum / static_cast<double>(end - begin));
  }
  return out;
}

class Frame {
 public:
  explicit Frame(const std::vector<Curve>& curves) {
    for (const Curve& curve : curves)
      for (const auto& [x, y] : curve.points)
        if (std::isfinite(x) && std::isfinite(y)) x_.add(x), y_.add(y);
    if (empty()) return;
    x_ticks_ = ticks(x_.low, x_.high), y_ticks_ = ticks(y_.low, y_.high);
    for (const double x : x_ticks_) x_.add(x);
    for (const double y : y_ticks_) y_.add(y);
  }
  bool empty() const { return !(x_.high > x_.low); }  // nothing that changes
  double x(double value) const {
    return kLeft + (value - x_.low) / (x_.high - x_.low) * (kWidth - kLeft - kRight);
  }
  double y(double value) const {
    return kHeight - kBottom - (value - y_.low) / (y_.high - y_.low) * (kHeight - kTop - kBottom);
  }

  std::string axes(const std::string& title, const std::string& x_name) const {
    std::string out = fmt::format("<text class=\"title\" x=\"{}\" y=\"18\">{}</text>", kLeft, escaped(title));
    for (const double value : y_ticks_)
      out += fmt::format(
          "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/><text class=\"y\" x=\"{}\" "
          "y=\"{:.1f}\">{:.4g}</text>",
          kLeft, kWidth - kRight, y(value), y(value), kLeft - 6, y(value) + 4, value);
    for (const double value : x_ticks_)
      out += fmt::format("<text class=\"x\" x=\"{:.1f}\" y=\"{}\">{:.6g}</text>", x(value),
                         kHeight - kBottom + 16, value);
    return out + fmt::format("<text class=\"x\" x=\"{}\" y=\"{}\">{}</text>", (kLeft + kWidth - kRight) / 2,
                             kHeight - 6, escaped(x_name));
  }

  std::string line(const Curve& curve, const char* colour) const {
    std::string out, points;
    const auto draw = [&] {
      if (!points.empty())
        out += fmt::format("<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\" points=\"{}\"/>",
                           colour, points);
      points.clear();
    };
    for (const auto& [px, py] : thinned(curve.points)) {
      if (!std::isfinite(px) || !std::isfinite(py)) {
        draw();
        continue;
      }
      points += fmt::format("{:.1f},{:.1f} ", x(px), y(py));
    }
    draw();
    // A single point is no line.
    if (curve.points.size() == 1 && !out.empty())
      out = fmt::format("<circle r=\"3\" fill=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\"/>", colour,
                        x(curve.points[0].first), y(curve.points[0].second));
    return out;
  }

 private:
  Range x_, y_;
  std::vector<double> x_ticks_, y_ticks_;
};

}  // namespace

std::string escaped(std::string_view text) {
  std::string valid(text), out;
  data::check_utf8(valid, "replace", "");
  for (const char c : valid) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        if (static_cast<unsigned char>(c) < 32 && c != '\n' && c != '\t')
          out += data::kReplacement;
        else
          out += c;
    }
  }
  return out;
}

std::vector<double> ticks(double low, double high) {
  if (!(high > low)) {
    const double margin = low == 0 ? 1 : std::abs(low) / 2;
    low -= margin, high += margin;
  }
  const double raw = (high - low) / 5, power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= raw * 0.99) step = factor * power;
  std::vector<double> out;
  const auto first = static_cast<int64_t>(std::floor(low / step)),
             last = static_cast<int64_t>(std::ceil(high / step));
  for (int64_t i = first; i <= last; ++i) out.push_back(static_cast<double>(i) * step);
  return out;
}

std::string curves_svg(const std::string& title, const std::string& x_name,
                       const std::vector<Curve>& curves) {
  const Frame frame(curves);
  if (frame.empty()) return "";
  std::string out = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">", kWidth, kHeight,
                                escaped(title));
  out += frame.axes(title, x_name);
  double legend = kTop + 12;
  for (size_t i = 0; i < curves.size(); ++i) {
    const char* colour = kColours[i % std::size(kColours)];
    const std::string line = frame.line(curves[i], colour);
    if (line.empty()) continue;
    out += line;
    out += fmt::format("<text class=\"legend\" fill=\"{}\" x=\"{}\" y=\"{}\">{}</text>", colour,
                       kWidth - kRight - 4, legend, escaped(curves[i].name));
    legend += 14;
  }
  return out + "</svg>\n";
}

// On white, since a viewer's own background may be dark.
std::string svg_file(const std::string& svg) {
  constexpr std::string_view kOpen = "<svg ";
  RETORT_ASSERT(svg.starts_with(kOpen));
  const size_t body = svg.find('>') + 1;
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" {}<style>svg {{ color: black }}{}"
      "</style><rect width=\"100%\" height=\"100%\" fill=\"white\"/>{}",
      kWidth, kHeight, svg.substr(kOpen.size(), body - kOpen.size()), kSvgStyle, svg.substr(body));
}

}  // namespace retort::recipes
