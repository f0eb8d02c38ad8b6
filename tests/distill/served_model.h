// A tiny model that answers as servers of completions do (distill/completion_api.h).
#pragma once

#include <mutex>

#include "core/host_tensor.h"
#include "data/tokenizers/utf8.h"
#include "formats/json.h"
#include "models/decoder.h"
#include "models/weight_map.h"
#include "tests/distill/fake_server.h"

namespace retort::testing {

using formats::Json;

inline std::unique_ptr<models::Decoder> byte_model(uint64_t seed) {
  auto model = std::make_unique<models::Decoder>(models::DecoderSpec{.vocabulary = 256,
                                                                     .context = 40,
                                                                     .layers = 1,
                                                                     .width = 16,
                                                                     .heads = 2,
                                                                     .kv_heads = 2,
                                                                     .head_dim = 8,
                                                                     .ffn_width = 32});
  models::initialise(model->parameters(), "normal", 0.5, seed);
  models::IdentityMap identity;
  models::bind_working(model->parameters(), identity, at::kFloat);
  return model;
}

// Any thread.
class ServedModel {
 public:
  explicit ServedModel(uint64_t seed) : model_(byte_model(seed)) {}

  FakeAnswer answer(const FakeRequest& request) {
    const auto said = [](const Json& json) { return FakeAnswer{.body = json.dump()}; };
    if (request.path == "/v1/models")
      return said({{"object", "list"},
                   {"data",
                    {{{"id", "other"}, {"created", 1}},
                     {{"id", name}, {"created", request.number}, {"root", root}, {"max_model_len", 34}}}}});
    if (request.path == "/props")
      return said({{"total_slots", 4}, {"default_generation_settings", {{"n_ctx", 33}}}});
    const Json asked = Json::parse(request.body);
    if (asked.at("model") != name) return {.body = "no such model", .status = 404};
    if (request.path == "/v1/completions") return said(vllm(asked));
    if (request.path == "/completion") return said(llamacpp(asked));
    return {.body = "no such path", .status = 404};
  }

  std::string name = "tiny", root = "tiny/weights";

 private:
  at::Tensor log_probabilities(const std::vector<int64_t>& ids) {
    const std::scoped_lock lock(mutex_);
    const at::NoGradGuard no_grad;
    const at::Tensor h_TD = model_->hidden({at::tensor(ids, at::kLong).unsqueeze(0)}).squeeze(0);
    return at::log_softmax(model_->head().logits(h_TD), 1).contiguous();
  }

  static std::string text_of(int64_t id) {
    const std::string byte(1, static_cast<char>(id));
    return id < 128 ? byte : std::string(data::kReplacement);
  }

  Json vllm(const Json& asked) {
    const auto ids = asked.at("prompt").get<std::vector<int64_t>>();
    const auto k = asked.at("prompt_logprobs").get<int64_t>();
    const at::Tensor log_p = log_probabilities(ids);
    const auto [best, best_ids] = at::topk(log_p, k);
    Json list = Json::array({nullptr});
    for (int64_t i = 1; i < std::ssize(ids); ++i) {
      const int64_t sent = ids[static_cast<size_t>(i)];
      const float own = log_p[i - 1][sent].item<float>();
      Json element = Json::object();
      const auto add = [&](int64_t id, float value, int64_t rank) {
        element[std::to_string(id)] = {{"logprob", value}, {"rank", rank}, {"decoded_token", text_of(id)}};
      };
      add(sent, own, (log_p[i - 1] >= own).sum().item<int64_t>());
      for (int64_t rank = 0; rank < k; ++rank)
        add(best_ids[i - 1][rank].item<int64_t>(), best[i - 1][rank].item<float>(), rank + 1);
      list.push_back(element);
    }
    return {{"object", "text_completion"},
            {"choices", {{{"index", 0}, {"text", "x"}, {"logprobs", nullptr}, {"prompt_logprobs", list}}}}};
  }

  Json llamacpp(const Json& asked) {
    // A drawn token may be half a character, for which llama.cpp reports no probabilities.
    if (text_of(asked.at("logit_bias").at(0).at(0).get<int64_t>()) <= " ")
      return {{"tokens_evaluated", asked.at("prompt").size()}, {"truncated", false}};
    const auto ids = asked.at("prompt").get<std::vector<int64_t>>();
    const at::Tensor log_p = log_probabilities(ids);
    const auto [best, best_ids] = at::topk(log_p[log_p.size(0) - 1], asked.at("n_probs").get<int64_t>());
    Json list = Json::array();
    for (int64_t i = 0; i < best.size(0); ++i) {
      const auto id = best_ids[i].item<int64_t>();
      list.push_back({{"id", id},
                      {"token", text_of(id)},
                      {"bytes", Json::array({id})},
                      {"logprob", best[i].item<float>()}});
    }
    return {{"completion_probabilities", Json::array({{{"id", list[0]["id"]}, {"top_logprobs", list}}})},
            {"tokens_evaluated", ids.size()},
            {"truncated", false}};
  }

  std::unique_ptr<models::Decoder> model_;
  std::mutex mutex_;
};

}  // namespace retort::testing
