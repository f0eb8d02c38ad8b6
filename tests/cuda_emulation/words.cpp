#include <utility>

#include "tests/cuda_emulation/crew.h"

namespace retort::emulation {

std::string place_of(const Where& where) {
  std::string file = where.file;
  for (const char* room : {"/kernels/", "/tests/"})
    if (const size_t at = file.find(room); at != std::string::npos) file = file.substr(at + 1);
  return file + ":" + std::to_string(where.line) + " in " + where.function;
}

namespace {

std::string lanes_of(uint32_t mask) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out = "0x";
  for (int shift = 28; shift >= 0; shift -= 4) out += kDigits[mask >> shift & 15];
  return out;
}

std::string state_of(const Thread& t) {
  switch (t.state) {
    case State::kAtBarrier:
      return "wait for their block at " + place_of(t.where);
    case State::kInWarp:
      return "wait for the lanes " + lanes_of(t.mask) + " of their warp at " + place_of(t.where);
    case State::kLeft:
      return "have left the kernel";
    default:
      return "run";
  }
}

}  // namespace

std::string states_of(const Crew& c) {
  std::vector<std::pair<std::string, std::string>> groups;
  for (int i = 0; i < c.count;) {
    const std::string state = state_of(*c.threads[static_cast<size_t>(i)]);
    int end = i + 1;
    while (end < c.count && state_of(*c.threads[static_cast<size_t>(end)]) == state) ++end;
    std::string run = std::to_string(i) + (end > i + 1 ? "-" + std::to_string(end - 1) : "");
    auto at = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == state; });
    if (at == groups.end())
      groups.emplace_back(state, run);
    else if (at->second.size() < 60)
      at->second += ", " + run;
    i = end;
  }
  std::string out;
  for (const auto& [state, who] : groups)
    out += (out.empty() ? "threads " : "; threads ") + who + " " + state;
  return out;
}

std::string name_of(const Index& i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

}  // namespace retort::emulation
