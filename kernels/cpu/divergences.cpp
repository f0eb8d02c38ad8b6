// Divergences between two rows of logits that lie in cache: the maxima, the exponentials with their sums,
// then what each place adds to the value and to sum_i q_i g_i, g = dD/dq, then the gradient q (g - sum_i q_i
// g_i).
#include "kernels/cpu/simd.h"

namespace retort::kernels::cpu::RETORT_ISA {

namespace {

constexpr float kLeast = 1.17549435e-38f;  // the least normal number: what has less counts as nothing
constexpr float kLogFloor = -87.0f;        // log p where p is too small to be told from 0

// p, q and, where the term wants them, their logarithms.
struct Place {
  Vec p, q, log_p, log_q;
};

// log(a / m), finite for every a <= m.
Vec log_ratio(Vec a, Vec m) { return log(max(a / max(m, splat(kLeast)), splat(kLeast))); }

struct Jsd {
  static constexpr bool kLogs = false;
  float beta;
  void operator()(const Place& x, Vec& value, Vec& pull) const {
    const Vec m = x.p * beta + x.q * (1.0f - beta);
    const Vec of_q = x.q * log_ratio(x.q, m) * (1.0f - beta);
    value += x.p * log_ratio(x.p, m) * beta + of_q;
    pull = of_q;
  }
};

struct SkewForwardKl {
  static constexpr bool kLogs = false;
  float alpha;
  void operator()(const Place& x, Vec& value, Vec& pull) const {
    const Vec m = x.p * alpha + x.q * (1.0f - alpha);
    value += x.p * log_ratio(x.p, m);
    pull = x.p / max(m, splat(kLeast)) * x.q * (alpha - 1.0f);
  }
};

struct SkewReverseKl {
  static constexpr bool kLogs = false;
  float alpha;
  void operator()(const Place& x, Vec& value, Vec& pull) const {
    const Vec m = x.p * (1.0f - alpha) + x.q * alpha;
    const Vec of_q = x.q * log_ratio(x.q, m);
    value += of_q;
    pull = of_q - x.q / max(m, splat(kLeast)) * x.q * alpha;
  }
};

struct ReverseKl {
  static constexpr bool kLogs = true;
  void operator()(const Place& x, Vec& value, Vec& pull) const {
    pull = x.q > 0.0f ? x.q * (x.log_q - max(x.log_p, splat(kLogFloor))) : splat(0.0f);
    value += pull;
  }
};

struct AdaptiveKl {
  static constexpr bool kLogs = true;
  float forward;  // weight of forward KL, a constant of the row
  void operator()(const Place& x, Vec& value, Vec& pull) const {
    const Vec zero = splat(0.0f);
    const Vec backward = x.q > 0.0f ? x.q * (x.log_q - max(x.log_p, splat(kLogFloor))) : zero;
    const Vec covering = x.p > 0.0f ? x.p * (x.log_p - x.log_q) : zero;
    value += covering * forward + backward * (1.0f - forward);
    pull = backward * (1.0f - forward) - x.p * forward;
  }
};

struct TotalVariation {
  static constexpr bool kLogs = false;
  void operator()(const Place& x, Vec& value, Vec& pull) const {
    const Vec d = x.q - x.p, zero = splat(0.0f);
    value += max(d, -d) * 0.5f;
    pull = d > 0.0f ? x.q * 0.5f : (d < 0.0f ? x.q * -0.5f : zero);
  }
};

// One row's exponentials below its maximum, in `e`, and what turns them into probabilities.
struct Softmax {
  const float* z;
  float* e;
  float top, cold;
  float share = 0.0f, log_total = 0.0f;

  Softmax(const float* z, float* e, float cold, int64_t n) : z(z), e(e), top(row_max(z, n)), cold(cold) {
    Vec total[4] = {};
    sweep(n, [&](int64_t i, int k, auto part) {
      const Vec x = exp(below_top(i, part));
      total[k] += x;
      part.put(e + i, x);
    });
    const float all = sum(total);
    share = 1.0f / all;
    log_total = static_cast<float>(__builtin_log(static_cast<double>(all)));
  }
  template <class P>
  Vec below_top(int64_t i, P part) const {
    return (part.get(z + i, -kInfinity) - top) * cold;
  }
  template <class P>
  Vec probability(int64_t i, P part) const {
    return part.get(e + i) * share;
  }
};

// The share of forward KL: how much of |p - q| lies on the smallest set of ids that holds half of p. The
// least exponential of that set is found by bisection over the bits of a float, whose order is that of the
// numbers.
float forward_share(const Softmax& student, const Softmax& teacher, int64_t n) {
  const auto mass_from = [&](float least) {
    Vec mass[4] = {};
    sweep(n, [&](int64_t i, int k, auto part) {
      const Vec e = part.get(teacher.e + i);
      mass[k] += e >= least ? e : splat(0.0f);
    });
    return sum(mass);
  };
  const float half = 0.5f / teacher.share;
  uint32_t low = __builtin_bit_cast(uint32_t, half / static_cast<float>(n));  // all below cannot hold half
  uint32_t high = __builtin_bit_cast(uint32_t, 1.0f) + 1;
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    (mass_from(__builtin_bit_cast(float, middle)) >= half ? low : high) = middle;
  }
  const float least = __builtin_bit_cast(float, low);
  Vec head[4] = {}, all[4] = {};
  sweep(n, [&](int64_t i, int k, auto part) {
    const Vec d = student.probability(i, part) - teacher.probability(i, part), gap = max(d, -d);
    all[k] += gap;
    head[k] += part.get(teacher.e + i) >= least ? gap : splat(0.0f);
  });
  const float total = sum(all);
  return total > 0.0f ? sum(head) / total : 0.5f;
}

template <class Term>
void one_row(const Term& term, const Softmax& student, const Softmax& teacher, double* loss, float* gradient,
             const DivergenceRows& rows) {
  Vec value[4] = {}, pulls[4] = {};
  sweep(rows.vocabulary, [&](int64_t i, int k, auto part) {
    Place x{teacher.probability(i, part), student.probability(i, part), {}, {}};
    if constexpr (Term::kLogs) {
      x.log_p = teacher.below_top(i, part) - teacher.log_total;
      x.log_q = student.below_top(i, part) - student.log_total;
    }
    Vec pull;
    term(x, value[k], pull);
    pulls[k] += pull;
    if (gradient == nullptr) return;
    part.put(student.e + i, x.q);
    part.put(teacher.e + i, pull);
  });
  // The clamps above would hide a logit that is no number; the sums of exponentials show it.
  const double broken =
      0.0 * (static_cast<double>(student.log_total) + static_cast<double>(teacher.log_total));
  *loss = static_cast<double>(rows.temperature) * rows.temperature * static_cast<double>(sum(value)) + broken;
  if (gradient == nullptr) return;
  const float all = sum(pulls), factor = rows.scale * rows.temperature;
  sweep(rows.vocabulary, [&](int64_t i, int, auto part) {
    const Vec change = part.get(teacher.e + i) - part.get(student.e + i) * all;
    part.put(gradient + i, part.get(gradient + i) + change * factor);
  });
}

void divergence(const DivergenceRows& rows, const float* student, const float* teacher, double* loss,
                float* gradient, float* scratch) {
  const float cold = 1.0f / rows.temperature;
  const int64_t n = rows.vocabulary;
  for (int64_t row = 0; row < rows.rows; ++row, student += rows.student_stride, teacher += n) {
    const Softmax of_student(student, scratch, cold, n), of_teacher(teacher, scratch + n, cold, n);
    const auto run = [&](const auto& term) {
      one_row(term, of_student, of_teacher, loss + row, gradient, rows);
    };
    switch (rows.kind) {
      case Divergence::kReverseKl:
        run(ReverseKl{});
        break;
      case Divergence::kJsd:
        run(Jsd{rows.mix});
        break;
      case Divergence::kSkewForwardKl:
        run(SkewForwardKl{rows.mix});
        break;
      case Divergence::kSkewReverseKl:
        run(SkewReverseKl{rows.mix});
        break;
      case Divergence::kAdaptiveKl:
        run(AdaptiveKl{forward_share(of_student, of_teacher, n)});
        break;
      case Divergence::kTotalVariation:
        run(TotalVariation{});
        break;
    }
    if (gradient != nullptr) gradient += rows.student_stride;
  }
}

// mean_j D_j^2 with D the difference of the centred rows; ids that the teacher rules out (-infinity) are left
// out of both means.
void logit_mse(const DivergenceRows& rows, const float* student, const float* teacher, double* loss,
               float* gradient, float* /*scratch*/) {
  for (int64_t row = 0; row < rows.rows; ++row, student += rows.student_stride, teacher += rows.vocabulary) {
    Vec count[4] = {}, total[4] = {}, square[4] = {};
    const auto difference = [&](int64_t i, auto part, Vec& inside) {
      const Vec t = part.get(teacher + i, -kInfinity);
      inside = t != -kInfinity ? splat(1.0f) : splat(0.0f);
      return t != -kInfinity ? part.get(student + i) - t : splat(0.0f);
    };
    sweep(rows.vocabulary, [&](int64_t i, int k, auto part) {
      Vec inside;
      total[k] += difference(i, part, inside);
      count[k] += inside;
    });
    const float share = 1.0f / sum(count), mean = sum(total) * share;
    sweep(rows.vocabulary, [&](int64_t i, int k, auto part) {
      Vec inside;
      const Vec d = (difference(i, part, inside) - mean) * inside;
      square[k] += d * d;
      if (gradient != nullptr)
        part.put(gradient + i, part.get(gradient + i) + d * (2.0f * share * rows.scale));
    });
    loss[row] = static_cast<double>(sum(square)) * share;
    if (gradient != nullptr) gradient += rows.student_stride;
  }
}

}  // namespace

void add_divergences(Table& table) {
  table.divergence = divergence;
  table.logit_mse = logit_mse;
}

}  // namespace retort::kernels::cpu::RETORT_ISA
