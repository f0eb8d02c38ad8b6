// The known name nearest to a mistyped one, for "did you mean". Pure functions.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace retort {

// The name with the smallest edit distance to `word`, or "" when none lies within a third of the longer
// length (a farther suggestion misleads more than it helps).
std::string nearest_name(std::string_view word, std::span<const std::string> known);

// `; did you mean "x"?`, or "" without a near name.
std::string did_you_mean(std::string_view word, std::span<const std::string> known);

}  // namespace retort
