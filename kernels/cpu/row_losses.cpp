// Softmax losses on rows of logits that lie in cache: the maximum, the exponentials with their sum, the
// gradient. Logarithms and the loss are f64, once a row.
#include "kernels/cpu/simd.h"

namespace retort::kernels::cpu::RETORT_ISA {

namespace {

// Sum of exp(z - top).
template <class T>
float row_exponentials(const T* z, float top, int64_t n) {
  Vec total[4] = {};
  sweep(n, [&](int64_t i, int k, auto part) { total[k] += exp(part.get(z + i, -kInfinity) - top); });
  return sum(total);
}

// The same, leaving the exponentials in z's place.
float row_exponentials_in_place(float* z, float top, int64_t n) {
  Vec total[4] = {};
  sweep(n, [&](int64_t i, int k, auto part) {
    const Vec e = exp(part.get(z + i, -kInfinity) - top);
    total[k] += e;
    part.put(z + i, e);
  });
  return sum(total);
}

double loss_of(float total, float top, float at_label) {
  return __builtin_log(static_cast<double>(total)) - (static_cast<double>(at_label) - top);
}

void cross_entropy(float* z, const int64_t* labels, double* loss, int64_t rows, int64_t vocabulary,
                   bool gradient) {
  for (int64_t row = 0; row < rows; ++row, z += vocabulary) {
    const float top = row_max(z, vocabulary), at_label = z[labels[row]];
    const float total =
        gradient ? row_exponentials_in_place(z, top, vocabulary) : row_exponentials(z, top, vocabulary);
    loss[row] = loss_of(total, top, at_label);
    if (!gradient) continue;
    const float inverse = 1.0f / total;
    sweep(vocabulary, [&](int64_t i, int, auto part) { part.put(z + i, part.get(z + i) * inverse); });
    z[labels[row]] -= 1.0f;
  }
}

// bf16 has no room for the exponentials: they are made twice, and each gradient is rounded once.
void cross_entropy(Bf16* z, const int64_t* labels, double* loss, int64_t rows, int64_t vocabulary,
                   bool gradient) {
  for (int64_t row = 0; row < rows; ++row, z += vocabulary) {
    const float top = row_max(z, vocabulary), at_label = to_float(z[labels[row]]);
    const float total = row_exponentials(z, top, vocabulary);
    loss[row] = loss_of(total, top, at_label);
    if (!gradient) continue;
    const float inverse = 1.0f / total;
    sweep(vocabulary,
          [&](int64_t i, int, auto part) { part.put(z + i, exp(part.get(z + i) - top) * inverse); });
    Part{1}.put(z + labels[row], exp(splat(at_label - top)) * inverse - 1.0f);
  }
}

void cross_entropy_add(const float* z, const int64_t* labels, double* loss, float* gradient, float scale,
                       int64_t rows, int64_t vocabulary) {
  for (int64_t row = 0; row < rows; ++row, z += vocabulary) {
    const float top = row_max(z, vocabulary);
    const float total = row_exponentials(z, top, vocabulary);
    loss[row] = loss_of(total, top, z[labels[row]]);
    if (gradient == nullptr) continue;
    const float factor = scale / total;
    sweep(vocabulary, [&](int64_t i, int, auto part) {
      part.put(gradient + i, part.get(gradient + i) + exp(part.get(z + i) - top) * factor);
    });
    gradient[labels[row]] -= scale;
    gradient += vocabulary;
  }
}

// KL(p || q) = sum p (a - b) - log sum e^a + log sum e^b, with a and b the tempered logits below their
// maximum. Equal rows give exactly zero.
void forward_kl(const DivergenceRows& rows, const float* student, const float* teacher, double* loss,
                float* gradient, float* scratch) {
  const int64_t vocabulary = rows.vocabulary;
  const float cold = 1.0f / rows.temperature, scale = rows.scale * rows.temperature;
  const double square = static_cast<double>(rows.temperature) * rows.temperature;
  float* const of_student = scratch;
  float* const of_teacher = scratch + vocabulary;
  for (int64_t row = 0; row < rows.rows; ++row, student += rows.student_stride, teacher += vocabulary) {
    const float student_top = row_max(student, vocabulary), teacher_top = row_max(teacher, vocabulary);
    Vec q[4] = {}, p[4] = {}, difference[4] = {};
    sweep(vocabulary, [&](int64_t i, int k, auto part) {
      const Vec a = (part.get(teacher + i, -kInfinity) - teacher_top) * cold;
      const Vec b = (part.get(student + i, -kInfinity) - student_top) * cold;
      const Vec ea = exp(a), eb = exp(b);
      p[k] += ea;
      q[k] += eb;
      difference[k] += ea > 0.0f ? ea * (a - b) : splat(0.0f);
      if (gradient == nullptr) return;
      part.put(of_teacher + i, ea);
      part.put(of_student + i, eb);
    });
    const double p_total = sum(p), q_total = sum(q);
    const double kl = sum(difference) / p_total - __builtin_log(p_total) + __builtin_log(q_total);
    loss[row] = square * kl;
    if (gradient == nullptr) continue;
    const float p_factor = scale / static_cast<float>(p_total);
    const float q_factor = scale / static_cast<float>(q_total);
    sweep(vocabulary, [&](int64_t i, int, auto part) {
      const Vec change = part.get(of_student + i) * q_factor - part.get(of_teacher + i) * p_factor;
      part.put(gradient + i, part.get(gradient + i) + change);
    });
    gradient += rows.student_stride;
  }
}

}  // namespace

void add_row_losses(Table& table) {
  table.f32.cross_entropy = cross_entropy;
  table.bf16.cross_entropy = cross_entropy;
  table.cross_entropy_add = cross_entropy_add;
  table.forward_kl = forward_kl;
}

}  // namespace retort::kernels::cpu::RETORT_ISA
