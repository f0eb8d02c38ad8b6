// The CUDA kernels as functions: raw device pointers, sizes and a stream, so that a .cu file includes no
// LibTorch header and the wrappers (kernels/cuda_ops.cpp) need no nvcc. They only enqueue; nothing waits and
// nothing is allocated. f32 or bf16 elements (`Element`), all math in f32. Sums run in a fixed order: no
// atomics. Compiled, not yet run on a device.
#pragma once

#include <cstdint>

#include "kernels/gate.h"

struct CUstream_st;

namespace retort::kernels::cuda {

using Stream = CUstream_st*;

enum class Element { kF32, kBf16 };
enum class BlockFormat { kQ8_0, kQ4_0 };

// y = x rstd w; rstd [rows] is saved.
void rms_norm(Element element, const void* x, const float* w, void* y, float* rstd, int64_t rows,
              int64_t width, float eps, Stream stream);
// dx, and `parts` partial sums of dw [parts, width], each over rows part, part + parts, ...
void rms_norm_backward(Element element, const void* dy, const void* x, const float* w, const float* rstd,
                       void* dx, float* dw_parts, int64_t parts, int64_t rows, int64_t width, Stream stream);

// y = gate(a) u; u null: y = gate(a).
void gate(Gate gate, Element element, const void* a, const void* u, void* y, int64_t n, Stream stream);
void gate_backward(Gate gate, Element element, const void* dy, const void* a, const void* u, void* da,
                   void* du, int64_t n, Stream stream);

// loss [rows]; with `gradient`, z becomes softmax - onehot. A label outside [0, vocabulary) gives NaN.
void cross_entropy(Element element, void* z, const int64_t* labels, float* loss, int64_t rows,
                   int64_t vocabulary, bool gradient, Stream stream);
// loss [rows]; adds scale (softmax - onehot) to `gradient` unless it is null.
void cross_entropy_add(const float* z, const int64_t* labels, float* loss, float* gradient, float scale,
                       int64_t rows, int64_t vocabulary, Stream stream);
// loss [rows] = T^2 KL(teacher || student); adds scale T (q_T - p_T) to `gradient` unless it is null.
void forward_kl(const float* student, const float* teacher, float* loss, float* gradient, float scale,
                float temperature, int64_t rows, int64_t vocabulary, Stream stream);

// The value that a file of ggml blocks would hold: dequantize(quantize(x)) on blocks of 32 of n elements.
void fake_quantize(BlockFormat format, const float* x, float* y, int64_t n, Stream stream);

}  // namespace retort::kernels::cuda
