#include "kernels/cpu/simd.h"

namespace retort::kernels::cpu::RETORT_ISA {

#define RETORT_TEXT_OF(x) #x
#define RETORT_TEXT(x) RETORT_TEXT_OF(x)

const Table& table() {
  static const Table table = [] {
    Table t{};
    t.name = RETORT_TEXT(RETORT_ISA);
    add_norm(t);
    add_gate(t);
    add_rope(t);
    add_row_losses(t);
    add_divergences(t);
    add_sparse_losses(t);
    add_attention(t);
    add_thin_product(t);
    add_bf16_product(t);
    return t;
  }();
  return table;
}

}  // namespace retort::kernels::cpu::RETORT_ISA
