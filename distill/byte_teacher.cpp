// B rows of bytes, T bytes a row, N = B T, P windows of L tokens, R predictions, V vocabulary.
#include "distill/byte_teacher.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "core/host_tensor.h"
#include "core/upload.h"
#include "distill/next_byte.h"

namespace retort::distill {
namespace {

constexpr int64_t kChunkValues = int64_t{1} << 22;  // logits at a time

// A document's tokens; token k writes the bytes at [starts[k], starts[k + 1]) of the corpus.
struct Segmentation {
  int64_t end = 0;
  std::vector<int32_t> ids;
  std::vector<int64_t> starts;
  // The token that writes the byte at `place`.
  size_t token_at(int64_t place) const {
    return static_cast<size_t>(std::upper_bound(starts.begin(), starts.end(), place) - starts.begin()) - 1;
  }
};

// Bytes [first, last) of a token, which a row predicts, and the hidden state that predicts the token.
struct Prediction {
  int64_t state;  // row of the flattened hidden states
  int64_t row;    // of the signal, for byte `first`
  std::string_view token;
  size_t first, last;
};

struct Window {
  std::vector<int64_t> ids;
  std::vector<Prediction> predictions;  // `state`: within the window
};

class ByteTeacher final : public Teacher {
 public:
  ByteTeacher(std::shared_ptr<models::Model> model, train::GatheredWeights* divided,
              std::unique_ptr<data::Tokenizer> tokenizer,
              std::vector<std::shared_ptr<const data::TokenShards>> sources, int64_t context)
      : model_(std::move(model)),
        divided_(divided),
        tokenizer_(std::move(tokenizer)),
        sources_(std::move(sources)),
        context_(context),
        prefix_(tokenizer_->prefix()),
        next_byte_(*tokenizer_) {
    check(!sources_.empty(), "[distill] the bytes bridge needs a corpus");
    for (const auto& text : sources_)
      check<ConfigError>(text->vocabulary() == kByteValues,
                         "[distill] the bytes bridge needs shards of the tokenizer bytes, got {}",
                         text->tokenizer_name());
    check<ConfigError>(tokenizer_->vocabulary() <= model_->tokens(),
                       "[distill] the teacher's vocabulary must hold its tokenizer's {} ids, got {}",
                       tokenizer_->vocabulary(), model_->tokens());
    check<ConfigError>(context_ >= 0 && context_ + std::ssize(prefix_) + 2 <= model_->context(),
                       "[distill] the bytes bridge's context must lie in [0, {}], got {}",
                       model_->context() - std::ssize(prefix_) - 2, context_);
    segmentation_at(0, 0);  // so that a text that does not fit is refused early
  }

  TeacherSignal signal(const data::Batch& batch, const std::vector<int64_t>&) override {
    const at::NoGradGuard no_grad;
    check(batch.corpus_BT.defined(), "[distill] the bytes bridge needs batches with places in the corpus");
    const at::Tensor places_BT = batch.corpus_BT.to(at::kCPU).contiguous();
    const at::Tensor source_B = batch.source_B.defined() ? batch.source_B.to(at::kCPU) : at::Tensor();
    const int64_t B = places_BT.size(0), T = places_BT.size(1);
    at::Tensor log_p_NV = at::full({B * T, kByteValues}, -std::log(static_cast<double>(kByteValues)));
    std::vector<Window> windows;
    for (int64_t b = 0; b < B; ++b) {
      const std::span<const int64_t> places =
          host_values<const int64_t>(places_BT).subspan(static_cast<size_t>(b * T), static_cast<size_t>(T));
      check(places.back() - places.front() == T - 1,
            "[distill] the bytes bridge needs rows of adjacent places");
      const auto source = static_cast<size_t>(source_B.defined() ? source_B[b].item<int64_t>() : 0);
      add_windows(source, places.front() + 1, std::min(places.front() + T + 1, sources_.at(source)->size()),
                  b * T, windows);
    }
    if (divided_) divided_->pass_apart(true);
    for (size_t first = 0; first < windows.size(); first += static_cast<size_t>(B))
      predict({windows.data() + first, std::min(static_cast<size_t>(B), windows.size() - first)}, log_p_NV);
    if (divided_) {
      divided_->go_along();
      divided_->pass_apart(false);
    }
    const auto device = batch.tokens_BT.device();
    return {.rows = {.heads = {{upload(log_p_NV, device), at::eye(kByteValues, at::TensorOptions(device))}}}};
  }

  int64_t vocabulary() const override { return kByteValues; }
  bool asked_together() const override { return divided_ != nullptr; }

 private:
  // The document that holds the byte at `place`.
  const Segmentation& segmentation_at(size_t source, int64_t place) {
    const data::TokenShards& text = *sources_.at(source);
    const int64_t begin = text.document_start(place);
    const auto [found, fresh] = segmentations_.try_emplace({source, begin});
    if (fresh) found->second = segment(text, begin, text.document_end(place));
    return found->second;
  }

  Segmentation segment(const data::TokenShards& corpus, int64_t begin, int64_t end) const {
    std::vector<int64_t> bytes(static_cast<size_t>(end - begin));
    corpus.read(begin, bytes);
    std::string text(bytes.begin(), bytes.end());
    Segmentation out{end, tokenizer_->encode(text), {}};
    size_t written = 0;
    for (const int32_t id : out.ids) written += tokenizer_->token_bytes(id).size();
    const bool added =
        written == text.size() + 1;  // the tokenizer put a space, known to all, before the text
    if (added) text.insert(0, " ");
    size_t at = 0;
    for (const int32_t id : out.ids) {
      const std::string_view token = tokenizer_->token_bytes(id);
      check<DataError>(
          std::string_view(text).substr(at).starts_with(token),
          "[distill] tokenizer {} does not spell the text's byte {} (document at {}), so a student of bytes "
          "cannot follow it",
          tokenizer_->name(), begin + static_cast<int64_t>(at) - added, begin);
      out.starts.push_back(begin + static_cast<int64_t>(at) - added);
      at += token.size();
    }
    check<DataError>(
        at == text.size(),
        "[distill] tokenizer {} does not spell the text's byte {} (document at {}), so a student "
        "of bytes cannot follow it",
        tokenizer_->name(), begin + static_cast<int64_t>(at) - added, begin);
    out.starts.push_back(end);
    return out;
  }

  // Windows that predict the bytes at [place, last) of the corpus, for the signal's rows from `row` on.
  void add_windows(size_t source, int64_t place, int64_t last, int64_t row, std::vector<Window>& out) {
    while (place < last) {
      const Segmentation& document = segmentation_at(source, place);
      const int64_t end = std::min(last, document.end);
      add_windows(document, place, end, row, out);
      row += end - place;
      place = end;
    }
  }

  void add_windows(const Segmentation& document, int64_t place, int64_t last, int64_t row,
                   std::vector<Window>& out) {
    const size_t past_last = document.token_at(last - 1) + 1;
    for (size_t token = document.token_at(place); token < past_last;) {
      Window window;
      const size_t before = static_cast<size_t>(context_) + 1;  // the token that predicts, and its context
      const size_t first = token > before ? token - before : 0;
      window.ids.assign(prefix_.begin(), prefix_.end());
      if (window.ids.empty() && first == 0 && tokenizer_->separator())
        window.ids.push_back(*tokenizer_->separator());
      const auto own = static_cast<int64_t>(first) - std::ssize(window.ids);  // ids[i] is token own + i
      const size_t end = std::min(past_last, static_cast<size_t>(own + model_->context()) + 1);
      for (size_t k = first; k + 1 < end; ++k) window.ids.push_back(document.ids[k]);
      for (; token < end; ++token) {
        const int64_t state = static_cast<int64_t>(token) - own - 1;
        const int64_t start = document.starts[token];
        const int64_t from = std::max(start, place), to = std::min(document.starts[token + 1], last);
        if (state < 0 || from >= to || tokenizer_->is_special(document.ids[token])) continue;
        window.predictions.push_back({state, row + from - place, tokenizer_->token_bytes(document.ids[token]),
                                      static_cast<size_t>(from - start), static_cast<size_t>(to - start)});
      }
      if (!window.predictions.empty()) out.push_back(std::move(window));
    }
  }

  // Runs windows side by side, padded at the end, which no prediction sees.
  void predict(std::span<const Window> windows, at::Tensor& log_p_NV) {
    int64_t L = 0;
    for (const Window& window : windows) L = std::max(L, std::ssize(window.ids));
    std::vector<int64_t> tokens, states;
    std::vector<Prediction> predictions;
    for (const Window& window : windows) {
      const int64_t begin = std::ssize(tokens);
      tokens.insert(tokens.end(), window.ids.begin(), window.ids.end());
      tokens.resize(static_cast<size_t>(begin + L));
      for (const Prediction& prediction : window.predictions) {
        states.push_back(begin + prediction.state);
        predictions.push_back(prediction);
      }
    }
    const models::Head head = model_->head();
    const auto device = head.weight_VD.device();
    const at::Tensor tokens_PL = upload(at::tensor(tokens).view({-1, L}), device);
    const at::Tensor h_ND = model_->hidden({.tokens_BT = tokens_PL}).flatten(0, 1);
    const at::Tensor h_RD = h_ND.index_select(0, upload(at::tensor(states, at::kLong), device));
    const int64_t chunk = std::max<int64_t>(1, kChunkValues / model_->tokens());
    for (int64_t first = 0; first < h_RD.size(0); first += chunk) {
      const int64_t count = std::min(chunk, h_RD.size(0) - first);
      write({predictions.data() + first, static_cast<size_t>(count)},
            head.logits(h_RD.narrow(0, first, count)).cpu(), log_p_NV);
    }
  }

  // Both tensors are on the host.
  void write(std::span<const Prediction> predictions, const at::Tensor& logits_RV,
             at::Tensor& log_p_NV) const {
    const auto V = static_cast<size_t>(logits_RV.size(1));
    const std::span<const float> logits = host_values<const float>(logits_RV);
    const std::span<float> out = host_values<float>(log_p_NV);
    at::parallel_for(0, std::ssize(predictions), 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const Prediction& p = predictions[static_cast<size_t>(r)];
        for (size_t byte = p.first; byte < p.last; ++byte)
          next_byte_.log_probabilities(
              logits.subspan(static_cast<size_t>(r) * V, V), p.token.substr(0, byte),
              out.subspan((static_cast<size_t>(p.row) + byte - p.first) * kByteValues, kByteValues));
      }
    });
  }

  std::shared_ptr<models::Model> model_;
  train::GatheredWeights* divided_;  // the model's weights where ranks divide them, or nullptr
  std::unique_ptr<data::Tokenizer> tokenizer_;
  std::vector<std::shared_ptr<const data::TokenShards>> sources_;
  int64_t context_;
  std::vector<int32_t> prefix_;
  NextByte next_byte_;
  std::map<std::pair<size_t, int64_t>, Segmentation> segmentations_;  // by source and the document's start
};

}  // namespace

std::unique_ptr<Teacher> make_byte_teacher(std::unique_ptr<models::Model> model,
                                           std::unique_ptr<data::Tokenizer> tokenizer,
                                           std::vector<std::shared_ptr<const data::TokenShards>> sources,
                                           int64_t context) {
  return std::make_unique<ByteTeacher>(std::move(model), nullptr, std::move(tokenizer), std::move(sources),
                                       context);
}

std::unique_ptr<Teacher> make_byte_teacher(std::shared_ptr<train::DividedModel> model,
                                           std::unique_ptr<data::Tokenizer> tokenizer,
                                           std::vector<std::shared_ptr<const data::TokenShards>> sources,
                                           int64_t context) {
  train::GatheredWeights* weights = &model->weights();
  models::Model* teacher = &model->model();
  return std::make_unique<ByteTeacher>(std::shared_ptr<models::Model>(std::move(model), teacher), weights,
                                       std::move(tokenizer), std::move(sources), context);
}

}  // namespace retort::distill
