#include "models/model.h"

#include "models/linear.h"

namespace retort::models {

Head head_of(const Parameter& matrix, const DecoderSpec& spec, const LowRank& adapter) {
  const at::Tensor weight = head_weight(matrix, adapter);
  return {is_padded(matrix, spec) ? weight.narrow(0, 0, spec.columns()) : weight, spec.logit_softcap};
}

bool is_padded(const Parameter& p, const DecoderSpec& spec) {
  return (p.role == Role::kEmbedding || p.role == Role::kHead) && spec.columns() < spec.vocabulary &&
         p.shape[0] == spec.vocabulary;
}

DecoderSpec without_padding(DecoderSpec spec) {
  spec.vocabulary = spec.columns();
  spec.tokens = 0;
  return spec;
}

}  // namespace retort::models
