// One walk over chunks of rows serves all of them: logits, loss, gradient of the logits, and the two products
// that bring it back to the hidden states and the weight. The nodes of the sums hold finished gradients,
// which their backward only scales; that of a loss a row walks again.
#include "kernels/linear_loss.h"

#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>

#include "core/error.h"
#include "core/shape.h"
#include "kernels/chunk_rows.h"
#include "kernels/cuda_ops.h"
#include "kernels/product.h"
#include "kernels/row_losses.h"
#include "kernels/row_sums.h"

namespace retort::kernels {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Student {
  at::Tensor h_ND;
  Head head;
  at::Tensor labels_N;
  bool want_h = false, want_weight = false;
  at::Tensor factors_N = {};  // of each row's gradient; undefined: 1
  bool want_gradient() const { return want_h || want_weight; }
};

struct Gradients {
  at::Tensor h_ND, weight_VD;  // in f32 or the weight's dtype; undefined when not wanted
};

// What happens to one chunk: turns rows.student_CV into the gradient of the logits when one is wanted.
struct ChunkLoss {
  std::function<void(LogitRows& rows, bool want_gradient)> apply;
  bool in_place = false;  // reads products in their dtype, and writes the student's
};

LogitShape shape_of(const Student& student, const TeacherSignal& teacher, bool in_place) {
  const auto side = [](const Head& head, int64_t columns) -> LogitShape::Side {
    return {columns, head.weight_VD.scalar_type() == at::kBFloat16, head.softcap > 0};
  };
  const at::Tensor& weight = student.head.weight_VD;
  LogitShape shape{side(student.head, weight.size(0)), {}, in_place, !weight.is_cpu()};
  for (const TeacherHead& one : teacher.heads) shape.teachers.push_back(side(one.head, teacher.vocabulary));
  return shape;
}

// Rows of logits, each dense, as far apart as kernels/chunk_rows.h has it.
at::Tensor empty_logits(int64_t rows, int64_t columns, const at::TensorOptions& options, bool close = false) {
  const int64_t row = logit_row_elements(columns, !close && !options.device().is_cpu());
  return at::empty({rows, row}, options).narrow(1, 0, columns);
}

// Head::logits() of chunk after chunk, in the same memory. Of f32 and bf16 products; bf16 ones are converted
// to f32 unless the loss reads them as they are.
class HeadProduct {
 public:
  HeadProduct(const Head& head, int64_t rows, bool as_it_is, bool close = false) : head_(head) {
    head_.weight_VD = head.weight_VD.detach();
    const auto of = [&](const at::TensorOptions& options) {
      return empty_logits(rows, head_.weight_VD.size(0), options, close);
    };
    product_ = of(head_.weight_VD.options());
    if (!as_it_is && product_.scalar_type() != at::kFloat) logits_ = of(product_.options().dtype(at::kFloat));
  }

  at::Tensor operator()(const at::Tensor& h_CD) {
    at::Tensor logits = product_.narrow(0, 0, h_CD.size(0));
    product_out(logits, h_CD, head_.weight_VD.t());
    if (logits_.defined()) logits = logits_.narrow(0, 0, h_CD.size(0)).copy_(logits);
    head_.cap(logits);
    return logits;
  }

 private:
  Head head_;
  at::Tensor product_, logits_;
};

// The rows that count, chunk by chunk: views where all do, else gathered, so that no copy grows with N. Where a
// device's kernels leave out the others themselves, all are taken: to count them would wait for the device.
class ValidRows {
 public:
  ValidRows(const at::Tensor& labels_N, bool all) : rows_(labels_N.size(0)), all_(all) {
    if (all_) return;
    valid_M_ = (labels_N != kIgnoredLabel).nonzero().view({-1});
    all_ = valid_M_.size(0) == rows_;
    rows_ = valid_M_.size(0);
  }

  int64_t size() const { return rows_; }
  // Of a tensor of N rows, the valid ones from `begin` on; undefined stays undefined.
  at::Tensor of(const at::Tensor& x, int64_t begin, int64_t count) const {
    if (!x.defined()) return x;
    return all_ ? x.detach().narrow(0, begin, count)
                : x.detach().index_select(0, valid_M_.narrow(0, begin, count));
  }
  at::Tensor gradient_like(const at::Tensor& h_ND, at::ScalarType dtype) const {
    return all_ ? at::empty_like(h_ND, dtype) : at::zeros_like(h_ND, dtype);
  }
  // out = a b for these rows of `out`.
  void multiply_into(at::Tensor& out_ND, int64_t begin, const at::Tensor& a, const at::Tensor& b) const {
    if (!all_) {
      out_ND.index_copy_(0, valid_M_.narrow(0, begin, a.size(0)), product(a, b));
      return;
    }
    at::Tensor rows = out_ND.narrow(0, begin, a.size(0));
    product_out(rows, a, b);
  }

 private:
  int64_t rows_;
  bool all_;
  at::Tensor valid_M_;
};

// log p of a chunk's rows, up to a constant a row: the logits of a single teacher, else
// log sum_i w_i softmax(z_i) / sum_i w_i.
class TeacherLogits {
 public:
  TeacherLogits(const TeacherSignal& teacher, int64_t chunk, const ValidRows& rows, bool as_they_are)
      : heads_(teacher.heads), rows_(rows) {
    for (const TeacherHead& one : heads_)
      products_.emplace_back(Head(one.head.weight_VD.narrow(0, 0, teacher.vocabulary), one.head.softcap),
                             chunk, as_they_are, heads_.size() > 1);
    if (heads_.size() > 1)
      mixture_ =
          at::empty({chunk, teacher.vocabulary}, heads_.front().head.weight_VD.options().dtype(at::kFloat));
  }

  at::Tensor operator()(int64_t begin, int64_t count) {
    if (heads_.empty()) return {};
    if (heads_.size() == 1) return logits(0, begin, count);
    const at::Tensor shares_HC1 = log_shares(begin, count);
    at::Tensor sum_CU = mixture_.narrow(0, 0, count);
    for (size_t i = 0; i < heads_.size(); ++i) {
      at::Tensor log_p_CU = logits(i, begin, count);
      at::log_softmax_out(log_p_CU, log_p_CU, 1);
      log_p_CU.add_(shares_HC1[static_cast<int64_t>(i)]);
      i == 0 ? sum_CU.copy_(log_p_CU) : at::logaddexp_out(sum_CU, sum_CU, log_p_CU);
    }
    return sum_CU;
  }

 private:
  at::Tensor logits(size_t i, int64_t begin, int64_t count) {
    const at::Tensor h_CD = rows_.of(heads_[i].hidden_ND, begin, count);
    return products_[i](h_CD.to(heads_[i].head.weight_VD.scalar_type()));
  }
  at::Tensor log_shares(int64_t begin, int64_t count) const {
    std::vector<at::Tensor> weights;
    for (const TeacherHead& head : heads_)
      weights.push_back(head.weight_N.defined() ? rows_.of(head.weight_N, begin, count).to(at::kFloat)
                                                : at::full({count}, head.weight, mixture_.options()));
    const at::Tensor log_HC = at::stack(weights).log();
    return (log_HC - at::logsumexp(log_HC, 0, true)).unsqueeze(2);
  }

  const std::vector<TeacherHead>& heads_;
  const ValidRows& rows_;
  std::vector<HeadProduct> products_;
  at::Tensor mixture_;
};

// d softcap(z) / dz from the capped logits.
at::Tensor softcap_slope(const at::Tensor& capped, double softcap) {
  return 1.0 - (capped / softcap).square_();
}

// A chunk's gradient as the products read it.
at::Tensor as_factor(const at::Tensor& gradient_CV, at::ScalarType dtype) {
  if (gradient_CV.scalar_type() == dtype) return gradient_CV;
  return empty_logits(gradient_CV.size(0), gradient_CV.size(1), gradient_CV.options().dtype(dtype))
      .copy_(gradient_CV);
}

Gradients walk(const Student& student, const TeacherSignal& teacher, int64_t chunk_rows,
               const ChunkLoss& loss) {
  const at::NoGradGuard no_grad;
  const at::Tensor weight = student.head.weight_VD.detach();
  const double softcap = student.head.softcap;
  const at::ScalarType dtype = weight.scalar_type();
  const ValidRows rows(student.labels_N, cuda::takes(weight));
  const LogitShape shape = shape_of(student, teacher, loss.in_place);
  const int64_t chunk =
      chunk_rows > 0 ? std::min(chunk_rows, std::max<int64_t>(rows.size(), 1)) : shape.rows(rows.size());
  HeadProduct head(student.head, chunk, shape.as_they_are());
  TeacherLogits teacher_logits(teacher, chunk, rows, shape.as_they_are());

  at::Tensor dh_ND = student.want_h ? rows.gradient_like(student.h_ND, dtype) : at::Tensor(), dweight_VD;
  for (int64_t begin = 0; begin < rows.size(); begin += chunk) {
    const int64_t count = std::min(chunk, rows.size() - begin);
    const auto part = [&](const at::Tensor& x) { return rows.of(x, begin, count); };
    const at::Tensor h_CD = part(student.h_ND).to(dtype);
    const SparseLabels& labels = teacher.labels;
    LogitRows logits{head(h_CD),
                     teacher_logits(begin, count),
                     part(student.labels_N),
                     {part(labels.ids_NK), part(labels.weights_NK), part(labels.rest_N)},
                     part(teacher.places_N),
                     teacher.vocabulary};
    const bool capped = softcap > 0 && student.want_gradient();
    const at::Tensor slope = capped ? softcap_slope(logits.student_CV, softcap) : at::Tensor();
    loss.apply(logits, student.want_gradient());
    if (!student.want_gradient()) continue;
    if (capped) logits.student_CV.mul_(slope);
    if (student.factors_N.defined()) logits.student_CV.mul_(part(student.factors_N).unsqueeze(1));
    const at::Tensor gradient_CV = as_factor(logits.student_CV, dtype);
    if (student.want_h) rows.multiply_into(dh_ND, begin, gradient_CV, weight);
    if (student.want_weight) add_product(dweight_VD, gradient_CV, h_CD);
  }
  if (student.want_weight && !dweight_VD.defined()) dweight_VD = at::zeros_like(weight, at::kFloat);
  return {dh_ND, dweight_VD};
}

// x times a number in `dtype`, rounded once; x is lost. A device writes the product in one pass, for which the CPU would need
// f32 values beside it.
at::Tensor scaled(at::Tensor x, const at::Tensor& by, at::ScalarType dtype) {
  if (x.is_cpu() || x.scalar_type() == dtype) return x.mul_(by).to(dtype);
  at::Tensor out = at::empty_like(x, dtype);
  return at::mul_out(out, x, by);
}

// A sum's node: its inputs' gradients are known before it exists. Backward scales them in place, so it runs
// once.
struct Finished : torch::autograd::Function<Finished> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& h_ND, const at::Tensor& weight_VD,
                            const at::Tensor& sum, const Gradients& gradients) {
    context->saved_data["h"] = gradients.h_ND;
    context->saved_data["weight"] = gradients.weight_VD;
    context->saved_data["h_dtype"] = static_cast<int64_t>(h_ND.scalar_type());
    context->saved_data["weight_dtype"] = static_cast<int64_t>(weight_VD.scalar_type());
    return sum.clone();
  }

  static variable_list backward(AutogradContext* context, variable_list outer) {
    auto& saved = context->saved_data;
    check<InternalError>(saved.count("h") == 1,
                         "[linear_loss] backward must run once: it used up its gradients");
    at::Tensor h = saved["h"].toTensor(), weight = saved["weight"].toTensor();
    const auto dtype = [&](const char* name) { return static_cast<at::ScalarType>(saved[name].toInt()); };
    // Scaled in the wider of the two dtypes.
    if (h.defined()) h = h.to(dtype("h_dtype")).mul_(outer[0]);
    if (weight.defined()) weight = scaled(weight, outer[0], dtype("weight_dtype"));
    saved.erase("h");
    saved.erase("weight");
    return {h, weight, {}, {}};
  }
};

void check_head(const char* where, const char* hidden, const char* weight, const at::Tensor& h_ND,
                const at::Tensor& weight_VD, int64_t rows) {
  check_shape(where, weight, weight_VD, {-1, -1});
  check_shape(where, hidden, h_ND, {rows, weight_VD.size(1)});
  const auto known = [](const at::Tensor& t) {
    return t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16;
  };
  check(known(h_ND) && known(weight_VD), "[{}] {} and {} must be f32 or bf16, got {} and {}", where, hidden,
        weight, c10::toString(h_ND.scalar_type()), c10::toString(weight_VD.scalar_type()));
}

Student make_student(const char* where, const at::Tensor& h_ND, const Head& head,
                     const at::Tensor& labels_N) {
  check_shape(where, "labels_N", labels_N, {-1});
  check(labels_N.scalar_type() == at::kLong, "[{}] labels_N must be i64, got {}", where,
        c10::toString(labels_N.scalar_type()));
  check_head(where, "h_ND", "weight_VD", h_ND, head.weight_VD, labels_N.size(0));
  const bool record = at::GradMode::is_enabled();
  return {h_ND, head, labels_N, record && h_ND.requires_grad(), record && head.weight_VD.requires_grad()};
}

// Of the rows that have a weight each, one teacher at least must speak for each. On the CPU only: elsewhere
// the check would wait for the device.
void check_shares(const std::vector<TeacherHead>& heads) {
  at::Tensor total;
  double everywhere = 0;
  for (const TeacherHead& head : heads) {
    check(head.weight >= 0, "[linear_distill] a teacher's weight must be >= 0, got {}", head.weight);
    if (!head.weight_N.defined())
      everywhere += head.weight;
    else
      total = total.defined() ? total + head.weight_N : head.weight_N;
  }
  if (heads.size() < 2 || everywhere > 0 || (total.defined() && !total.is_cpu())) return;
  check(total.defined() && (total.numel() == 0 || total.min().item<float>() > 0),
        "[linear_distill] the weights of teachers must add up to more than 0 in every row");
}

// Checks shapes and fills in U.
TeacherSignal checked(TeacherSignal teacher, int64_t rows, int64_t vocabulary) {
  constexpr const char* kWhere = "linear_distill";
  int64_t common = vocabulary;
  for (const TeacherHead& head : teacher.heads) {
    check_head(kWhere, "teacher hidden_ND", "teacher weight_VD", head.hidden_ND, head.head.weight_VD, rows);
    if (head.weight_N.defined()) check_shape(kWhere, "teacher weight_N", head.weight_N, {rows});
    common = std::min(common, head.head.weight_VD.size(0));
  }
  check_shares(teacher.heads);
  if (teacher.vocabulary == 0) teacher.vocabulary = common;
  check(teacher.vocabulary > 0 && teacher.vocabulary <= common,
        "[linear_distill] the common vocabulary must be in [1, {}], got {}", common, teacher.vocabulary);
  const SparseLabels& labels = teacher.labels;
  if (labels.defined()) {
    check_shape(kWhere, "ids_NK", labels.ids_NK, {rows, -1});
    check_shape(kWhere, "weights_NK", labels.weights_NK, {rows, labels.ids_NK.size(1)});
    if (labels.rest_N.defined()) check_shape(kWhere, "rest_N", labels.rest_N, {rows});
  }
  if (teacher.places_N.defined()) check_shape(kWhere, "places_N", teacher.places_N, {rows});
  return teacher;
}

// Rows whose logits and gradient stay in a core's cache together, and enough of them for several cores; on a
// device, where a launch costs more than the memory's speed, all. The sum over rows follows it, so it does
// not depend on the number of threads.
int64_t tile_rows(const at::Tensor& weight_VD) {
  if (!weight_VD.is_cpu()) return std::numeric_limits<int64_t>::max();
  return std::max<int64_t>(16, (int64_t{1} << 20) / (4 * std::max<int64_t>(1, weight_VD.size(0))));
}

LogitRows rows_of(const LogitRows& rows, int64_t begin, int64_t count) {
  const auto part = [&](const at::Tensor& x) { return x.defined() ? x.narrow(0, begin, count) : x; };
  return {part(rows.student_CV),
          part(rows.teacher_CV),
          part(rows.labels_C),
          {part(rows.sparse.ids_NK), part(rows.sparse.weights_NK), part(rows.sparse.rest_N)},
          part(rows.places_C),
          rows.vocabulary};
}

// For profiles: what losses read of a chunk, and its logits once more where their gradient is written over them.
std::vector<c10::IValue> operands(const LogitRows& rows, bool writes) {
  return {rows.student_CV, rows.teacher_CV, rows.labels_C, writes ? rows.student_CV : at::Tensor()};
}

at::Tensor zero_sum(const at::Tensor& like) {
  return at::zeros({}, like.options().dtype(at::kDouble).requires_grad(false));
}

at::Tensor attach(const Student& student, const at::Tensor& sum, const Gradients& gradients) {
  const at::Tensor total = sum.to(at::kFloat);
  return student.want_gradient() ? Finished::apply(student.h_ND, student.head.weight_VD, total, gradients)
                                 : total;
}

at::Tensor token_losses(const Student& student, int64_t chunk_rows) {
  at::Tensor losses_N = at::zeros(student.labels_N.sizes(), student.h_ND.options().dtype(at::kDouble));
  std::vector<at::Tensor> losses;
  const auto loss = [&](LogitRows& rows, bool) {
    losses.push_back(cross_entropy_in_place(rows.student_CV, rows.labels_C, false).to(at::kDouble));
  };
  walk(student, {}, chunk_rows, {loss, true});
  if (losses.empty()) return losses_N;
  return cuda::takes(student.head.weight_VD)
             ? at::cat(losses)
             : losses_N.masked_scatter_(student.labels_N != kIgnoredLabel, at::cat(losses));
}

// The node of losses a row. A factor for each is known in backward alone, so that makes the logits again.
struct TokenLosses : torch::autograd::Function<TokenLosses> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& h_ND, const at::Tensor& weight_VD,
                            const at::Tensor& labels_N, double softcap, int64_t chunk_rows) {
    context->save_for_backward({h_ND, weight_VD, labels_N});
    context->saved_data["softcap"] = softcap;
    context->saved_data["chunk_rows"] = chunk_rows;
    return token_losses({h_ND, {weight_VD, softcap}, labels_N}, chunk_rows);
  }

  static variable_list backward(AutogradContext* context, variable_list outer) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &h_ND = saved[0], &weight_VD = saved[1];
    const Student student{h_ND,
                          {weight_VD, context->saved_data["softcap"].toDouble()},
                          saved[2],
                          context->needs_input_grad(0),
                          context->needs_input_grad(1),
                          outer[0].to(at::kFloat)};
    const auto loss = [](LogitRows& rows, bool want_gradient) {
      cross_entropy_in_place(rows.student_CV, rows.labels_C, want_gradient);
    };
    Gradients g = walk(student, {}, context->saved_data["chunk_rows"].toInt(), {loss});
    if (g.h_ND.defined()) g.h_ND = g.h_ND.to(h_ND.scalar_type());
    if (g.weight_VD.defined()) g.weight_VD = g.weight_VD.to(weight_VD.scalar_type());
    return {g.h_ND, g.weight_VD, {}, {}, {}};
  }
};

}  // namespace

at::Tensor linear_cross_entropy(const at::Tensor& h_ND, const Head& head, const at::Tensor& labels_N,
                                int64_t chunk_rows) {
  RECORD_USER_SCOPE("retort::linear_cross_entropy");
  const Student student = make_student("linear_cross_entropy", h_ND, head, labels_N);
  at::Tensor sum = zero_sum(head.weight_VD);
  const auto loss = [&](LogitRows& rows, bool want_gradient) {
    RECORD_USER_SCOPE_WITH_INPUTS("retort::row_losses", operands(rows, want_gradient));
    sum.add_(sum_in_order(cross_entropy_in_place(rows.student_CV, rows.labels_C, want_gradient)));
  };
  const Gradients gradients = walk(student, {}, chunk_rows, {loss, true});
  return attach(student, sum, gradients);
}

at::Tensor linear_token_losses(const at::Tensor& h_ND, const Head& head, const at::Tensor& labels_N,
                               int64_t chunk_rows) {
  const Student student = make_student("linear_token_losses", h_ND, head, labels_N);
  return student.want_gradient()
             ? TokenLosses::apply(h_ND, head.weight_VD, labels_N, head.softcap, chunk_rows)
             : token_losses(student, chunk_rows);
}

namespace {

// Whether one kernel of a device makes all terms in one pass: cross-entropy, and few others that have one.
bool fit_one_kernel(const std::vector<LossTerm>& terms) {
  int cross_entropies = 0, others = 0;
  for (const LossTerm& term : terms) {
    if (!term.loss.kernel) return false;
    ++(term.loss.kernel->kind == cuda::RowLossKind::kCrossEntropy ? cross_entropies : others);
  }
  return !terms.empty() && cross_entropies <= 1 && others <= cuda::kRowTerms;
}

ChunkLoss in_one_pass(const std::vector<LossTerm>& terms, std::vector<at::Tensor>& parts) {
  return {[&](LogitRows& rows, bool want_gradient) {
            RECORD_USER_SCOPE_WITH_INPUTS("retort::row_losses", operands(rows, want_gradient));
            std::vector<cuda::RowLossTerm> of_rows;
            for (const LossTerm& term : terms)
              of_rows.push_back(device_term(*term.loss.kernel, term.weight, rows));
            const at::Tensor& z = rows.student_CV;
            const at::Tensor sums = cuda::ops_for(z)
                                        ->row_losses(z, rows.teacher_CV, rows.common(z).size(1),
                                                     rows.labels_C.contiguous(), of_rows, want_gradient)
                                        .sum(1);
            for (size_t i = 0; i < parts.size(); ++i) parts[i].add_(sums[static_cast<int64_t>(i)]);
          },
          true};
}

// In tiles that stay in cache: every term adds to a tile's gradient, which then takes the logits' place.
ChunkLoss one_by_one(int64_t tile, const std::vector<LossTerm>& terms, std::vector<at::Tensor>& parts) {
  return {[=, &terms, &parts, gradient_TV = at::Tensor()](LogitRows& rows, bool want_gradient) mutable {
    RECORD_USER_SCOPE_WITH_INPUTS("retort::row_losses", operands(rows, /*writes=*/false));
    const int64_t count = rows.student_CV.size(0);
    if (want_gradient && !gradient_TV.defined())
      gradient_TV = empty_logits(std::min(tile, count), rows.student_CV.size(1), rows.student_CV.options());
    for (int64_t begin = 0; begin < count; begin += tile) {
      const LogitRows part = rows_of(rows, begin, std::min(tile, count - begin));
      at::Tensor gradient =
          want_gradient ? gradient_TV.narrow(0, 0, part.student_CV.size(0)).zero_() : at::Tensor();
      for (size_t i = 0; i < terms.size(); ++i) parts[i].add_(terms[i].loss(part, terms[i].weight, gradient));
      if (want_gradient) at::Tensor(part.student_CV).copy_(gradient);
    }
  }};
}

}  // namespace

LinearDistillResult linear_distill(const at::Tensor& h_ND, const Head& head, const TeacherSignal& signal,
                                   const at::Tensor& labels_N, const std::vector<LossTerm>& terms,
                                   int64_t chunk_rows) {
  RECORD_USER_SCOPE("retort::linear_distill");
  const Student student = make_student("linear_distill", h_ND, head, labels_N);
  const TeacherSignal teacher = checked(signal, labels_N.size(0), head.weight_VD.size(0));
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < terms.size(); ++i) parts.push_back(zero_sum(head.weight_VD));
  const bool one_pass = cuda::takes(head.weight_VD) && fit_one_kernel(terms);
  const Gradients gradients =
      walk(student, teacher, chunk_rows,
           one_pass ? in_one_pass(terms, parts) : one_by_one(tile_rows(head.weight_VD), terms, parts));
  at::Tensor sum = zero_sum(head.weight_VD);
  for (size_t i = 0; i < terms.size(); ++i) sum.add_(parts[i], terms[i].weight);
  for (at::Tensor& part : parts) part = part.to(at::kFloat);
  return {attach(student, sum, gradients), parts};
}

}  // namespace retort::kernels
