// A kernel for each divergence.
#include "kernels/cuda/divergences.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

void divergences(Element element, const RowLosses& losses, Stream stream) {
  with_divergence(losses.terms[0].kind, [&](auto* loss) {
    using Loss = std::remove_pointer_t<decltype(loss)>;
    with_row_kernel(element, losses.vocabulary, [&](auto* typed, auto lanes) {
      using T = std::remove_pointer_t<decltype(typed)>;
      constexpr int kLanes = decltype(lanes)::value;
      launch(divergence_kernel<Loss, T, kLanes>, {static_cast<unsigned int>(losses.rows), kLanes}, stream,
             losses);
    });
  });
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
