#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda {

namespace {

template <class T>
__global__ void forward(const T* x, const float* w, T* y, float* rstd, int64_t width, float eps) {
  const int64_t row = blockIdx.x;
  x += row * width;
  y += row * width;
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    const float v = to_float(x[i]);
    squares += v * v;
  }
  const float r = rsqrtf(over_block<Sum>(squares) / static_cast<float>(width) + eps);
  if (threadIdx.x == 0) rstd[row] = r;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) put(y + i, to_float(x[i]) * r * w[i]);
}

// A block takes every parts-th row. A thread owns its columns of the block's dw, so nothing is shared.
template <class T>
__global__ void backward(const T* dy, const T* x, const float* w, const float* rstd, T* dx, float* dw_parts,
                         int64_t rows, int64_t width) {
  float* const dw = dw_parts + blockIdx.x * width;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) dw[i] = 0.0f;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T *const of_dy = dy + row * width, *const of_x = x + row * width;
    const float r = rstd[row];
    float product = 0.0f;
    for (int64_t i = threadIdx.x; i < width; i += kThreads)
      product += to_float(of_dy[i]) * w[i] * to_float(of_x[i]);
    const float mean = over_block<Sum>(product) * r / static_cast<float>(width);
    for (int64_t i = threadIdx.x; i < width; i += kThreads) {
      const float g = to_float(of_dy[i]), n = to_float(of_x[i]) * r;
      put(dx + row * width + i, (g * w[i] - n * mean) * r);
      dw[i] += g * n;
    }
  }
}

}  // namespace

void rms_norm(Element element, const void* x, const float* w, void* y, float* rstd, int64_t rows,
              int64_t width, float eps, Stream stream) {
  if (rows == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    forward<<<static_cast<unsigned int>(rows), kThreads, 0, stream>>>(static_cast<const T*>(x), w,
                                                                      static_cast<T*>(y), rstd, width, eps);
  });
}

void rms_norm_backward(Element element, const void* dy, const void* x, const float* w, const float* rstd,
                       void* dx, float* dw_parts, int64_t parts, int64_t rows, int64_t width, Stream stream) {
  if (parts == 0) return;
  with_element(element, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
    backward<<<static_cast<unsigned int>(parts), kThreads, 0, stream>>>(
        static_cast<const T*>(dy), static_cast<const T*>(x), w, rstd, static_cast<T*>(dx), dw_parts, rows,
        width);
  });
}

}  // namespace retort::kernels::cuda
