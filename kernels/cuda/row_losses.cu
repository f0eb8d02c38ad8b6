// One thread block a row of logits. The maximum and the sum of exponentials come out of one pass (each thread
// rescales its own running sum), the gradient out of a second; logits are read twice and written once.
#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda {

namespace {

struct Softmax {
  float top, total;  // exp(z - top) / total
};

// The softmax of cold * z, where z is a row.
template <class T>
__device__ Softmax softmax_of(const T* z, int64_t n, float cold) {
  float top = -INFINITY, total = 0.0f;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    const float v = to_float(z[i]) * cold;
    if (v == -INFINITY) continue;  // a masked logit: -inf minus -inf is no number
    if (v > top) {
      total *= expf(top - v);
      top = v;
    }
    total += expf(v - top);
  }
  const float all = over_block<Max>(top);
  return {all, over_block<Sum>(total == 0.0f ? 0.0f : total * expf(top - all))};  // NaN stays
}

__device__ float label_loss(const Softmax& s, float at_label) { return logf(s.total) - (at_label - s.top); }

__device__ bool known(int64_t label, int64_t vocabulary) { return label >= 0 && label < vocabulary; }

template <class T>
__global__ void cross_entropy_kernel(T* z, const int64_t* labels, float* loss, int64_t vocabulary,
                                     bool gradient) {
  z += blockIdx.x * vocabulary;
  const int64_t label = labels[blockIdx.x];
  const Softmax s = softmax_of(z, vocabulary, 1.0f);
  if (threadIdx.x == 0) loss[blockIdx.x] = known(label, vocabulary) ? label_loss(s, to_float(z[label])) : NAN;
  if (!gradient) return;
  __syncthreads();  // the label's logit was read
  const float inverse = 1.0f / s.total;
  for (int64_t i = threadIdx.x; i < vocabulary; i += kThreads)
    put(z + i, expf(to_float(z[i]) - s.top) * inverse - (i == label ? 1.0f : 0.0f));
}

__global__ void cross_entropy_add_kernel(const float* z, const int64_t* labels, float* loss, float* gradient,
                                         float scale, int64_t vocabulary) {
  z += blockIdx.x * vocabulary;
  const int64_t label = labels[blockIdx.x];
  const Softmax s = softmax_of(z, vocabulary, 1.0f);
  if (threadIdx.x == 0) loss[blockIdx.x] = known(label, vocabulary) ? label_loss(s, z[label]) : NAN;
  if (gradient == nullptr) return;
  gradient += blockIdx.x * vocabulary;
  const float inverse = 1.0f / s.total;
  for (int64_t i = threadIdx.x; i < vocabulary; i += kThreads)
    gradient[i] += scale * (expf(z[i] - s.top) * inverse - (i == label ? 1.0f : 0.0f));
}

__global__ void forward_kl_kernel(const float* student, const float* teacher, float* loss, float* gradient,
                                  float scale, float temperature, int64_t vocabulary) {
  student += blockIdx.x * vocabulary;
  teacher += blockIdx.x * vocabulary;
  const float cold = 1.0f / temperature;
  const Softmax q = softmax_of(student, vocabulary, cold), p = softmax_of(teacher, vocabulary, cold);
  const float q_inverse = 1.0f / q.total, p_inverse = 1.0f / p.total, step = scale * temperature;
  float difference = 0.0f;
  for (int64_t i = threadIdx.x; i < vocabulary; i += kThreads) {
    const float a = teacher[i] * cold - p.top, b = student[i] * cold - q.top;
    const float weight = expf(a) * p_inverse;
    if (weight > 0.0f) difference += weight * (a - b);
    if (gradient != nullptr) gradient[blockIdx.x * vocabulary + i] += step * (expf(b) * q_inverse - weight);
  }
  const float sum = over_block<Sum>(difference);
  if (threadIdx.x == 0) loss[blockIdx.x] = temperature * temperature * (sum - logf(p.total) + logf(q.total));
}

}  // namespace

void cross_entropy(Element element, void* z, const int64_t* labels, float* loss, int64_t rows,
                   int64_t vocabulary, bool gradient, Stream stream) {
  if (rows == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    cross_entropy_kernel<<<static_cast<unsigned int>(rows), kThreads, 0, stream>>>(
        static_cast<T*>(z), labels, loss, vocabulary, gradient);
  });
}

void cross_entropy_add(const float* z, const int64_t* labels, float* loss, float* gradient, float scale,
                       int64_t rows, int64_t vocabulary, Stream stream) {
  if (rows == 0) return;
  cross_entropy_add_kernel<<<static_cast<unsigned int>(rows), kThreads, 0, stream>>>(
      z, labels, loss, gradient, scale, vocabulary);
}

void forward_kl(const float* student, const float* teacher, float* loss, float* gradient, float scale,
                float temperature, int64_t rows, int64_t vocabulary, Stream stream) {
  if (rows == 0) return;
  forward_kl_kernel<<<static_cast<unsigned int>(rows), kThreads, 0, stream>>>(
      student, teacher, loss, gradient, scale, temperature, vocabulary);
}

}  // namespace retort::kernels::cuda
