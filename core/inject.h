// Faults on purpose, to see what a run makes of them: RETORT_INJECT, faults divided by ';', each of
//
//   rank=1,step=7,point=backward,fault=kill      rank: default every one; step: as logs count them, 7 or 5..7, default every one
//   point   before_step | backward (in the middle of it) | after_backward (all of them) | after_update | save (its start)
//   fault   kill | stop | sigterm | sigusr1 (the signals) | hang | throw | slow:MILLISECONDS
//           nan | inf | bitflip[:BIT], 0 to 31, default 20: of one f32 element of what the point has: a gradient of one
//           micro-batch, a finished gradient of this rank, a weight; before_step and save have none
//   times   how often it strikes in a stage, default 1; 0: always
//
// It is in every build, since what is tested is what runs; a step without faults asks one empty list. One thread a rank.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace retort {

enum class InjectionPoint { kBeforeStep, kBackward, kAfterBackward, kAfterUpdate, kSave };

class Injection {
 public:
  Injection() = default;                         // no faults
  explicit Injection(std::string_view text);     // ConfigError
  static Injection from_environment();           // of RETORT_INJECT; none where it is not set
  bool any() const { return !faults_.empty(); }  // whoever starts a run warns then

  // Whether anything is due; `step` counts from 0.
  bool due(InjectionPoint point, int rank, int64_t step) const;
  // Does all that is due. Value faults change one element of `victim`, which may be undefined where there are none.
  void strike(InjectionPoint point, int rank, int64_t step, const at::Tensor& victim = {});

 private:
  enum class Kind { kSignal, kHang, kThrow, kSlow, kNan, kInf, kFlip };
  struct Fault {
    std::string text;
    int rank = -1;
    int64_t first = 0, last = INT64_MAX;  // steps, from 0
    InjectionPoint point = InjectionPoint::kBeforeStep;
    Kind kind = Kind::kThrow;
    int64_t number = 0;  // the signal, the milliseconds or the bit
    int64_t times = 1, struck = 0;
    bool due(InjectionPoint at, int on_rank, int64_t step) const;
  };
  static Fault parse(std::string_view text);
  static void set_kind(Fault& fault, std::string_view text);
  static void do_fault(const Fault& fault, int64_t step, const at::Tensor& victim);

  std::vector<Fault> faults_;
};

}  // namespace retort
