// Products of bf16 matrices on f32 units: both are widened as they are packed, b into panels that stay in the
// first cache while the rows of a, in the second, pass by.
#include "kernels/cpu/product.h"
#include "kernels/cpu/square.h"

namespace retort::kernels::cpu::RETORT_ISA {

namespace {

constexpr int64_t kPanel = 2 * kLanes;  // columns of b, those of a tile
constexpr int64_t kDepth = 256;         // of a panel

int64_t panels_of(const ProductShape& s) { return (s.columns + kPanel - 1) / kPanel; }

void widen(const Bf16* x, int64_t row, int64_t rows, int64_t columns, float* out, int64_t out_row) {
  for (int64_t r = 0; r < rows; ++r)
    sweep(columns,
          [&](int64_t i, int, auto part) { part.put(out + r * out_row + i, part.get(x + r * row + i)); });
}

// [depth, kPanel] of rows that lie together; columns that are not there are zero.
void pack_rows(const Bf16* b, int64_t row, int64_t depth, int64_t columns, float* panel) {
  if (columns < kPanel) {
    for (int64_t i = 0; i < depth * kPanel; i += kLanes) store(panel + i, Vec{});
    return widen(b, row, depth, columns, panel, kPanel);
  }
  for (int64_t p = 0; p < depth; ++p)
    for (int64_t i = 0; i < kPanel; i += kLanes) store(panel + p * kPanel + i, load(b + p * row + i));
}

// The same of columns that lie together.
void pack_columns(const Bf16* b, int64_t column, int64_t depth, int64_t columns, float* panel) {
  for (int64_t c = 0; c < kPanel; c += kLanes)
    for (int64_t p = 0; p < depth; p += kLanes) {
      const int known = static_cast<int>(depth - p < kLanes ? depth - p : kLanes);
      Vec square[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const Bf16* const from = b + (c + i) * column + p;
        square[i] = c + i >= columns ? Vec{} : known == kLanes ? load(from) : Part{known}.get(from);
      }
      transpose_square(square);
      for (int i = 0; i < known; ++i) store(panel + (p + i) * kPanel + c, square[i]);
    }
}

// The sums, [panels, rows, kPanel], lie at the beginning of `scratch`.
void multiply_widened(const ProductShape& s, const Bf16* a, const Bf16* b, float* scratch) {
  const bool a_rows = s.a_column == 1, b_rows = s.b_column == 1;
  float* const sums = scratch;
  float* const wide = sums + panels_of(s) * kPanel * s.rows;
  float* const panel = wide + kDepth * round_up(s.rows, kLanes);
  const Strided left = a_rows ? Strided{wide, kDepth, 1} : Strided{wide, 1, round_up(s.rows, kLanes)};
  for (int64_t p = 0; p < s.depth; p += kDepth) {
    const int64_t depth = s.depth - p < kDepth ? s.depth - p : kDepth;
    if (a_rows)
      widen(a + p, s.a_row, s.rows, depth, wide, left.row);
    else
      widen(a + p * s.a_column, s.a_column, depth, s.rows, wide, left.column);
    for (int64_t j = 0; j < s.columns; j += kPanel) {
      const int64_t columns = s.columns - j < kPanel ? s.columns - j : kPanel;
      const Bf16* const from = b + p * s.b_row + j * s.b_column;
      if (b_rows)
        pack_rows(from, s.b_row, depth, columns, panel);
      else
        pack_columns(from, s.b_column, depth, columns, panel);
      column_of_tiles<2>(s.rows, depth, left, panel, kPanel, sums + j * s.rows, kPanel, p > 0);
    }
  }
}

// f(sums, column, place in c, part) for each vector of them, by rows of c.
template <class F>
void for_sums(const ProductShape& s, const float* sums, F f) {
  for (int64_t r = 0; r < s.rows; ++r)
    for (int64_t j = 0; j < s.columns; j += kPanel) {
      const float* const sum = sums + j * s.rows + r * kPanel;
      const int64_t columns = s.columns - j < kPanel ? s.columns - j : kPanel;
      sweep(columns, [&](int64_t i, int, auto part) { f(load(sum + i), j + i, r * s.c_row + j + i, part); });
    }
}

void bf16_product(const ProductShape& s, const Bf16* a, const Bf16* b, const Bf16* bias, Bf16* c,
                  float* scratch) {
  multiply_widened(s, a, b, scratch);
  for_sums(s, scratch, [&](Vec sum, int64_t column, int64_t place, auto part) {
    part.put(c + place, bias == nullptr ? sum : sum + part.get(bias + column));
  });
}

void bf16_product_added(const ProductShape& s, const Bf16* a, const Bf16* b, float* c, float* scratch) {
  multiply_widened(s, a, b, scratch);
  for_sums(s, scratch, [&](Vec sum, int64_t, int64_t place, auto part) {
    part.put(c + place, part.get(c + place) + sum);
  });
}

int64_t bf16_product_scratch(const ProductShape& s) {
  return panels_of(s) * kPanel * s.rows + kDepth * round_up(s.rows, kLanes) + kDepth * kPanel;
}

}  // namespace

void add_bf16_product(Table& table) {
  table.bf16_product = bf16_product;
  table.bf16_product_added = bf16_product_added;
  table.bf16_product_scratch = bf16_product_scratch;
}

}  // namespace retort::kernels::cpu::RETORT_ISA
