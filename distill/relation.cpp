// T tokens, E the width of all heads together, R relation heads.
#include "distill/relation.h"

#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "core/error.h"

namespace retort::distill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// One row of the batch as [R, T, E / R].
at::Tensor cut(const at::Tensor& x_TE, int64_t heads) {
  return x_TE.reshape({x_TE.size(0), heads, -1}).transpose(0, 1);
}

double cold(const at::Tensor& x_RTE) { return 1.0 / std::sqrt(static_cast<double>(x_RTE.size(2))); }

at::Tensor log_relations(const at::Tensor& x_RTE, const at::Tensor& hidden_TT) {
  return at::log_softmax(
      at::matmul(x_RTE * cold(x_RTE), x_RTE.transpose(1, 2)).masked_fill(hidden_TT, -INFINITY), 2);
}

// True where position t may not see j.
at::Tensor hidden_from(const HiddenRows& rows, int64_t b) {
  const int64_t tokens = rows.valid_BT.size(1);
  const at::Tensor later = at::ones({tokens, tokens}, rows.valid_BT.options()).triu(1);
  if (!rows.document_BT.defined()) return later;
  const at::Tensor document = rows.document_BT[b].to(later.device());
  return later.logical_or(document.unsqueeze(1) != document.unsqueeze(0));
}

struct Finished : torch::autograd::Function<Finished> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& /*student*/, const at::Tensor& sum,
                            const at::Tensor& gradient) {
    context->save_for_backward({gradient});
    return sum.clone();
  }
  static variable_list backward(AutogradContext* context, variable_list outer) {
    return {context->get_saved_variables()[0] * outer[0], {}, {}};
  }
};

}  // namespace

std::string relation_misfit(int64_t relation_heads, int64_t student_width, int64_t teacher_width) {
  if (relation_heads > 0 && student_width % relation_heads == 0 && teacher_width % relation_heads == 0)
    return "";
  return fmt::format("distill.losses.relation_heads must divide both models' widths, got {} for {} and {}",
                     relation_heads, student_width, teacher_width);
}

at::Tensor relation_kl(const at::Tensor& student_BTHK, const at::Tensor& teacher_BTHK, int64_t relation_heads,
                       const HiddenRows& rows) {
  const at::Tensor student = student_BTHK.flatten(2), teacher = teacher_BTHK.flatten(2).detach();
  const std::string misfit = relation_misfit(relation_heads, student.size(2), teacher.size(2));
  check<ConfigError>(misfit.empty(), "{}", misfit);
  at::Tensor gradient_BTE = at::zeros_like(student), sum;
  {
    const at::NoGradGuard no_grad;
    sum = at::zeros({}, student.options().dtype(at::kDouble));
    for (int64_t b = 0; b < student.size(0); ++b) {
      const at::Tensor s_RTE = cut(student[b], relation_heads),
                       t_RTE = cut(teacher[b].to(student.scalar_type()), relation_heads);
      const at::Tensor hidden_TT = hidden_from(rows, b);
      const at::Tensor log_s = log_relations(s_RTE, hidden_TT), log_t = log_relations(t_RTE, hidden_TT);
      const at::Tensor counts =
          rows.valid_BT[b].to(student.scalar_type()).view({1, -1, 1}) / static_cast<double>(relation_heads);
      const at::Tensor a_t = log_t.exp();
      const at::Tensor kl_RTT =
          at::where(a_t > 0, a_t * (log_t - log_s), at::zeros({}, a_t.options())) * counts;
      sum += kl_RTT.sum(2).sum(1).sum();  // a single sum over all would depend on the number of threads
      const at::Tensor slope = (log_s.exp() - a_t) * counts;
      const at::Tensor of_x = at::matmul(slope + slope.transpose(1, 2), s_RTE) * cold(s_RTE);
      gradient_BTE[b].copy_(of_x.transpose(0, 1).reshape({of_x.size(1), -1}));
    }
    sum = sum.to(student.scalar_type());
  }
  return student.requires_grad() ? Finished::apply(student, sum, gradient_BTE) : sum;
}

}  // namespace retort::distill
