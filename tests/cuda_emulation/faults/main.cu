// emulation_faults_FLAVOUR NAME: runs one planted fault under every order. What the emulation finds is printed
// and ends the program with 3, a wrong result with 4; a sanitizer ends it as it likes.
#include <cstdio>
#include <exception>
#include <string>

#include "tests/cuda_emulation/faults/fault.h"
#include "tests/cuda_emulation/schedule.h"

namespace retort::emulation::faults {

// Each in the file of its name.
void across_blocks();
void atomics_in_turn();
void divergent_barrier();
void dynamic_too_short();
void exited_thread();
void lanes_race();
void loop_too_long();
void mask_without_lane();
void missing_barrier();
void missing_tail();
void missing_warp_barrier();
void no_fault();
void reused_array();
void short_array();
void shuffle_from_outside();
void shuffle_in_branch();
void too_much_shared();
void unasked_shared();
void unaligned_run();
void unaligned_vector();
void unset_shared();
void warps_race();

struct Fault {
  const char* name;
  void (*run)();
};
constexpr Fault kFaults[] = {
    {"across_blocks", across_blocks},
    {"atomics_in_turn", atomics_in_turn},
    {"divergent_barrier", divergent_barrier},
    {"dynamic_too_short", dynamic_too_short},
    {"exited_thread", exited_thread},
    {"lanes_race", lanes_race},
    {"loop_too_long", loop_too_long},
    {"mask_without_lane", mask_without_lane},
    {"missing_barrier", missing_barrier},
    {"missing_tail", missing_tail},
    {"missing_warp_barrier", missing_warp_barrier},
    {"no_fault", no_fault},
    {"reused_array", reused_array},
    {"short_array", short_array},
    {"shuffle_from_outside", shuffle_from_outside},
    {"shuffle_in_branch", shuffle_in_branch},
    {"too_much_shared", too_much_shared},
    {"unasked_shared", unasked_shared},
    {"unaligned_run", unaligned_run},
    {"unaligned_vector", unaligned_vector},
    {"unset_shared", unset_shared},
    {"warps_race", warps_race},
};

int run(const std::string& name) {
  for (const Fault& fault : kFaults) {
    if (name != fault.name) continue;
    for (const Schedule& schedule : schedules()) {
      const Scheduled in_turn(schedule);
      try {
        fault.run();
      } catch (const EmulationError& error) {
        std::printf("%s\n", error.what());
        return 3;
      } catch (const WrongResult& error) {
        std::printf("%s (%s)\n", error.what(), schedule.name().c_str());
        return 4;
      }
    }
    return 0;
  }
  std::printf("no fault is called %s\n", name.c_str());
  return 2;
}

}  // namespace retort::emulation::faults

int main(int count, char** arguments) {
  return retort::emulation::faults::run(count == 2 ? arguments[1] : "");
}
