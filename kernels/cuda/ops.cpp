#include "kernels/cuda/ops.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "core/upload.h"

namespace retort::kernels::cuda {

namespace {

Element element_of(at::ScalarType dtype) { return dtype == at::kFloat ? Element::kF32 : Element::kBf16; }
Element element_of(const at::Tensor& x) { return element_of(x.scalar_type()); }

const void* data(const at::Tensor& x) { return x.defined() ? x.const_data_ptr() : nullptr; }
void* place(const at::Tensor& x) { return x.defined() ? x.mutable_data_ptr() : nullptr; }
const float* floats(const at::Tensor& x) { return x.defined() ? x.const_data_ptr<float>() : nullptr; }
float* float_place(const at::Tensor& x) { return x.defined() ? x.mutable_data_ptr<float>() : nullptr; }
const int64_t* integers(const at::Tensor& x) { return x.defined() ? x.const_data_ptr<int64_t>() : nullptr; }

NormRows rows_of(const at::Tensor& x_ND, double eps = 0.0) {
  const int64_t width = x_ND.size(-1);
  return {width > 0 ? x_ND.numel() / width : 0, width, static_cast<float>(eps)};
}
at::Tensor f32_like(const at::Tensor& x, at::IntArrayRef shape) {
  return at::empty(shape, x.options().dtype(at::kFloat));
}

// Partial sums of a weight's gradient: enough of them to fill a device whatever the width, each over many rows.
// 528 is four for each processor of an H100.
int64_t parts_of(const NormRows& shape) {
  const int64_t wanted = 528 * std::clamp<int64_t>(2048 / std::max<int64_t>(1, shape.width), 1, 16);
  return std::min(shape.rows, wanted);
}

RowTerm term_rows(const RowLossTerm& term, float* loss_of) {
  const SparseSignal& sparse = term.sparse;
  return {term.kind,
          static_cast<float>(term.weight),
          static_cast<float>(term.temperature),
          static_cast<float>(term.mix),
          {integers(sparse.ids_CK), floats(sparse.weights_CK), floats(sparse.rest_C),
           sparse.ids_CK.defined() ? sparse.ids_CK.size(1) : 0},
          loss_of};
}

// The two lists are one: the kernels' has no headers of LibTorch's.
GridRule rule_of(const Rounding& rounding) {
  static_assert(static_cast<int>(Rule::kFloat8) == static_cast<int>(RoundRule::kFloat8));
  return {static_cast<Rule>(rounding.rule), rounding.lowest, rounding.highest};
}

GroupGrid group_grid(const ScaleFit& fit, const Rounding& rounding) {
  return {fit.fit, rule_of(rounding), static_cast<float>(fit.half_range), fit.group};
}

void add_chunks(std::vector<AdamChunk>& chunks, int64_t tensor, int64_t count) {
  for (int64_t at = 0; at < count; at += kAdamChunk) chunks.push_back({tensor, at});
}

template <class T>
at::Tensor table_on(const at::Tensor& device, const std::vector<T>& rows) {
  const auto bytes = static_cast<int64_t>(rows.size() * sizeof(T));
  at::Tensor host = at::empty({bytes}, at::kByte);
  std::copy_n(reinterpret_cast<const char*>(rows.data()), bytes, host.mutable_data_ptr<uint8_t>());
  return upload(host, device.device());
}

}  // namespace

std::pair<at::Tensor, at::Tensor> Ops::rms_norm(const at::Tensor& x_ND, const at::Tensor& w_D,
                                                double eps) const {
  const NormRows shape = rows_of(x_ND, eps);
  at::Tensor y = at::empty_like(x_ND), rstd_N = f32_like(x_ND, {shape.rows});
  enqueue(x_ND, [&](Stream stream) {
    table_.rms_norm(element_of(x_ND), shape, data(x_ND), nullptr, floats(w_D), nullptr, place(y),
                    float_place(rstd_N), stream);
  });
  return {y, rstd_N};
}

Ops::Added Ops::add_rms_norm(const at::Tensor& x_ND, const at::Tensor& residual_ND, const at::Tensor& w_D,
                             double eps) const {
  const NormRows shape = rows_of(x_ND, eps);
  Added out{at::empty_like(x_ND), at::empty_like(x_ND), f32_like(x_ND, {shape.rows})};
  enqueue(x_ND, [&](Stream stream) {
    table_.rms_norm(element_of(x_ND), shape, data(x_ND), data(residual_ND), floats(w_D), place(out.sum_ND),
                    place(out.y_ND), float_place(out.rstd_N), stream);
  });
  return out;
}

std::pair<at::Tensor, at::Tensor> Ops::rms_norm_backward(const at::Tensor& dy_ND, const at::Tensor& x_ND,
                                                         const at::Tensor& w_D, const at::Tensor& rstd_N,
                                                         const at::Tensor& dsum_ND) const {
  const NormRows shape = rows_of(x_ND);
  at::Tensor dx = at::empty_like(x_ND), dw_PD = f32_like(x_ND, {parts_of(shape), shape.width});
  enqueue(x_ND, [&](Stream stream) {
    table_.rms_norm_backward(element_of(x_ND), shape, data(dy_ND), data(x_ND), floats(w_D), floats(rstd_N),
                             data(dsum_ND), place(dx), {float_place(dw_PD), dw_PD.size(0)}, stream);
  });
  return {dx, sum_parts(dw_PD)};
}

std::pair<at::Tensor, at::Tensor> Ops::layer_norm(const at::Tensor& x_ND, const at::Tensor& w_D,
                                                  const at::Tensor& b_D, double eps) const {
  const NormRows shape = rows_of(x_ND, eps);
  at::Tensor y = at::empty_like(x_ND), moments_2N = f32_like(x_ND, {2, shape.rows});
  enqueue(x_ND, [&](Stream stream) {
    table_.layer_norm(element_of(x_ND), shape, data(x_ND), floats(w_D), floats(b_D), place(y),
                      float_place(moments_2N), stream);
  });
  return {y, moments_2N};
}

std::pair<at::Tensor, at::Tensor> Ops::layer_norm_backward(const at::Tensor& dy_ND, const at::Tensor& x_ND,
                                                           const at::Tensor& w_D,
                                                           const at::Tensor& moments_2N) const {
  const NormRows shape = rows_of(x_ND);
  at::Tensor dx = at::empty_like(x_ND), parts = f32_like(x_ND, {parts_of(shape), 2 * shape.width});
  enqueue(x_ND, [&](Stream stream) {
    table_.layer_norm_backward(element_of(x_ND), shape, data(dy_ND), data(x_ND), floats(w_D),
                               floats(moments_2N), place(dx), {float_place(parts), parts.size(0)}, stream);
  });
  return {dx, sum_parts(parts).view({2, shape.width})};
}

at::Tensor Ops::gate(Gate kind, const at::Tensor& a, const at::Tensor& u) const {
  at::Tensor y = at::empty_like(a);
  enqueue(a, [&](Stream stream) {
    table_.gate(kind, element_of(a), data(a), data(u), place(y), a.numel(), stream);
  });
  return y;
}

std::pair<at::Tensor, at::Tensor> Ops::gate_backward(Gate kind, const at::Tensor& dy, const at::Tensor& a,
                                                     const at::Tensor& u) const {
  at::Tensor da = at::empty_like(a), du = u.defined() ? at::empty_like(u) : at::Tensor();
  enqueue(a, [&](Stream stream) {
    table_.gate_backward(kind, element_of(a), data(dy), data(a), data(u), place(da), place(du), a.numel(),
                         stream);
  });
  return {da, du};
}

std::pair<at::Tensor, at::Tensor> Ops::rope(const at::Tensor& q_NHK, const at::Tensor& k_NGK,
                                            const at::Tensor& cos_PK, const at::Tensor& sin_PK,
                                            const at::Tensor& positions_N, double sign) const {
  const at::Tensor q_out = at::empty(q_NHK.sizes(), q_NHK.options()),
                   k_out = at::empty(k_NGK.sizes(), k_NGK.options());
  const auto heads = [](const at::Tensor& x, const at::Tensor& y) {
    return RopeHeads{data(x), place(y), x.size(1), x.stride(0)};
  };
  enqueue(q_NHK, [&](Stream stream) {
    table_.rope(element_of(q_NHK), heads(q_NHK, q_out), heads(k_NGK, k_out), floats(cos_PK), floats(sin_PK),
                integers(positions_N), q_NHK.size(0), q_NHK.size(2) / 2, static_cast<float>(sign), stream);
  });
  return {q_out, k_out};
}

at::Tensor Ops::row_losses(const at::Tensor& student_CV, const at::Tensor& teacher_CU, int64_t common,
                           const at::Tensor& labels_C, const std::vector<RowLossTerm>& terms,
                           bool gradient) const {
  RowLosses losses;
  losses.rows = student_CV.size(0);
  losses.vocabulary = student_CV.size(1);
  losses.common = common;
  losses.student_stride = student_CV.stride(0);
  losses.student = place(student_CV);
  losses.labels = integers(labels_C);
  losses.gradient = gradient;
  const auto reads_teacher = [](const RowLossTerm& term) {
    return term.kind != RowLossKind::kCrossEntropy && term.kind != RowLossKind::kLabels;
  };
  if (std::any_of(terms.begin(), terms.end(), reads_teacher)) {
    losses.teacher = data(teacher_CU);
    losses.teacher_stride = teacher_CU.stride(0);
  }
  at::Tensor losses_TC = f32_like(student_CV, {std::ssize(terms), losses.rows});
  float* out = float_place(losses_TC);
  for (const RowLossTerm& term : terms) {
    if (term.kind == RowLossKind::kCrossEntropy) {
      losses.cross_entropy = static_cast<float>(term.weight);
      losses.cross_entropy_of = out;
    } else {
      losses.terms[losses.count++] = term_rows(term, out);
    }
    out += losses.rows;
  }
  enqueue(student_CV, [&](Stream stream) { table_.row_losses(element_of(student_CV), losses, stream); });
  return losses_TC;
}

at::Tensor Ops::add_row_losses(const at::Tensor& student_CV, const at::Tensor& teacher_CU, int64_t common,
                               const at::Tensor& labels_C, const std::vector<RowLossTerm>& terms,
                               const at::Tensor& gradient_CV) const {
  if (!gradient_CV.defined()) return row_losses(student_CV, teacher_CU, common, labels_C, terms, false);
  const at::Tensor logits =  // in rows as far apart, so that each begins as the teacher's does
      at::empty_strided(student_CV.sizes(), student_CV.strides(), student_CV.options()).copy_(student_CV);
  const at::Tensor out = row_losses(logits, teacher_CU, common, labels_C, terms, true);
  at::Tensor(gradient_CV).add_(logits);
  return out;
}

at::Tensor Ops::sum_parts(const at::Tensor& parts_PD) const {
  at::Tensor sum_D = at::empty({parts_PD.size(1)}, parts_PD.options());
  enqueue(parts_PD, [&](Stream stream) {
    table_.sum_parts(floats(parts_PD), float_place(sum_D), parts_PD.size(0), parts_PD.size(1), stream);
  });
  return sum_D;
}

at::Tensor Ops::tree_sum(const std::vector<at::Tensor>& leaves) const {
  const at::Tensor& first = leaves.front();
  TreeLeaves all;
  for (const at::Tensor& leaf : leaves) all.at[all.count++] = data(leaf);
  at::Tensor sum = first.scalar_type() == at::kFloat ? first : f32_like(first, first.sizes());
  enqueue(first, [&](Stream stream) {
    table_.tree_sum(element_of(first), all, float_place(sum), first.numel(), stream);
  });
  return sum;
}

void Ops::embedding_backward(const at::Tensor& dy_ND, const at::Tensor& ids_N,
                             const at::Tensor& dw_VD) const {
  const auto [ids, order] = at::sort(ids_N, /*stable=*/true, 0, false);
  enqueue(dy_ND, [&, ids = ids, order = order](Stream stream) {
    table_.embedding_backward(element_of(dy_ND), data(dy_ND), integers(ids), integers(order),
                              float_place(dw_VD), ids.size(0), dy_ND.size(1), stream);
  });
}

void Ops::fake_quantize(const ScaleFit& fit, const Rounding& rounding, const at::Tensor& x,
                        const at::Tensor& y) const {
  if (fit.fit == Fit::kMean || fit.fit == Fit::kMeanOfAll)
    return fake_quantize_rows(rounding, x, row_scales(fit.fit, x), y);
  const NormRows shape = rows_of(x);
  enqueue(x, [&](Stream stream) {
    if (fit.group > 0)
      table_.fake_quantize_groups(group_grid(fit, rounding), element_of(y), floats(x), place(y), x.numel(),
                                  stream);
    else
      table_.fake_quantize_fitted_rows(fit.fit, rule_of(rounding), static_cast<float>(fit.half_range),
                                       element_of(y), floats(x), place(y), shape.rows, shape.width, stream);
  });
}

void Ops::fake_quantize_rows(const Rounding& rounding, const at::Tensor& x, const at::Tensor& scales,
                             const at::Tensor& y) const {
  const NormRows shape = rows_of(x);
  enqueue(x, [&](Stream stream) {
    table_.fake_quantize_rows(rule_of(rounding), element_of(y), floats(x), floats(scales), place(y),
                              shape.rows, shape.width, stream);
  });
}

at::Tensor Ops::row_scales(Fit fit, const at::Tensor& x) const {
  const NormRows shape = rows_of(x);
  at::Tensor scales = f32_like(x, {shape.rows, 1});
  enqueue(x, [&](Stream stream) {
    table_.row_scales(fit, floats(x), float_place(scales), shape.rows, shape.width, stream);
  });
  return scales;
}

at::Tensor Ops::learned_scales(const at::Tensor& theta) const {
  at::Tensor scales = at::empty_like(theta);
  enqueue(theta, [&](Stream stream) {
    table_.learned_scales(floats(theta), float_place(scales), theta.numel(), stream);
  });
  return scales;
}

at::Tensor Ops::round_backward(const at::Tensor& x, const at::Tensor& scales, const at::Tensor& gradient,
                               const LearnedRounding& rule, const at::Tensor& out) const {
  const NormRows shape = rows_of(x);
  const LearnedRule learned{rule_of(rule.rounding), static_cast<float>(rule.low),
                            static_cast<float>(rule.high), rule.follows ? 1.0f : 0.0f};
  at::Tensor sums = at::empty({shape.rows, 1}, x.options().dtype(at::kDouble));
  enqueue(x, [&](Stream stream) {
    table_.round_backward(learned, floats(x), floats(scales), floats(gradient), float_place(out),
                          sums.mutable_data_ptr<double>(), shape.rows, shape.width, stream);
  });
  return sums;
}

void Ops::unpack(const PackedCodes& packed, const at::Tensor& values) const {
  const PackedBlocks blocks{packed.form,           data(packed.codes),   data(packed.scales),
                            floats(packed.groups), floats(packed.sizes), floats(packed.map),
                            packed.offset};
  enqueue(values, [&](Stream stream) {
    table_.unpack(blocks, element_of(values), place(values), values.numel(), stream);
  });
}

at::Tensor Ops::squares(const std::vector<at::Tensor>& gradients) const {
  std::vector<AdamTensor> tensors;
  std::vector<AdamChunk> chunks;
  for (const at::Tensor& gradient : gradients) {
    add_chunks(chunks, std::ssize(tensors), gradient.numel());
    tensors.push_back({nullptr, nullptr, nullptr, floats(gradient), nullptr, gradient.numel(), 1.0f});
  }
  const at::Tensor& first = gradients.at(0);
  const at::Tensor tensor_table = table_on(first, tensors), chunk_table = table_on(first, chunks);
  at::Tensor sums = at::empty({std::ssize(chunks)}, first.options().dtype(at::kDouble));
  enqueue(first, [&](Stream stream) {
    table_.squares(static_cast<const AdamTensor*>(data(tensor_table)),
                   static_cast<const AdamChunk*>(data(chunk_table)), std::ssize(chunks),
                   sums.mutable_data_ptr<double>(), stream);
  });
  return sums;
}

at::Tensor Ops::judge(const at::Tensor& pieces, const std::vector<int64_t>& of_block,
                      const at::Tensor& losses_L, double clip) const {
  std::vector<int64_t> ends(of_block.size());
  std::partial_sum(of_block.begin(), of_block.end(), ends.begin());
  const at::Tensor ends_table = table_on(pieces, ends);
  at::Tensor sums = at::empty({std::ssize(of_block)}, pieces.options()),
             verdict = at::empty({3}, pieces.options());
  enqueue(pieces, [&](Stream stream) {
    table_.judge(pieces.const_data_ptr<double>(), static_cast<const int64_t*>(data(ends_table)),
                 std::ssize(ends), sums.mutable_data_ptr<double>(), losses_L.const_data_ptr<double>(),
                 losses_L.numel(), losses_L.stride(0), clip, static_cast<Verdict*>(place(verdict)), stream);
  });
  return verdict;
}

void Ops::adamw(const std::vector<AdamParameter>& parameters, const AdamRates& rates,
                const at::Tensor& verdict) const {
  // One launch for all whose copies are made alike.
  const auto kind_of = [](const AdamParameter& p) {
    if (!p.grid) return std::tuple(false, Fit{}, int64_t{}, 0.0, RoundRule{}, 0, 0, at::kBFloat16);
    const auto& [fit, rounding] = *p.grid;
    return std::tuple(true, fit.fit, fit.group, fit.half_range, rounding.rule, rounding.lowest,
                      rounding.highest, p.working.scalar_type());
  };
  std::map<decltype(kind_of(parameters.front())), std::vector<AdamChunk>> launches;
  std::vector<AdamTensor> tensors;
  for (const AdamParameter& p : parameters) {
    add_chunks(launches[kind_of(p)], std::ssize(tensors), p.master.numel());
    tensors.push_back({float_place(p.master), float_place(p.m), float_place(p.v), floats(p.gradient),
                       place(p.working), p.master.numel(), p.keep});
  }
  std::vector<AdamChunk> chunks;
  for (const auto& [kind, mine] : launches) chunks.insert(chunks.end(), mine.begin(), mine.end());
  const at::Tensor tensor_table = table_on(verdict, tensors), chunk_table = table_on(verdict, chunks);
  enqueue(verdict, [&](Stream stream) {
    const auto* const all = static_cast<const AdamTensor*>(data(tensor_table));
    const auto* mine = static_cast<const AdamChunk*>(data(chunk_table));
    const auto* const judged = static_cast<const Verdict*>(data(verdict));
    for (const auto& [kind, of_kind] : launches) {
      const auto count = std::ssize(of_kind);
      const AdamParameter& p = parameters[static_cast<size_t>(of_kind.empty() ? 0 : of_kind.front().tensor)];
      if (p.grid)
        table_.adamw_on_grid(group_grid(p.grid->fit, p.grid->rounding), element_of(p.working), all, mine,
                             count, rates, judged, stream);
      else
        table_.adamw(all, mine, count, rates, judged, stream);
      mine += count;
    }
  });
}

}  // namespace retort::kernels::cuda
