#include "distill/served_teacher.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "core/digest.h"
#include "core/error.h"

namespace retort::distill {
namespace {

// "http://host:8000/v1/" and "http://host:8000" are the same server.
std::string base_of(std::string url) {
  while (url.ends_with('/')) url.pop_back();
  if (url.ends_with("/v1")) url.resize(url.size() - 3);
  return url;
}

// A user's name and key would be printed and written with the rest of a recipe.
bool is_address(const std::string& url) {
  const bool begins = url.starts_with("http://") || url.starts_with("https://");
  return begins && url.find_first_of("@?# \t\n") == url.npos;
}

std::string key_of(const std::string& variable) {
  if (variable.empty()) return "";
  const char* const key = std::getenv(variable.c_str());
  check<ConfigError>(
      key != nullptr && *key != '\0',
      "capture.server.api_key_variable: the environment has no {}, which must hold the server's key",
      variable);
  const std::string out = key;
  check<ConfigError>(std::all_of(out.begin(), out.end(), [](unsigned char c) { return c > 32 && c < 127; }),
                     "capture.server.api_key_variable: {} must hold printable characters without spaces",
                     variable);
  return out;
}

// The texts of a block in the order of the corpus: windows, cut where documents end if these are isolated.
class Prompts {
 public:
  Prompts(const data::TokenShards& corpus, const CacheFacts& facts, int64_t block)
      : corpus_(corpus),
        facts_(facts),
        at_(block * facts.block_tokens),
        end_(at_ + facts.tokens_of(block)),
        window_end_(at_) {}

  std::optional<Prompt> next() {
    if (at_ == end_) return std::nullopt;
    if (at_ == window_end_) window_end_ = std::min(at_ + facts_.window, end_);
    const int64_t end =
        facts_.isolate_documents ? std::min(window_end_, corpus_.document_end(at_)) : window_end_;
    Prompt out{.place = at_, .ids = std::vector<int64_t>(static_cast<size_t>(end - at_))};
    corpus_.read(at_, out.ids);
    out.next = out.ids.back();
    if (end < corpus_.size()) corpus_.read(end, {&out.next, 1});
    at_ = end;
    return out;
  }

 private:
  const data::TokenShards& corpus_;
  const CacheFacts& facts_;
  int64_t at_, end_, window_end_;
};

uint16_t half(double value) { return at::Half(static_cast<float>(value)).x; }

void append(const TopK& rows, BlockLabels& out) {
  for (size_t row = 0; row < rows.count.size(); ++row) {
    out.labels.push_back(rows.count[row]);
    out.rest.push_back(half(rows.rest[row]));
    for (size_t i = row * static_cast<size_t>(rows.k), last = i + rows.count[row]; i < last; ++i) {
      out.ids.push_back(rows.ids[i]);
      out.values.push_back(half(static_cast<double>(rows.p[i])));
    }
  }
}

// What a lane is at.
struct Reading {
  Prompt prompt;
  int64_t from = 0;  // positions that are answered
  bool over() const { return from == std::ssize(prompt.ids); }
};

}  // namespace

void ServerOptions::describe(Section& s) {
  s.field("url", url, "address of the server; without a key",
          {"that begins with http:// or https:// and has no @, ? or #", is_address, {}});
  s.field("model", model, "name that the server has for its model");
  s.field("api", api,
          "interface that it speaks: vllm (log-probabilities of a whole prompt) or llama.cpp (one token at a "
          "time)",
          one_of(completion_apis().names()));
  s.field("parallel", parallel, "requests at a time, of all ranks", between<int64_t>(1, 4096));
  s.field("timeout", timeout, "seconds to wait for one answer", between(0.001, 1e6));
  s.field("retries", retries, "times that a request which failed in passing is made again",
          between<int64_t>(0, 100));
  s.field("back_off", back_off, "seconds before it is made again, doubled each time", between(0.0, 60.0));
  s.field("api_key_variable", api_key_variable,
          "environment variable that holds the server's key; none when empty");
}

ServedTeacher::ServedTeacher(const ServerOptions& options, int64_t rank, int64_t ranks, uint64_t seed,
                             Log& log, const std::atomic<bool>& stop)
    : api_(completion_apis().at(options.api)), lanes_(options.parallel / ranks), first_slot_(rank * lanes_) {
  check<ConfigError>(lanes_ > 0, "capture.server.parallel must be at least the number of ranks, {}, got {}",
                     ranks, options.parallel);
  http_ = std::make_unique<HttpClient>(HttpOptions{.url = base_of(options.url),
                                                   .lanes = lanes_,
                                                   .timeout = options.timeout,
                                                   .retries = options.retries,
                                                   .back_off = options.back_off,
                                                   .key = key_of(options.api_key_variable),
                                                   .seed = seed + static_cast<uint64_t>(rank)},
                                       log, stop);
  const auto get = [&](const std::string& path) {
    const std::optional<std::string> answer = http_->get(path);
    check<IoError>(answer.has_value(), "{}: stopped", options.url);
    return formats::parse_json(*answer, options.url + path);
  };
  model_ = api_.describe(get, options.model);
  check<ConfigError>(model_.slots == 0 || lanes_ * ranks <= model_.slots,
                     "capture.server.parallel must be at most the server's slots, {}, got {}", model_.slots,
                     options.parallel);
  log.info("teacher {} of {}, which speaks {}: {} requests at a time", model_.name, options.url, api_.name,
           lanes_ * ranks);
}

std::string ServedTeacher::fingerprint() const { return "served:" + hex(xxh3(model_.facts)); }

bool ServedTeacher::add_block(const data::TokenShards& corpus, const data::Tokenizer& tokenizer,
                              const CacheFacts& facts, int64_t block,
                              const std::function<void(int64_t done)>& done, BlockLabels& out) {
  check<ConfigError>(
      facts.kind == "top_k" && facts.temperature == 1.0,
      "[served teacher] a server gives the likeliest ids at temperature 1: kind must be top_k, got {} at {}",
      facts.kind, facts.temperature);
  check<ConfigError>(
      model_.reads == 0 || facts.window + api_.beyond <= model_.reads,
      "[served teacher] the server reads at most {} tokens, {} of them beyond a window; got windows of {}",
      model_.reads, api_.beyond, facts.window);
  const Expectation expected{tokenizer, facts.vocabulary, std::min(facts.size, facts.vocabulary)};
  const int64_t begin = block * facts.block_tokens;
  TopK rows(facts.tokens_of(block), expected.k);
  Prompts prompts(corpus, facts, block);
  std::vector<std::optional<Reading>> lanes(static_cast<size_t>(lanes_));
  int64_t answered = 0;
  const auto next = [&](int64_t lane) -> std::optional<HttpRequest> {
    std::optional<Reading>& reading = lanes[static_cast<size_t>(lane)];
    if (!reading || reading->over()) {
      std::optional<Prompt> prompt = prompts.next();
      if (!prompt) return std::nullopt;
      reading = {std::move(*prompt)};
    }
    return api_.request(reading->prompt, reading->from, first_slot_ + lane, model_.name, expected);
  };
  const auto take = [&](int64_t lane, std::string_view text) -> std::string {
    Reading& reading = *lanes[static_cast<size_t>(lane)];
    formats::Json answer;
    try {
      answer = formats::parse_json(text, "the answer");
    } catch (const DataError& error) {
      return error.what();  // cut off, or another program's
    }
    const int64_t row = reading.prompt.place - begin + reading.from;
    const int64_t count = api_.read(answer, reading.prompt, reading.from, expected, rows, row);
    reading.from += count;
    done(answered += count);
    return "";
  };
  if (!http_->run(next, take)) return false;
  check<InternalError>(answered == facts.tokens_of(block),
                       "[served teacher] block {} must have {} answers, got {}", block,
                       facts.tokens_of(block), answered);
  append(rows, out);
  return true;
}

}  // namespace retort::distill
