#include "plan/workload.h"

#include <algorithm>

#include "plan/activations.h"

namespace retort::plan {
namespace {

Head head_of(const models::Model& model) {
  const models::Parameter& p = model.parameters().at("lm_head.weight");
  return {.width = static_cast<double>(p.shape[1]),
          .columns = static_cast<double>(model.tokens()),
          .rows = static_cast<double>(p.shape[0]),
          .trained = !p.frozen,
          .tied = p.role == models::Role::kEmbedding,
          .softcap = model.spec().logit_softcap > 0};
}

// Sines and cosines of every position, f32, of each base.
double rotary_bytes(const models::DecoderSpec& spec) {
  if (spec.positions != models::PositionKind::kRope) return 0;
  const int tables = 1 + (spec.rope_scaling.kind == "longrope" ? 1 : 0) + (spec.rope_local_theta > 0 ? 1 : 0);
  return 4.0 * tables * static_cast<double>(spec.context * spec.head_dim);
}

}  // namespace

kernels::LogitShape logits_of(const Workload& work) {
  const Head& h = work.head;
  kernels::LogitShape out{{static_cast<int64_t>(h.columns), work.bf16, h.softcap},
                          {},
                          work.on_device || !work.distills,
                          work.on_device};
  for (const TeacherLoad& one : work.teachers)
    out.teachers.push_back({static_cast<int64_t>(std::min(one.columns, h.columns)), one.bf16, one.softcap});
  return out;
}

Workload workload_of(models::Model& model, const Batch& batch, const Precision& precision) {
  const ActivationOptions kept{
      .bf16 = precision.bf16, .documents = batch.documents, .rounded_inputs = precision.rounded_inputs};
  return {.parameters = count_parameters(model.parameters(), precision.base),
          .gathered = gathered_by(model, precision.base),
          .pass = backward_pass(model, kept),
          .saved = saved_tensors(model),
          .head = head_of(model),
          .batch = batch,
          .teachers = {},
          .bf16 = precision.bf16,
          .on_grid = precision.on_grid,
          .kept = bytes_a_token(kept_activations(model, kept)),
          .backward = backward_bytes_a_token(model, precision.bf16),
          .forward = forward_bytes_a_token(model, precision.bf16),
          .tables = rotary_bytes(model.spec())};
}

TeacherLoad teacher_of(const models::Model& teacher, bool bf16) {
  const Head head = head_of(teacher);
  const ParameterCount count = count_parameters(teacher.parameters());
  return {.weights =
              (bf16 ? 2.0 : 4.0) * static_cast<double>(count.trained_matrices + count.frozen_matrices) +
              4.0 * static_cast<double>(count.trained_f32 + count.frozen_f32) + rotary_bytes(teacher.spec()),
          .width = head.width,
          .columns = head.columns,
          .bf16 = bf16,
          .softcap = head.softcap,
          .forward = forward_bytes_a_token(teacher, bf16)};
}

}  // namespace retort::plan
