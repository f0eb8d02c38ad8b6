#include "distill/preference.h"

#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/host_tensor.h"
#include "core/upload.h"
#include "models/row_log_probability.h"

namespace retort::distill {
namespace {

models::TokenBlock block_of(const data::Batch& batch) {
  return {batch.tokens_BT, batch.positions_BT, batch.document_BT};
}

std::vector<double> numbers(const at::Tensor& values_B) {
  const at::Tensor host = values_B.detach().cpu().to(at::kDouble).contiguous();
  const std::span<const double> values = host_values<const double>(host);
  return {values.begin(), values.end()};
}

// What a batch's rows add up to.
struct Sums {
  double loss = 0.0;
  std::vector<double> parts;
  std::vector<double> slopes;  // d loss / d each row's log_p
};

Sums sum_of_pairs(const PreferenceLoss& loss, const PreferenceOptions& o, const std::vector<Answer>& rows) {
  const double nll = nll_weight(loss, o);
  Sums out{0.0, std::vector<double>(nll > 0 ? 7 : 6), std::vector<double>(rows.size())};
  for (size_t i = 0; i + 1 < rows.size(); i += 2) {
    const Answer &chosen = rows[i], &rejected = rows[i + 1];
    const PairValue one = loss.of_pair(chosen, rejected, o);
    out.loss += one.value - nll * chosen.mean();
    out.slopes[i] = one.chosen - nll / static_cast<double>(chosen.tokens);
    out.slopes[i + 1] = one.rejected;
    const double good = loss.reward_of(chosen, o), bad = loss.reward_of(rejected, o);
    const double figures[] = {good,           bad,           good - bad, good > bad ? 1.0 : 0.0, chosen.log_p,
                              rejected.log_p, -chosen.mean()};
    for (size_t part = 0; part < out.parts.size(); ++part) out.parts[part] += figures[part];
  }
  return out;
}

Sums sum_of_rated(const PreferenceLoss& loss, const PreferenceOptions& o, const std::vector<Answer>& rows,
                  const at::Tensor& chosen_B, double baseline) {
  Sums out{0.0, std::vector<double>(7), {}};
  const std::span<const bool> good = host_values<const bool>(chosen_B);
  for (size_t i = 0; i < rows.size(); ++i) {
    const RatedValue one = loss.of_rated(rows[i], good[i], baseline, o);
    out.loss += one.value;
    out.slopes.push_back(one.derivative);
    out.parts[good[i] ? 0 : 1] += loss.reward_of(rows[i], o);
    out.parts[good[i] ? 3 : 4] += rows[i].log_p;
    out.parts[5] += baseline;
    out.parts[6] += good[i] ? 1.0 : 0.0;
  }
  return out;
}

class Preference final : public train::Objective {
 public:
  Preference(std::unique_ptr<Reference> reference, const PreferenceOptions& options)
      : reference_(std::move(reference)), loss_(preference_losses().at(options.loss)), options_(options) {}

  train::LossSum operator()(models::Model& model, const data::Batch& batch) override {
    check<ConfigError>(batch.chosen_B.defined() && (!loss_.paired() || batch.chosen_B.size(0) % 2 == 0),
                       "[preference] {} needs batches of {}", loss_.name,
                       loss_.paired() ? "pairs" : "rated answers");
    const models::RowLogProbability own =
        models::row_log_probability(model, block_of(batch), batch.labels_BT);
    const std::vector<Answer> rows = answers(own, batch);
    const Sums sums = loss_.paired()
                          ? sum_of_pairs(loss_, options_, rows)
                          : sum_of_rated(loss_, options_, rows, batch.chosen_B, baseline(model, batch));
    return attached(own.sum_B, sums);
  }

  std::vector<std::string> part_names() const override {
    std::vector<std::string> out{"rewards/chosen", "rewards/rejected", "rewards/margins"};
    if (loss_.paired()) out.push_back("rewards/accuracies");
    out.insert(out.end(), {"logps/chosen", "logps/rejected"});
    if (!loss_.paired()) out.insert(out.end(), {"kl", "desirable"});
    if (nll_weight(loss_, options_) > 0) out.push_back("nll");
    return out;
  }

  train::Counted counted() const override { return loss_.paired() ? pairs_of_rows() : rated_rows(); }

  // Rated answers: means over the good and over the bad.
  std::vector<double> figures(std::vector<double> means) const override {
    if (loss_.paired() || means.empty()) return means;
    const double good = means[6];
    means[0] /= good, means[3] /= good;
    means[1] /= 1.0 - good, means[4] /= 1.0 - good;
    means[2] = means[0] - means[1];
    return means;
  }

 private:
  std::vector<Answer> answers(const models::RowLogProbability& own, const data::Batch& batch) {
    const std::vector<double> sums = numbers(own.sum_B), tokens = numbers(own.labels_B),
                              theirs =
                                  reference_ ? reference_->log_p(batch) : std::vector<double>(sums.size());
    std::vector<Answer> out;
    for (size_t i = 0; i < sums.size(); ++i)
      out.push_back({sums[i], static_cast<int64_t>(tokens[i]), theirs[i]});
    return out;
  }

  double baseline(models::Model& model, const data::Batch& batch) {
    if (loss_.baseline == nullptr) return 0.0;
    const at::NoGradGuard no_grad;
    const data::Batch others = mismatched(batch);
    std::vector<double> gains;
    for (const Answer& one :
         answers(models::row_log_probability(model, block_of(others), others.labels_BT), others))
      gains.push_back(one.gain());
    return loss_.baseline(gains);
  }

  // The value as it is; its gradient by each row's slope.
  train::LossSum attached(const at::Tensor& sum_B, const Sums& sums) const {
    const at::Tensor slopes_B = upload(at::tensor(sums.slopes, at::kDouble), sum_B.device());
    const at::Tensor nothing_B = (sum_B - sum_B.detach()).to(at::kDouble);
    train::LossSum out{(nothing_B * slopes_B).sum() + sums.loss, {}};
    for (const double part : sums.parts) out.parts.push_back(at::scalar_tensor(part, at::kDouble));
    return out;
  }

  std::unique_ptr<Reference> reference_;  // nullptr: the loss needs none
  const PreferenceLoss& loss_;
  PreferenceOptions options_;
};

}  // namespace

train::Counted pairs_of_rows() {
  return {"pairs", [](const data::Batch& batch) { return batch.tokens_BT.size(0) / 2; }};
}
train::Counted rated_rows() {
  return {"rows", [](const data::Batch& batch) { return batch.tokens_BT.size(0); }};
}

std::unique_ptr<train::Objective> make_preference(std::unique_ptr<Reference> reference,
                                                  const PreferenceOptions& options) {
  const PreferenceLoss& loss = preference_losses().at(options.loss);
  check<ConfigError>(!loss.needs_reference || reference != nullptr,
                     "[preference] {} needs a reference, and there is none", loss.name);
  if (!loss.needs_reference) reference.reset();
  return std::make_unique<Preference>(std::move(reference), options);
}

data::Batch mismatched(const data::Batch& batch) {
  const int64_t rows = batch.tokens_BT.size(0), width = batch.tokens_BT.size(1);
  check<ConfigError>(rows > 1, "[preference] a micro-batch of one answer has no answer to another prompt");
  data::Batch out = batch;
  out.tokens_BT = at::zeros_like(batch.tokens_BT);
  out.labels_BT = at::full_like(batch.labels_BT, data::kIgnored);
  // Where each answer begins among the tokens, and ends.
  const auto bounds = [&](int64_t row) {
    const at::Tensor places = batch.labels_BT[row].ne(data::kIgnored).nonzero();
    return std::pair{places[0].item<int64_t>() + 1, places[-1].item<int64_t>() + 2};
  };
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t next = (row + 1) % rows, prompt = bounds(row).first;
    const auto [begin, end] = bounds(next);
    const int64_t tokens = std::min(end - begin, width - prompt);
    const at::Tensor into = out.tokens_BT[row], answer = batch.tokens_BT[next].narrow(0, begin, tokens);
    into.narrow(0, 0, prompt).copy_(batch.tokens_BT[row].narrow(0, 0, prompt));
    into.narrow(0, prompt, tokens).copy_(answer);
    out.labels_BT[row].narrow(0, prompt - 1, tokens).copy_(answer);
  }
  return out;
}

}  // namespace retort::distill
