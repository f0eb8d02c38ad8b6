// Relations between a layer's queries, keys or values (Wang et al. 2021, MiniLMv2, arXiv 2012.15828), without
// a projection and for any numbers of heads. Usually of one late layer (Wu et al. 2025, BitDistill, arXiv
// 2510.13998).
#include "core/error.h"
#include "distill/hidden_loss.h"
#include "distill/relation.h"

namespace retort::distill {
namespace {

const at::Tensor& side(const models::LayerTap& tap, const std::string& relation) {
  return relation == "qq" ? tap.q_BTHK : relation == "kk" ? tap.k_BTGK : tap.v_BTGK;
}

std::vector<PairLoss> make_pairs(const LossOptions& options, const Sides& sides) {
  check<ConfigError>(!options.relations.empty(), "distill.losses.relations must name at least one product");
  const Rule<std::string> rule = one_of({"qq", "kk", "vv"});
  for (const std::string& relation : options.relations)
    check<ConfigError>(rule.holds(relation), "distill.losses.relations must be {}, got \"{}\"", rule.text,
                       relation);
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
      .make_hidden = make_pairs};
}

}  // namespace retort::distill
