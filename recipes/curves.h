// Curves of several series as one SVG, for a page that needs no other file or for a file of its own: axes with round
// numbers, a legend, thinned to as many points as can be seen. Values that are not finite leave a gap. Pure; any thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace retort::recipes {

struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x does not fall
};

// Empty where no curve has two finite points.
std::string curves_svg(const std::string& title, const std::string& x_name, const std::vector<Curve>& curves);

// curves_svg() as a file, with the looks that a page would give it.
std::string svg_file(const std::string& svg);
extern const char* const kSvgStyle;  // of a page

// Text for HTML and SVG: & < > and quotes as entities, controls and what is no UTF-8 as U+FFFD.
std::string escaped(std::string_view text);

// Round numbers from about `low` to about `high`, five or so.
std::vector<double> ticks(double low, double high);

}  // namespace retort::recipes
