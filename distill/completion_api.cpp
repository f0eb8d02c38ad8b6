#include "distill/completion_api.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_set>

#include "core/error.h"
#include "data/tokenizers/utf8.h"

namespace retort::distill {
namespace {

using formats::Json;

constexpr double kExcess = 1e-3;   // of a sum of probabilities over 1: servers round logits
constexpr double kPadding = 1e-3;  // that ids without a token may hold

// One entry of a position.
struct Likely {
  int64_t id;
  double log_p;
};

// In errors: the position's place in the window and in the corpus, and the ids before it.
std::string where_of(const Prompt& prompt, int64_t position) {
  const int64_t first = std::max<int64_t>(0, position - 3);
  const std::span ids(prompt.ids.data() + first, static_cast<size_t>(position - first + 1));
  return fmt::format("window at token {}: position {} (token {}, after ids {}{})", prompt.place, position,
                     prompt.place + position, first > 0 ? "... " : "", fmt::join(ids, " "));
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const data::Utf8Part part = data::first_character(text);
    if (!part.valid) return false;
    text.remove_prefix(part.bytes);
  }
  return true;
}

// A server's text of an id against ours. `exact`: it is the token's bytes. Else it was decoded by itself: half a
// character is U+FFFD, and a leading space may be lost. Marks of control have no text that servers agree on.
void check_text(const data::Tokenizer& tokenizer, int64_t id, std::string_view text, bool exact,
                const std::string& where) {
  const auto token = static_cast<int32_t>(id);
  if (tokenizer.is_added(token)) return;
  std::string_view ours = tokenizer.token_bytes(token);
  if (ours == text) return;
  if (!exact) {
    if (text.empty() || text.find(data::kReplacement) != text.npos || !is_utf8(ours)) return;
    if (ours.starts_with(' ') && ours.substr(1) == text) return;
  }
  fail<DataError>("{}: id {} is {:?} to the server and {:?} in the text's tokenizer {}", where, id, text,
                  ours, tokenizer.name());
}

double log_probability(const Json& entry, int64_t id, const std::string& where) {
  const double out = formats::json_real(entry, "logprob", where);
  check<DataError>(std::isfinite(out) && out <= kExcess,
                   "{}: log-probabilities must be numbers up to 0, got {} for id {}", where, out, id);
  return out;
}

// Checks a position's ids, from the likeliest on, and writes them to the row.
void add_position(const std::vector<Likely>& likely, const Expectation& expected, const std::string& where,
                  TopK& out, int64_t row) {
  check<DataError>(std::ssize(likely) == expected.k, "{}: must have the {} likeliest ids, got {}", where,
                   expected.k, likely.size());
  const auto base = static_cast<size_t>(row * out.k);
  double mass = 0, padding = 0, last = 0;
  uint16_t count = 0;
  std::unordered_set<int64_t> seen;
  for (const Likely& one : likely) {
    check<DataError>(seen.empty() || one.log_p <= last,
                     "{}: ids must come from the likeliest on, got {} after {}", where, one.log_p, last);
    check<DataError>(one.id >= 0 && seen.insert(one.id).second, "{}: ids must be different, got {} twice",
                     where, one.id);
    last = one.log_p;
    const double p = std::exp(std::min(one.log_p, 0.0));
    mass += p;
    if (one.id >= expected.vocabulary) {  // a row that pads a head: the others hold its share
      padding += p;
      continue;
    }
    out.ids[base + count] = static_cast<uint32_t>(one.id);
    out.p[base + count++] = static_cast<float>(p);
  }
  check<DataError>(mass <= 1 + kExcess, "{}: probabilities must add up to at most 1, got {}", where, mass);
  check<DataError>(padding <= kPadding && count > 0,
                   "{}: ids must be below {}, the size of the text's tokenizer; those beyond hold {:.3g}",
                   where, expected.vocabulary, padding);
  out.count[static_cast<size_t>(row)] = count;
  out.rest[static_cast<size_t>(row)] = std::max(0.0, 1 - (mass - padding));
}

const Json& member(const Json& object, const char* key, const std::string& where) {
  check<DataError>(object.is_object() && object.contains(key), "{}: the answer has no \"{}\"", where, key);
  return object.at(key);
}

const Json& first_of(const Json& object, const char* key, const std::string& where) {
  const Json& list = member(object, key, where);
  check<DataError>(list.is_array() && !list.empty(), "{}: \"{}\" of the answer must be a list, got {}", where,
                   key, list.is_array() ? "an empty one" : list.type_name());
  return list.front();
}

// The model of this name in the list of /v1/models, which both servers have.
Json model_in_list(const std::function<Json(const std::string&)>& get, const std::string& name) {
  const std::string path = "/v1/models";
  const Json answer = get(path);
  std::vector<std::string> names;
  first_of(answer, "data", path);
  for (const Json& model : answer.at("data")) {
    names.push_back(formats::json_text(model, "id", path));
    if (names.back() == name) return model;
  }
  fail<ConfigError>("the server has no model {:?}; it has {}", name, fmt::join(names, ", "));
}

int64_t integer_or_zero(const Json& object, const char* key) {
  return object.is_object() && object.contains(key) && object.at(key).is_number_integer()
             ? object.at(key).get<int64_t>()
             : 0;
}

// Members in this order, those that are there.
std::string facts_of(const Json& object, std::initializer_list<const char*> keys) {
  std::string out;
  for (const char* key : keys)
    if (object.is_object() && object.contains(key))
      out += fmt::format(" {}={}", key, object.at(key).dump(-1, ' ', true, Json::error_handler_t::replace));
  return out;
}

size_t answer_limit(int64_t positions, int64_t k) {
  return (size_t{1} << 20) + static_cast<size_t>(positions * (k + 1)) * 1024;
}

HttpRequest post(const char* path, const Json& body, const Prompt& prompt, int64_t positions, int64_t k) {
  return {.path = path,
          .body = body.dump(),
          .about = fmt::format("window at token {}", prompt.place),
          .limit = answer_limit(positions, k)};
}

// --- vLLM: POST /v1/completions with "prompt" (ids) and "prompt_logprobs" answers all positions at once. Element i of
// choices[0].prompt_logprobs is null for i = 0, else {id: {logprob, rank, decoded_token}}, the distribution before id i of
// the prompt, with that id itself as one more entry. The token after the text is sent too, so that the last position has
// an element.

ServedModel describe_vllm(const std::function<Json(const std::string&)>& get, const std::string& name) {
  const Json model = model_in_list(get, name);
  return {.name = name,
          .facts = "vllm" + facts_of(model, {"id", "root", "parent"}),
          .reads = integer_or_zero(model, "max_model_len")};
}

HttpRequest request_vllm(const Prompt& prompt, int64_t, int64_t, const std::string& model,
                         const Expectation& expected) {
  std::vector<int64_t> ids = prompt.ids;
  ids.push_back(prompt.next);
  const Json body = {{"model", model},
                     {"prompt", ids},
                     {"max_tokens", 1},
                     {"temperature", 0.0},
                     {"prompt_logprobs", expected.k},
                     {"add_special_tokens", false}};
  return post("/v1/completions", body, prompt, std::ssize(ids), expected.k);
}

// The entries of an element by rank: those up to k, and that of the prompt's own id, which must be there.
std::vector<Likely> ranked(const Json& element, int64_t sent, const Expectation& expected,
                           const std::string& where) {
  check<DataError>(element.is_object(), "{}: must be an object of ids, got {}", where, element.type_name());
  std::vector<std::pair<int64_t, Likely>> by_rank;
  bool has_sent = false;
  for (const auto& [key, entry] : element.items()) {
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    check<DataError>(error == std::errc() && end == key.data() + key.size() && id >= 0,
                     "{}: ids must be numbers, got {:?}", where, key);
    has_sent = has_sent || id == sent;
    const double log_p = log_probability(entry, id, where);
    const int64_t rank = formats::json_integer(entry, "rank", where);
    if (id < expected.vocabulary && entry.contains("decoded_token") && entry.at("decoded_token").is_string())
      check_text(expected.tokenizer, id, entry.at("decoded_token").get_ref<const std::string&>(), false,
                 where);
    if (rank <= expected.k) by_rank.push_back({rank, {id, log_p}});
  }
  check<DataError>(has_sent, "{}: the server read another id after it than {}, which was sent", where, sent);
  std::sort(by_rank.begin(), by_rank.end(), [](auto& a, auto& b) { return a.first < b.first; });
  std::vector<Likely> out;
  for (const auto& [rank, one] : by_rank) {
    check<DataError>(rank == std::ssize(out) + 1, "{}: ranks must be 1, 2, ..., got {} for id {}", where,
                     rank, one.id);
    out.push_back(one);
  }
  return out;
}

int64_t read_vllm(const Json& answer, const Prompt& prompt, int64_t from, const Expectation& expected,
                  TopK& out, int64_t row) {
  const int64_t positions = std::ssize(prompt.ids);
  const std::string window = fmt::format("window at token {}", prompt.place);
  const Json& list = member(first_of(answer, "choices", window), "prompt_logprobs", window);
  check<DataError>(list.is_array() && std::ssize(list) == positions + 1 && list.front().is_null(),
                   "{}: \"prompt_logprobs\" must be null and {} positions, got {} {}", window, positions,
                   list.type_name(), list.is_array() ? fmt::format("of {}", list.size()) : "");
  for (int64_t i = from; i < positions; ++i) {
    const std::string where = where_of(prompt, i);
    const int64_t sent = i + 1 < positions ? prompt.ids[static_cast<size_t>(i + 1)] : prompt.next;
    add_position(ranked(list[static_cast<size_t>(i + 1)], sent, expected, where), expected, where, out,
                 row + i - from);
  }
  return positions - from;
}

// --- llama.cpp: POST /completion with "prompt" (ids) and "n_probs" answers one position, that after the prompt:
// completion_probabilities[0].top_logprobs, a list of {id, logprob, bytes}, before biases and samplers. A token is drawn all
// the same, and one that is half a character is answered without them: a bias makes it a printable one. The server keeps
// what a slot has read, so that a prompt which is one token longer costs one token.

ServedModel describe_llamacpp(const std::function<Json(const std::string&)>& get, const std::string& name) {
  const Json model = model_in_list(get, name), props = get("/props");
  const Json none = Json::object();
  const Json& meta = model.contains("meta") ? model.at("meta") : none;
  const char* const settings = "default_generation_settings";
  return {.name = name,
          .facts = "llama.cpp" + facts_of(model, {"id"}) +
                   facts_of(meta, {"vocab_type", "n_vocab", "n_embd", "n_params", "size", "ftype"}),
          .reads = props.is_object() && props.contains(settings)
                       ? integer_or_zero(props.at(settings), "n_ctx")
                       : 0,
          .slots = integer_or_zero(props, "total_slots")};
}

// A token of printable characters; 0 where there is none.
int64_t printable(const data::Tokenizer& tokenizer) {
  for (int32_t id = 0; id < tokenizer.vocabulary(); ++id) {
    const std::string_view text = tokenizer.token_bytes(id);
    const auto prints = [](char c) { return c > ' ' && c <= '~'; };
    if (!tokenizer.is_added(id) && !text.empty() && std::all_of(text.begin(), text.end(), prints)) return id;
  }
  return 0;
}

HttpRequest request_llamacpp(const Prompt& prompt, int64_t from, int64_t slot, const std::string& model,
                             const Expectation& expected) {
  const std::vector<int64_t> ids(prompt.ids.begin(), prompt.ids.begin() + from + 1);
  const Json bias = Json::array({Json::array({printable(expected.tokenizer), 1e6})});
  const Json body = {{"model", model},
                     {"prompt", ids},
                     {"n_predict", 1},
                     {"n_probs", expected.k},
                     {"post_sampling_probs", false},
                     {"temperature", 0.0},
                     {"samplers", Json::array()},
                     {"logit_bias", bias},
                     {"cache_prompt", true},
                     {"id_slot", slot},
                     {"response_fields", {"completion_probabilities", "tokens_evaluated", "truncated"}}};
  return post("/completion", body, prompt, 1, expected.k);
}

std::string bytes_of(const Json& entry, const std::string& where) {
  std::string out;
  const Json& list = member(entry, "bytes", where);
  check<DataError>(list.is_array(), "{}: \"bytes\" must be a list, got {}", where, list.type_name());
  for (const Json& byte : list) {
    check<DataError>(byte.is_number_integer() && byte.get<int64_t>() >= 0 && byte.get<int64_t>() < 256,
                     "{}: bytes must be numbers below 256", where);
    out += static_cast<char>(byte.get<int64_t>());
  }
  return out;
}

int64_t read_llamacpp(const Json& answer, const Prompt& prompt, int64_t from, const Expectation& expected,
                      TopK& out, int64_t row) {
  const std::string where = where_of(prompt, from);
  const int64_t evaluated = formats::json_integer(answer, "tokens_evaluated", where);
  check<DataError>(evaluated == from + 1, "{}: the server read {} tokens, not the {} that were sent", where,
                   evaluated, from + 1);
  const Json& truncated = member(answer, "truncated", where);
  check<DataError>(truncated.is_boolean() && !truncated.get<bool>(), "{}: the server has cut the text off",
                   where);
  const Json& list = member(first_of(answer, "completion_probabilities", where), "top_logprobs", where);
  check<DataError>(list.is_array(), "{}: \"top_logprobs\" must be a list, got {}", where, list.type_name());
  std::vector<Likely> likely;
  for (const Json& entry : list) {
    const int64_t id = formats::json_integer(entry, "id", where);
    likely.push_back({id, log_probability(entry, id, where)});
    if (id >= 0 && id < expected.vocabulary)
      check_text(expected.tokenizer, id, bytes_of(entry, where), true, where);
  }
  add_position(likely, expected, where, out, row);
  return 1;
}

}  // namespace

TopK::TopK(int64_t positions, int64_t k)
    : k(k),
      ids(static_cast<size_t>(positions * k)),
      p(static_cast<size_t>(positions * k)),
      count(static_cast<size_t>(positions)),
      rest(static_cast<size_t>(positions)) {}

const Registry<CompletionApi>& completion_apis() {
  static const Registry<CompletionApi> table(
      "kind of server", {{"vllm", describe_vllm, 2, request_vllm, read_vllm},
                         {"llama.cpp", describe_llamacpp, 1, request_llamacpp, read_llamacpp}});
  return table;
}

}  // namespace retort::distill
