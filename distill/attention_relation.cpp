// Relations between a layer's queries, keys or values (Wang et al. 2021, MiniLMv2, arXiv 2012.15828), without
// a projection and for any numbers of heads. Usually of one late layer (Wu et al. 2025, BitDistill, arXiv
// 2510.13998).
#include "core/error.h"
#include "core/nearest.h"
#include "distill/hidden_loss.h"
#include "distill/relation.h"

namespace retort::distill {
namespace {

const at::Tensor& side(const models::LayerTap& tap, const std::string& relation) {
  return relation == "qq" ? tap.q_BTHK : relation == "kk" ? tap.k_BTGK : tap.v_BTGK;
}

int64_t width_of(const LayerShape& shape, const std::string& relation) {
  return (relation == "qq" ? shape.heads : shape.kv_heads) * shape.head_dim;
}

void check_relations(const LossOptions& options, const LayerShape& student, const LayerShape& teacher) {
  layer_pairs(options, student.count, teacher.count, true);
  check<ConfigError>(!options.relations.empty(), "distill.losses.relations must name at least one product");
  const Rule<std::string> rule = one_of({"qq", "kk", "vv"});
  for (const std::string& relation : options.relations) {
    check<ConfigError>(rule.holds(relation), "distill.losses.relations must be {}, got \"{}\"{}", rule.text,
                       relation, did_you_mean(relation, rule.choices));
    const int64_t heads = options.relation_heads > 0 ? options.relation_heads : student.kv_heads;
    const std::string misfit =
        relation_misfit(heads, width_of(student, relation), width_of(teacher, relation));
    check<ConfigError>(misfit.empty(), "{}", misfit);
  }
}

std::vector<PairLoss> make_pairs(const LossOptions& options, const Sides& sides) {
  check_relations(options, layer_shape(sides.student.spec()), sides.teacher.layers());
  std::vector<PairLoss> out;
  for (const LayerPair& pair :
       layer_pairs(options, sides.student.layers(), sides.teacher.layers().count, true))
    out.push_back({pair.student, pair.teacher,
                   [relations = options.relations, heads = options.relation_heads](
                       const models::LayerTap& s, const models::LayerTap& t, const HiddenRows& rows) {
                     at::Tensor sum;
                     for (const std::string& relation : relations) {
                       const at::Tensor of_one =
                           relation_kl(side(s, relation).to(at::kFloat), side(t, relation),
                                       heads > 0 ? heads : s.k_BTGK.size(2), rows);
                       sum = sum.defined() ? sum + of_one : of_one;
                     }
                     return sum / static_cast<double>(relations.size());
                   }});
  return out;
}

}  // namespace

LossSpec attention_relation() {
  return {
      .name = "attention_relation",
      .formula =
          "mean over layers and relations of KL(A_t || A), A = softmax of x x^T / sqrt(width) over earlier "
          "positions, x the queries, keys or values",
      .reads = Reads::kLayers,
      .parameters = {"layers", "teacher_layers", "relations", "relation_heads"},
      .divergence = false,
      .make_hidden = make_pairs,
      .check_hidden = check_relations};
}

}  // namespace retort::distill
