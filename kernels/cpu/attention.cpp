// Causal attention in blocks of two vectors of queries by 64 keys (Dao et al. 2022, FlashAttention,
// algorithms 1 and 4, with the loops arranged for a cache instead of shared memory). Blocks that no query may
// see are skipped; of the scores only the log-sum-exp of each row is kept. Operands are first packed into
// dense f32. Scores, and all that is one a query, have their vectors along the queries: so the softmax of a
// block needs no sum over the lanes of a vector.
#include "kernels/cpu/product.h"
#include "kernels/cpu/square.h"

namespace retort::kernels::cpu::RETORT_ISA {

namespace {

constexpr int64_t kBlock = 64;               // keys
constexpr int64_t kQueryBlock = 2 * kLanes;  // as few as fill a tile: the diagonal wastes half of them

// multiply() as one function: passed from part to part by value, `a` would wait in memory before every tile.
__attribute__((flatten, noinline)) void product(int64_t m, int64_t n, int64_t depth, Strided a,
                                                const float* b, int64_t ldb, float* c, int64_t ldc,
                                                bool add) {
  multiply(m, n, depth, a, b, ldb, c, ldc, add);
}

// Hands out pieces of the caller's scratch, each a multiple of kBlock floats.
struct Pieces {
  float* next;
  float* take(int64_t floats) {
    float* const piece = next;
    next += round_up(floats, kBlock);
    return piece;
  }
};

void clear(float* x, int64_t n) {
  for (int64_t e = 0; e < n; e += kLanes) store(x + e, Vec{});
}

// One head's rows of a tensor.
template <class T>
struct Rows {
  T* first;
  int64_t stride;
  T* operator[](int64_t row) const { return first + row * stride; }
};

// `rows` of them, from row `at`, to dense rows of `width`, K to whole vectors: columns beyond K are zero.
// They lie far apart in memory, so those of the next block are asked for early.
template <class T>
void pack(Rows<const T> x, int64_t at, int64_t rows, int64_t columns, int64_t width, float scale,
          float* out) {
  const int64_t whole = columns / kLanes * kLanes;
  for (int64_t r = at; r < at + rows; ++r, out += width) {
    for (int64_t i = 0; i < whole; i += kLanes) {
      __builtin_prefetch(x[r + kQueryBlock] + i);
      store(out + i, load(x[r] + i) * scale);
    }
    if (whole < width) store(out + whole, Part{static_cast<int>(columns - whole)}.get(x[r] + whole) * scale);
  }
}

template <class T>
void unpack(const float* x, int64_t width, int64_t columns, float scale, Rows<T> out, int64_t at,
            int64_t rows) {
  for (int64_t r = at; r < at + rows; ++r, x += width)
    sweep(columns, [&](int64_t e, int, auto part) { part.put(out[r] + e, Whole{}.get(x + e) * scale); });
}

// Asks for the lines that unpack() will write.
template <class T>
void fetch(Rows<T> x, int64_t at, int64_t rows, int64_t columns) {
  for (int64_t r = at; r < at + rows; ++r)
    for (int64_t e = 0; e < columns; e += kLanes) __builtin_prefetch(x[r] + e);
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

// A block of queries: how many, the lanes of their vectors, and their places among the keys. Lanes beyond the
// last query hold anything, which stays in them.
struct Queries {
  int64_t count, lanes, place, end;
  Queries(const AttentionShape& s, int64_t first)
      : count(s.T - first < kQueryBlock ? s.T - first : kQueryBlock),
        lanes(round_up(count, kLanes)),
        place(s.S - s.T + first),
        end(place + count) {}
};

// Which keys the queries of one batch row may see.
struct Visibility {
  const AttentionShape& s;
  const int32_t* documents;  // of this batch row, or null

  Visibility(const AttentionShape& shape, int64_t b)
      : s(shape), documents(shape.documents == nullptr ? nullptr : shape.documents + b * shape.S) {}

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
  // Of keys [j, j_end).
  Block block(const Queries& q, int64_t j, int64_t j_end) const {
    if (j >= q.end || (s.window > 0 && j_end - 1 <= q.place - s.window)) return Block::kHidden;
    bool whole = j_end <= q.place + 1 && (s.window == 0 || j > q.end - 1 - s.window);
    if (documents != nullptr) {
      const Range of_queries = documents_of(q.place, q.end), of_keys = documents_of(j, j_end);
      if (of_queries.high < of_keys.low || of_keys.high < of_queries.low) return Block::kHidden;
      whole = whole && of_queries.low == of_queries.high && of_keys.low == of_keys.high;
    }
    return whole ? Block::kWhole : Block::kPartial;
  }

  // Sets the scores of keys [j, j_end) that a query may not see to -inf.
  void hide(const Queries& q, int64_t j, int64_t j_end, float* scores) const {
    for (int64_t i = 0; i < q.lanes; i += kLanes) {
      const IntVec place = lanes_from(static_cast<int32_t>(q.place + i));
      const IntVec oldest = s.window > 0 ? place - static_cast<int32_t>(s.window - 1) : IntVec{};
      IntVec document = {};
      if (documents != nullptr) {
        const int64_t known = q.count - i < kLanes ? q.count - i : kLanes;
        __builtin_memcpy(&document, documents + q.place + i, static_cast<uint64_t>(known) * sizeof(int32_t));
      }
      float* score = scores + i;
      for (int64_t key = j; key < j_end; ++key, score += kQueryBlock) {
        IntVec seen = (place >= static_cast<int32_t>(key)) & (oldest <= static_cast<int32_t>(key));
        if (documents != nullptr) seen &= document == documents[key];
        store(score, seen != 0 ? load(score) : splat(-kInfinity));
      }
    }
  }
};

// Of one vector of queries, vectors of others kQueryBlock apart in `scores`.
Vec highest(Vec least, int64_t keys, const float* scores) {
  Vec of[4] = {least, least, least, least};
  int64_t r = 0;
  for (; r + 4 <= keys; r += 4)
    for (int k = 0; k < 4; ++k) of[k] = max(of[k], load(scores + (r + k) * kQueryBlock));
  for (; r < keys; ++r) of[0] = max(of[0], load(scores + r * kQueryBlock));
  return max(max(of[0], of[1]), max(of[2], of[3]));
}

// The running softmax of a block of queries: y = sum p v / total, with p = exp(score - top).
struct Running {
  float *top, *total, *y_t;  // one and one a query, [width, kQueryBlock]

  void start(int64_t width) {
    for (int64_t i = 0; i < kQueryBlock; i += kLanes)
      store(top + i, splat(-kInfinity)), store(total + i, Vec{});
    clear(y_t, width * kQueryBlock);
  }

  // Turns scores [keys, kQueryBlock] into p; earlier sums are rescaled for maxima that grow.
  void add(int64_t lanes, int64_t keys, int64_t width, float* scores) {
    for (int64_t i = 0; i < lanes; i += kLanes) {
      const Vec before = load(top + i), now = highest(before, keys, scores + i);
      const Vec shift = now == -kInfinity ? Vec{} : now;  // nothing visible yet: exp(-inf + inf) is no number
      Vec sum = {};
      for (int64_t r = 0; r < keys; ++r) {
        const Vec e = exp(load(scores + r * kQueryBlock + i) - shift);
        sum += e;
        store(scores + r * kQueryBlock + i, e);
      }
      const Vec kept = exp(before - shift);
      store(top + i, now);
      store(total + i, load(total + i) * kept + sum);
      scale(width, i, kept);
    }
  }

  void scale(int64_t width, int64_t i, Vec factor) {
    for (float* y = y_t + i; y < y_t + width * kQueryBlock; y += kQueryBlock) store(y, load(y) * factor);
  }

  // Leaves y, and in `total` the log-sum-exp.
  void finish(int64_t lanes, int64_t width) {
    for (int64_t i = 0; i < lanes; i += kLanes) {
      const Vec sum = load(total + i);
      scale(width, i, 1.0f / sum);
      store(total + i, sum == sum ? load(top + i) + log(sum) : sum);
    }
  }
};

template <class T>
void attention(const AttentionShape& s, const T* q, const T* k, const T* v, T* y, float* lse, int64_t b,
               int64_t h, float* scratch) {
  const int64_t width = round_up(s.K, kLanes);
  const Visibility visible(s, b);
  Pieces pieces{scratch};
  float *const keys = pieces.take(s.S * width), *const values = pieces.take(s.S * width);
  float *const rows = pieces.take(kQueryBlock * width), *const queries_t = pieces.take(kQueryBlock * width);
  float* const scores = pieces.take(kQueryBlock * kBlock);
  Running running{pieces.take(kQueryBlock), pieces.take(kQueryBlock), pieces.take(kQueryBlock * width)};

  const int64_t at_query = (b * s.T * s.H + h) * s.K, at_key = (b * s.S * s.G + h / (s.H / s.G)) * s.K;
  const Rows<const T> of_q{q + at_query, s.H * s.K}, of_k{k + at_key, s.G * s.K}, of_v{v + at_key, s.G * s.K};
  const Rows<T> of_y{y + at_query, s.H * s.K};

  int64_t packed = 0;  // keys
  for (int64_t i = 0; i < s.T; i += kQueryBlock) {
    const Queries block(s, i);
    fetch(of_y, i, block.count, s.K);
    pack(of_k, packed, block.end - packed, s.K, width, 1.0f, keys + packed * width);
    pack(of_v, packed, block.end - packed, s.K, width, 1.0f, values + packed * width);
    packed = block.end;
    pack(of_q, i, block.count, s.K, width, s.scale, rows);
    transpose(rows, kQueryBlock, width, queries_t);
    running.start(width);
    for (int64_t j = 0; j < block.end; j += kBlock) {
      const int64_t j_end = j + kBlock < block.end ? j + kBlock : block.end, n = j_end - j;
      const auto seen = visible.block(block, j, j_end);
      if (seen == Visibility::Block::kHidden) continue;
      product(n, block.lanes, s.K, {keys + j * width, width, 1}, queries_t, kQueryBlock, scores, kQueryBlock,
              false);
      if (seen == Visibility::Block::kPartial) visible.hide(block, j, j_end, scores);
      running.add(block.lanes, n, s.K, scores);
      product(s.K, block.lanes, n, {values + j * width, 1, width}, scores, kQueryBlock, running.y_t,
              kQueryBlock, true);
    }
    running.finish(block.lanes, s.K);
    transpose(running.y_t, width, kQueryBlock, rows);
    unpack(rows, width, s.K, 1.0f, of_y, i, block.count);
    __builtin_memcpy(lse + (b * s.H + h) * s.T + i, running.total,
                     static_cast<uint64_t>(block.count) * sizeof(float));
  }
}

// One query head and its key head. Operands are packed when their first block needs them and gradients
// written after their last, so that memory is read and written while the units compute.
template <class T>
struct Backward {
  const AttentionShape& s;
  const Visibility visible;
  const int64_t width;
  float *keys, *values, *dkeys, *dvalues;  // [S, width]
  // In blocks of queries: [kQueryBlock, width], and as `_t` [width, kQueryBlock]. Queries are scaled.
  float *queries, *queries_t, *dys, *dys_t, *dqueries_t;
  float *lses, *deltas;  // one a query; delta = dy . y
  float *p, *ds;         // of a block: [kBlock, kQueryBlock]

  Backward(const AttentionShape& shape, int64_t b, Pieces pieces)
      : s(shape), visible(shape, b), width(round_up(s.K, kLanes)) {
    const int64_t rows = round_up(s.T, kQueryBlock);
    for (float** piece : {&keys, &values, &dkeys, &dvalues}) *piece = pieces.take(s.S * width);
    for (float** piece : {&queries, &queries_t, &dys, &dys_t, &dqueries_t})
      *piece = pieces.take(rows * width);
    for (float** piece : {&lses, &deltas}) *piece = pieces.take(rows);
    for (float** piece : {&p, &ds}) *piece = pieces.take(kBlock * kQueryBlock);
  }

  void pack_keys(Rows<const T> k, Rows<const T> v, int64_t j, int64_t n) const {
    pack(k, j, n, s.K, width, 1.0f, keys + j * width);
    pack(v, j, n, s.K, width, 1.0f, values + j * width);
    clear(dkeys + j * width, n * width);
    clear(dvalues + j * width, n * width);
  }

  void pack_queries(Rows<const T> q, Rows<const T> dy, Rows<const T> y, const float* lse, int64_t i) const {
    const int64_t count = Queries(s, i).count, at_i = i * width;
    pack(q, i, count, s.K, width, s.scale, queries + at_i);
    pack(dy, i, count, s.K, width, 1.0f, dys + at_i);
    for (int64_t r = i; r < i + count; ++r) {
      Vec products[4] = {};
      sweep(s.K, [&](int64_t e, int lane, auto part) {
        __builtin_prefetch(y[r + kQueryBlock] + e);
        products[lane] += part.get(y[r] + e) * Whole{}.get(dys + r * width + e);
      });
      deltas[r] = sum(products);
      lses[r] = lse[r];
    }
    transpose(queries + at_i, kQueryBlock, width, queries_t + at_i);
    transpose(dys + at_i, kQueryBlock, width, dys_t + at_i);
    clear(dqueries_t + at_i, kQueryBlock * width);
  }

  // Rebuilds p from lse, then dv += p^T dy, ds = p (dy v^T - delta), dq += ds k, dk += ds^T q.
  void add(int64_t i, int64_t j) const {
    const Queries block(s, i);
    const int64_t j_end = j + kBlock < block.end ? j + kBlock : block.end, n = j_end - j;
    const auto seen = visible.block(block, j, j_end);
    if (seen == Visibility::Block::kHidden) return;
    const int64_t at_i = i * width, at_j = j * width;
    product(n, block.lanes, s.K, {keys + at_j, width, 1}, queries_t + at_i, kQueryBlock, p, kQueryBlock,
            false);
    product(n, block.lanes, s.K, {values + at_j, width, 1}, dys_t + at_i, kQueryBlock, ds, kQueryBlock,
            false);
    if (seen == Visibility::Block::kPartial) visible.hide(block, j, j_end, p);
    for (int64_t e = 0; e < block.lanes; e += kLanes) {
      const Vec lse = load(lses + i + e), delta = load(deltas + i + e);
      for (int64_t at = e; at < n * kQueryBlock; at += kQueryBlock) {
        const Vec weight = exp(load(p + at) - lse);
        store(p + at, weight);
        store(ds + at, weight * (load(ds + at) - delta));
      }
    }
    product(n, width, block.count, {p, kQueryBlock, 1}, dys + at_i, width, dvalues + at_j, width, true);
    product(n, width, block.count, {ds, kQueryBlock, 1}, queries + at_i, width, dkeys + at_j, width, true);
    product(s.K, block.lanes, n, {keys + at_j, 1, width}, ds, kQueryBlock, dqueries_t + at_i, kQueryBlock,
            true);
  }

  void unpack_queries(Rows<T> dq, int64_t i) const {
    float* const rows = dys_t + i * width;  // no longer needed
    transpose(dqueries_t + i * width, width, kQueryBlock, rows);
    unpack(rows, width, s.K, s.scale, dq, i, Queries(s, i).count);
  }

  void unpack_keys(Rows<T> dk, Rows<T> dv, int64_t j, int64_t n) const {
    unpack(dkeys + j * width, width, s.K, 1.0f, dk, j, n);
    unpack(dvalues + j * width, width, s.K, 1.0f, dv, j, n);
  }
};

template <class T>
void attention_backward(const AttentionShape& s, const T* dy, const T* q, const T* k, const T* v, const T* y,
                        const float* lse, T* dq, T* dk, T* dv, int64_t b, int64_t g, float* scratch) {
  const Backward<T> pass(s, b, {scratch});
  const int64_t group = s.H / s.G, key_stride = s.G * s.K, query_stride = s.H * s.K,
                at_key = (b * s.S * s.G + g) * s.K;
  const Rows<const T> of_k{k + at_key, key_stride}, of_v{v + at_key, key_stride};
  const Rows<T> of_dk{dk + at_key, key_stride}, of_dv{dv + at_key, key_stride};
  for (int64_t h = g * group; h < (g + 1) * group; ++h) {
    const int64_t at_query = (b * s.T * s.H + h) * s.K;
    const Rows<const T> of_q{q + at_query, query_stride}, of_dy{dy + at_query, query_stride},
        of_y{y + at_query, query_stride};
    const Rows<T> of_dq{dq + at_query, query_stride};
    for (int64_t j = 0; j < s.S; j += kBlock) {
      const int64_t n = s.S - j < kBlock ? s.S - j : kBlock;
      const bool first_head = h == g * group, last_head = h == (g + 1) * group - 1;
      if (first_head) pass.pack_keys(of_k, of_v, j, n);
      if (last_head) fetch(of_dk, j, n, s.K), fetch(of_dv, j, n, s.K);
      for (int64_t i = 0; i < s.T; i += kQueryBlock) {
        const Queries block(s, i);
        if (j == 0) pass.pack_queries(of_q, of_dy, of_y, lse + (b * s.H + h) * s.T, i);
        if (j >= block.end) continue;
        const bool last = j + kBlock >= block.end;
        if (last) fetch(of_dq, i, block.count, s.K);
        pass.add(i, j);
        if (last) pass.unpack_queries(of_dq, i);
      }
      if (last_head) pass.unpack_keys(of_dk, of_dv, j, n);
    }
  }
}

int64_t attention_scratch(const AttentionShape& s, bool backward) {
  const int64_t width = round_up(s.K, kLanes), queries = round_up(s.T, kQueryBlock);
  const int64_t of_keys = round_up(s.S * width, kBlock), of_block = kQueryBlock * width;
  if (!backward) return 2 * of_keys + 3 * of_block + kQueryBlock * kBlock + 2 * kBlock;
  return 4 * of_keys + 5 * queries * width + 2 * round_up(queries, kBlock) + 2 * kQueryBlock * kBlock;
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
