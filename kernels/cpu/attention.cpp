// Causal attention in blocks of 32 queries by 64 keys (Dao et al. 2022, FlashAttention, algorithms 1 and 4,
// with the loops arranged for a cache instead of shared memory). Blocks that no query may see are skipped; of
// the scores only the log-sum-exp of each row is kept. Operands are first packed into dense f32: keys and
// values also transposed, so that every product has its vectors along memory.
#include "kernels/cpu/product.h"
#include "kernels/cpu/square.h"

namespace retort::kernels::cpu::RETORT_ISA {

namespace {

constexpr int64_t kBlock = 64;       // keys
constexpr int64_t kQueryBlock = 32;  // fewer, because what the diagonal wastes grows with them

// Sizes of the packed operands.
struct Layout {
  int64_t keys, queries, width;  // S and T to whole blocks, K to whole vectors
  explicit Layout(const AttentionShape& s)
      : keys(round_up(s.S, kBlock)), queries(round_up(s.T, kBlock)), width(round_up(s.K, kLanes)) {}
};

// Hands out pieces of the caller's scratch, each a multiple of kBlock floats.
struct Pieces {
  float* next;
  float* take(int64_t floats) {
    float* const piece = next;
    next += round_up(floats, kBlock);
    return piece;
  }
};

// rows x width, columns beyond K zero, rows beyond `rows` up to `all_rows` zero.
template <class T>
void pack(const T* x, int64_t stride, int64_t rows, int64_t all_rows, int64_t columns, int64_t width,
          float scale, float* out) {
  for (int64_t r = 0; r < all_rows; ++r, out += width) {
    if (r < rows)
      sweep(columns,
            [&](int64_t i, int, auto part) { Whole{}.put(out + i, part.get(x + r * stride + i) * scale); });
    for (int64_t i = r < rows ? round_up(columns, kLanes) : 0; i < width; i += kLanes) store(out + i, Vec{});
  }
}

// Packed [rows, width] to [width, rows]; both multiples of kLanes.
void transpose(const float* x, int64_t rows, int64_t width, float* out) {
  for (int64_t r = 0; r < rows; r += kLanes)
    for (int64_t c = 0; c < width; c += kLanes) {
      Vec square[kLanes];
      for (int i = 0; i < kLanes; ++i) square[i] = load(x + (r + i) * width + c);
      transpose_square(square);
      for (int i = 0; i < kLanes; ++i) store(out + (c + i) * rows + r, square[i]);
    }
}

// Which keys the queries of one batch row may see.
struct Visibility {
  const AttentionShape& s;
  const int32_t* documents;  // of this batch row, or null

  Visibility(const AttentionShape& shape, int64_t b)
      : s(shape), documents(shape.documents == nullptr ? nullptr : shape.documents + b * shape.S) {}

  int64_t place(int64_t query) const { return s.S - s.T + query; }  // among the keys

  struct Range {
    int32_t low, high;
  };
  Range documents_of(int64_t first, int64_t last) const {
    Range out{documents[first], documents[first]};
    for (int64_t j = first + 1; j < last; ++j) {
      out.low = documents[j] < out.low ? documents[j] : out.low;
      out.high = documents[j] > out.high ? documents[j] : out.high;
    }
    return out;
  }

  enum class Block { kHidden, kPartial, kWhole };
  // Queries at places [a, a_end) against keys [j, j_end).
  Block block(int64_t a, int64_t a_end, int64_t j, int64_t j_end) const {
    if (j >= a_end || (s.window > 0 && j_end - 1 <= a - s.window)) return Block::kHidden;
    bool whole = j_end - j == kBlock && j_end <= a + 1 && (s.window == 0 || j > a_end - 1 - s.window);
    if (documents != nullptr) {
      const Range of_queries = documents_of(a, a_end), of_keys = documents_of(j, j_end);
      if (of_queries.high < of_keys.low || of_keys.high < of_queries.low) return Block::kHidden;
      whole = whole && of_queries.low == of_queries.high && of_keys.low == of_keys.high;
    }
    return whole ? Block::kWhole : Block::kPartial;
  }

  // Sets what the query at `place` may not see, of keys j .. j + n, to `value`. n a multiple of kLanes, and
  // keys beyond S are hidden because they come after every query.
  void hide(int64_t place, int64_t j, int64_t n, float value, float* row) const {
    const int32_t oldest = static_cast<int32_t>(s.window > 0 ? place - s.window + 1 : 0);
    for (int64_t i = 0; i < n; i += kLanes) {
      const IntVec key = lanes_from(static_cast<int32_t>(j + i));
      IntVec seen = (key <= static_cast<int32_t>(place)) & (key >= oldest);
      if (documents != nullptr) {
        const int64_t known = s.S - (j + i) < kLanes ? s.S - (j + i) : kLanes;
        IntVec document = {};
        if (known > 0)
          __builtin_memcpy(&document, documents + j + i, static_cast<uint64_t>(known) * sizeof(int32_t));
        seen &= document == documents[place];
      }
      store(row + i, seen != 0 ? load(row + i) : splat(value));
    }
  }
};

// The running softmax of a block of queries: y = sum p v / total, with p = exp(score - top).
struct Running {
  float *top, *total, *y;  // one and one a query, [kQueryBlock, width]

  // Turns scores into p; earlier sums are rescaled when a row's maximum grows.
  void add(int64_t rows, int64_t n, int64_t width, float* scores) {
    for (int64_t r = 0; r < rows; ++r) {
      float* const p = scores + r * kBlock;
      Vec highest = splat(-kInfinity), parts = {};
      for (int64_t i = 0; i < n; i += kLanes) highest = max(highest, load(p + i));
      const float peak = max(highest), before = top[r], now = peak <= before ? before : peak;  // NaN stays
      if (now == -kInfinity) {  // nothing visible yet: exp(-inf + inf) is no number
        for (int64_t i = 0; i < n; i += kLanes) store(p + i, Vec{});
        continue;
      }
      for (int64_t i = 0; i < n; i += kLanes) {
        const Vec e = exp(load(p + i) - now);
        parts += e;
        store(p + i, e);
      }
      const float kept = exp(splat(before - now))[0];
      total[r] = total[r] * kept + sum(parts);
      top[r] = now;
      if (now == before) continue;
      for (int64_t i = 0; i < width; i += kLanes) store(y + r * width + i, load(y + r * width + i) * kept);
    }
  }
};

template <class T>
void attention(const AttentionShape& s, const T* q, const T* k, const T* v, T* y, float* lse, int64_t b,
               int64_t h, float* scratch) {
  const Layout size(s);
  const Visibility visible(s, b);
  Pieces pieces{scratch};
  float* const values = pieces.take(size.keys * size.width);
  float* const keys_t = pieces.take(size.keys * size.width);
  float* const queries = pieces.take(kQueryBlock * size.width);
  float* const scores = pieces.take(kQueryBlock * kBlock);
  Running running{pieces.take(kQueryBlock), pieces.take(kQueryBlock), pieces.take(kQueryBlock * size.width)};

  const int64_t key_stride = s.G * s.K, query_stride = s.H * s.K;
  const int64_t key_offset = (b * s.S * s.G + h / (s.H / s.G)) * s.K,
                query_offset = (b * s.T * s.H + h) * s.K;
  pack(k + key_offset, key_stride, s.S, size.keys, s.K, size.width, 1.0f, values);
  transpose(values, size.keys, size.width, keys_t);
  pack(v + key_offset, key_stride, s.S, size.keys, s.K, size.width, 1.0f, values);

  for (int64_t i = 0; i < s.T; i += kQueryBlock) {
    const int64_t rows = s.T - i < kQueryBlock ? s.T - i : kQueryBlock, place = visible.place(i),
                  end = place + rows;
    const int64_t query = query_offset + i * query_stride;
    pack(q + query, query_stride, rows, rows, s.K, size.width, s.scale, queries);
    for (int64_t r = 0; r < rows; ++r) running.top[r] = -kInfinity, running.total[r] = 0.0f;
    for (int64_t e = 0; e < rows * size.width; e += kLanes) store(running.y + e, Vec{});
    for (int64_t j = 0; j < end; j += kBlock) {
      const int64_t j_end = j + kBlock < end ? j + kBlock : end, n = round_up(j_end - j, kLanes);
      const auto block = visible.block(place, end, j, j_end);
      if (block == Visibility::Block::kHidden) continue;
      multiply(rows, n, s.K, {queries, size.width, 1}, keys_t + j, size.keys, scores, kBlock, false);
      if (block == Visibility::Block::kPartial)
        for (int64_t r = 0; r < rows; ++r) visible.hide(place + r, j, n, -kInfinity, scores + r * kBlock);
      running.add(rows, n, size.width, scores);
      multiply(rows, size.width, j_end - j, {scores, kBlock, 1}, values + j * size.width, size.width,
               running.y, size.width, true);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const float inverse = 1.0f / running.total[r];
      sweep(s.K, [&](int64_t e, int, auto part) {
        part.put(y + query + r * query_stride + e, Whole{}.get(running.y + r * size.width + e) * inverse);
      });
      lse[(b * s.H + h) * s.T + i + r] = running.top[r] + static_cast<float>(__builtin_log(running.total[r]));
    }
  }
}

// The packed operands of one key head, and the sums of its gradients.
struct KeySide {
  float *keys, *keys_t, *values_t, *dkeys, *dvalues;
};
// Of one query head.
struct QuerySide {
  float *queries, *dy, *dqueries, *delta;  // queries scaled; delta = dy . y
  const float* lse;
};

// One block of the backward pass: rebuilds p from lse, then dv += p^T dy, ds = p (dy v^T - delta),
// dq += ds k, dk += ds^T q.
void backward_block(const AttentionShape& s, const Layout& size, const Visibility& visible,
                    const QuerySide& of, const KeySide& key, int64_t i, int64_t j, float* p, float* ds) {
  const int64_t rows = s.T - i < kQueryBlock ? s.T - i : kQueryBlock, place = visible.place(i),
                end = place + rows;
  const int64_t j_end = j + kBlock < end ? j + kBlock : end, keys = j_end - j, n = round_up(keys, kLanes);
  const auto block = visible.block(place, end, j, j_end);
  if (block == Visibility::Block::kHidden) return;
  const int64_t width = size.width;
  const float *queries = of.queries + i * width, *dy = of.dy + i * width;
  multiply(rows, n, s.K, {queries, width, 1}, key.keys_t + j, size.keys, p, kBlock, false);
  multiply(rows, n, s.K, {dy, width, 1}, key.values_t + j, size.keys, ds, kBlock, false);
  for (int64_t r = 0; r < rows; ++r) {
    float *const p_row = p + r * kBlock, *const ds_row = ds + r * kBlock;
    if (block == Visibility::Block::kPartial) visible.hide(place + r, j, n, -kInfinity, p_row);
    for (int64_t e = 0; e < n; e += kLanes) {
      const Vec weight = exp(load(p_row + e) - of.lse[i + r]);
      store(p_row + e, weight);
      store(ds_row + e, weight * (load(ds_row + e) - of.delta[i + r]));
    }
  }
  multiply(keys, width, rows, {p, 1, kBlock}, dy, width, key.dvalues + j * width, width, true);
  multiply(keys, width, rows, {ds, 1, kBlock}, queries, width, key.dkeys + j * width, width, true);
  multiply(rows, width, keys, {ds, kBlock, 1}, key.keys + j * width, width, of.dqueries + i * width, width,
           true);
}

template <class T>
void unpack(const float* x, int64_t rows, int64_t width, int64_t columns, float scale, T* out,
            int64_t stride) {
  for (int64_t r = 0; r < rows; ++r)
    sweep(columns, [&](int64_t e, int, auto part) {
      part.put(out + r * stride + e, Whole{}.get(x + r * width + e) * scale);
    });
}

void clear(float* x, int64_t n) {
  for (int64_t e = 0; e < n; e += kLanes) store(x + e, Vec{});
}

template <class T>
void attention_backward(const AttentionShape& s, const T* dy, const T* q, const T* k, const T* v, const T* y,
                        const float* lse, T* dq, T* dk, T* dv, int64_t b, int64_t g, float* scratch) {
  const Layout size(s);
  const Visibility visible(s, b);
  Pieces pieces{scratch};
  const int64_t of_keys = size.keys * size.width, of_queries = size.queries * size.width;
  const KeySide key{pieces.take(of_keys), pieces.take(of_keys), pieces.take(of_keys), pieces.take(of_keys),
                    pieces.take(of_keys)};
  QuerySide query{pieces.take(of_queries), pieces.take(of_queries), pieces.take(of_queries),
                  pieces.take(size.queries), nullptr};
  float *const p = pieces.take(kQueryBlock * kBlock), *const ds = pieces.take(kQueryBlock * kBlock);

  const int64_t key_stride = s.G * s.K, query_stride = s.H * s.K, key_offset = (b * s.S * s.G + g) * s.K;
  pack(v + key_offset, key_stride, s.S, size.keys, s.K, size.width, 1.0f, key.keys);
  transpose(key.keys, size.keys, size.width, key.values_t);
  pack(k + key_offset, key_stride, s.S, size.keys, s.K, size.width, 1.0f, key.keys);
  transpose(key.keys, size.keys, size.width, key.keys_t);
  clear(key.dkeys, of_keys);
  clear(key.dvalues, of_keys);

  const int64_t group = s.H / s.G;
  for (int64_t h = g * group; h < (g + 1) * group; ++h) {
    const int64_t query_offset = (b * s.T * s.H + h) * s.K;
    pack(q + query_offset, query_stride, s.T, s.T, s.K, size.width, s.scale, query.queries);
    pack(dy + query_offset, query_stride, s.T, s.T, s.K, size.width, 1.0f, query.dy);
    clear(query.dqueries, s.T * size.width);
    query.lse = lse + (b * s.H + h) * s.T;
    for (int64_t i = 0; i < s.T; ++i) {
      Vec products[4] = {};
      sweep(s.K, [&](int64_t e, int lane, auto part) {
        products[lane] +=
            part.get(y + query_offset + i * query_stride + e) * Whole{}.get(query.dy + i * size.width + e);
      });
      query.delta[i] = sum(products);
    }
    for (int64_t j = 0; j < s.S; j += kBlock)
      for (int64_t i = 0; i < s.T; i += kQueryBlock)
        if (visible.place(i) + kQueryBlock > j) backward_block(s, size, visible, query, key, i, j, p, ds);
    unpack(query.dqueries, s.T, size.width, s.K, s.scale, dq + query_offset, query_stride);
  }
  unpack(key.dkeys, s.S, size.width, s.K, 1.0f, dk + key_offset, key_stride);
  unpack(key.dvalues, s.S, size.width, s.K, 1.0f, dv + key_offset, key_stride);
}

int64_t attention_scratch(const AttentionShape& s, bool backward) {
  const Layout size(s);
  const int64_t of_keys = size.keys * size.width, of_queries = size.queries * size.width;
  if (!backward) return 2 * of_keys + 2 * kQueryBlock * size.width + kQueryBlock * kBlock + 2 * kBlock;
  return 5 * of_keys + 3 * of_queries + size.queries + 2 * kQueryBlock * kBlock;
}

}  // namespace

void add_attention(Table& table) {
  table.f32.attention = attention<float>;
  table.bf16.attention = attention<Bf16>;
  table.f32.attention_backward = attention_backward<float>;
  table.bf16.attention_backward = attention_backward<Bf16>;
  table.attention_scratch = attention_scratch;
}

}  // namespace retort::kernels::cpu::RETORT_ISA
