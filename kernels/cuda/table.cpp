// Compiled with each set of kernels, nvcc's and g++'s.
#include "kernels/cuda/table.h"

#define RETORT_NAME_OF(name) #name
#define RETORT_NAME(name) RETORT_NAME_OF(name)

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

// Each in the file of its name.
void add_adamw(Table& table);
void add_embedding(Table& table);
void add_fake_quantize(Table& table);
void add_gate(Table& table);
void add_layer_norm(Table& table);
void add_learned_rounding(Table& table);
void add_packed_codes(Table& table);
void add_rms_norm(Table& table);
void add_rope(Table& table);
void add_row_losses(Table& table);
void add_row_scales(Table& table);
void add_sums(Table& table);

const Table& table() {
  static const Table made = [] {
    Table t;
    t.name = RETORT_NAME(RETORT_CUDA_PROVIDER);
    add_adamw(t);
    add_embedding(t);
    add_fake_quantize(t);
    add_gate(t);
    add_layer_norm(t);
    add_learned_rounding(t);
    add_packed_codes(t);
    add_rms_norm(t);
    add_rope(t);
    add_row_losses(t);
    add_row_scales(t);
    add_sums(t);
    return t;
  }();
  return made;
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
