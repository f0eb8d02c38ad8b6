#include "models/spec_json.h"

#include <set>

#include "core/error.h"
#include "core/registry.h"

namespace retort::models {
namespace {

using formats::Json;

template <class Choice>
struct Word {
  std::string name;
  Choice choice;
};

template <class Choice>
const Registry<Word<Choice>>& words();

template <>
const Registry<Word<NormKind>>& words() {
  static const Registry<Word<NormKind>> table(
      "model.norm",
      {{"rms", NormKind::kRms}, {"layer", NormKind::kLayer}, {"rms_unit_offset", NormKind::kRmsUnitOffset}});
  return table;
}

template <>
const Registry<Word<FfnKind>>& words() {
  static const Registry<Word<FfnKind>> table("model.ffn", {{"swiglu", FfnKind::kSwiglu},
                                                           {"gelu", FfnKind::kGelu},
                                                           {"geglu", FfnKind::kGeglu},
                                                           {"relu2glu", FfnKind::kRelu2glu}});
  return table;
}

template <>
const Registry<Word<PositionKind>>& words() {
  static const Registry<Word<PositionKind>> table(
      "model.positions", {{"rope", PositionKind::kRope}, {"learned", PositionKind::kLearned}});
  return table;
}

// One walk over the fields serves writing and reading, so a key has one home. The bindings name every field in
// the order of its declaration, so that one more does not compile until it is visited too.
template <class Scaling, class Visit>
void walk_scaling(Scaling& r, Visit& visit) {
  auto& [kind, factor, low_freq_factor, high_freq_factor, original_context, attention_factor, short_factor,
         long_factor] = r;
  visit("kind", kind);
  visit("factor", factor);
  visit("low_freq_factor", low_freq_factor);
  visit("high_freq_factor", high_freq_factor);
  visit("original_context", original_context);
  visit("attention_factor", attention_factor);
  visit("short_factor", short_factor);
  visit("long_factor", long_factor);
}

template <class Spec, class Visit>
void walk(Spec& s, Visit& visit) {
  auto& [family, vocabulary, tokens, context, layers, width, heads, kv_heads, head_dim, ffn_width, norm,
         norm_eps, ffn, positions, rope_theta, rope_scaling, rope_local_theta, window, global_every,
         query_scalar, attention_bias, qkv_bias, qk_norm, sub_norms, post_norms, ffn_bias, tie_embeddings,
         scale_embeddings, logit_softcap, share_ffn, share_output, keep_first, keep_last, lora_rank, repeat,
         patch] = s;
  visit("family", family);
  visit("vocabulary", vocabulary);
  visit.since("tokens", tokens);
  visit("context", context);
  visit("layers", layers);
  visit("width", width);
  visit("heads", heads);
  visit("kv_heads", kv_heads);
  visit("head_dim", head_dim);
  visit("ffn_width", ffn_width);
  visit("norm", norm);
  visit("norm_eps", norm_eps);
  visit("ffn", ffn);
  visit("positions", positions);
  visit("rope_theta", rope_theta);
  visit("rope_scaling", rope_scaling);
  visit("rope_local_theta", rope_local_theta);
  visit("window", window);
  visit("global_every", global_every);
  visit("query_scalar", query_scalar);
  visit("attention_bias", attention_bias);
  visit("qkv_bias", qkv_bias);
  visit("qk_norm", qk_norm);
  visit.since("sub_norms", sub_norms);
  visit("post_norms", post_norms);
  visit("ffn_bias", ffn_bias);
  visit("tie_embeddings", tie_embeddings);
  visit("scale_embeddings", scale_embeddings);
  visit("logit_softcap", logit_softcap);
  visit("share_ffn", share_ffn);
  visit("share_output", share_output);
  visit("keep_first", keep_first);
  visit("keep_last", keep_last);
  visit("lora_rank", lora_rank);
  visit("repeat", repeat);
  visit("patch", patch);
}

template <class Patch, class Visit>
void walk_patch(Patch& p, Visit& visit) {
  auto& [width, layers, heads, ffn_width, window, longest, parallel] = p;
  visit("width", width);
  visit("layers", layers);
  visit("heads", heads);
  visit("ffn_width", ffn_width);
  visit("window", window);
  visit("longest", longest);
  visit("parallel", parallel);
}

struct Writer {
  Json out = Json::object();

  void operator()(const char* key, const kernels::RopeScaling& value) {
    Writer inner;
    walk_scaling(value, inner);
    out[key] = std::move(inner.out);
  }
  void operator()(const char* key, const std::optional<PatchSpec>& value) {
    if (!value) return;
    Writer inner;
    walk_patch(*value, inner);
    out[key] = std::move(inner.out);
  }
  template <class T>
  void operator()(const char* key, const T& value) {
    if constexpr (std::is_enum_v<T>)
      out[key] = to_word(value);
    else
      out[key] = value;
  }
  void since(const char* key, bool value) { out[key] = value; }
  void since(const char* key, int64_t value) {  // 0: as if it were not there
    if (value != 0) out[key] = value;
  }
};

struct Reader {
  const Json& in;
  const std::string& source;
  std::set<std::string> known = {};

  const Json& member(const char* key) {
    known.insert(key);
    check<DataError>(in.is_object() && in.contains(key), "{}: lacks the key {}", source, key);
    return in.at(key);
  }
  void operator()(const char* key, std::string& value) {
    member(key), value = formats::json_text(in, key, source);
  }
  void operator()(const char* key, int64_t& value) {
    member(key), value = formats::json_integer(in, key, source);
  }
  void operator()(const char* key, double& value) {
    member(key), value = formats::json_real(in, key, source);
  }
  void operator()(const char* key, bool& value) {
    const Json& found = member(key);
    check<DataError>(found.is_boolean(), "{}: {} must be true or false, got {}", source, key, found.dump());
    value = found.get<bool>();
  }
  // A key that older checkpoints lack: the default.
  template <class T>
  void since(const char* key, T& value) {
    known.insert(key);
    if (in.is_object() && in.contains(key)) (*this)(key, value);
  }
  void operator()(const char* key, std::vector<double>& value) {
    member(key), value = formats::json_reals(in, key, source);
  }
  void operator()(const char* key, kernels::RopeScaling& value) {
    Reader inner{member(key), source};
    walk_scaling(value, inner);
    inner.refuse_unknown();
  }
  void operator()(const char* key, std::optional<PatchSpec>& value) {
    known.insert(key);
    if (!in.is_object() || !in.contains(key)) return;
    Reader inner{in.at(key), source};
    walk_patch(value.emplace(), inner);
    inner.refuse_unknown();
  }
  template <class T>
  requires std::is_enum_v<T>
  void operator()(const char* key, T& value) {
    std::string word;
    (*this)(key, word);
    try {
      value = from_word<T>(word);
    } catch (const ConfigError& e) {
      fail<DataError>("{}: {}", source, e.what());
    }
  }
  void refuse_unknown() const {
    const std::vector<std::string> names(known.begin(), known.end());
    for (const auto& [key, value] : in.items())
      check<DataError>(known.contains(key), "{}: unknown key {}{}", source, key, did_you_mean(key, names));
  }
};

}  // namespace

template <class Choice>
std::vector<std::string> choice_words() {
  return words<Choice>().names();
}

template <class Choice>
std::string to_word(Choice choice) {
  for (const Word<Choice>& word : words<Choice>())
    if (word.choice == choice) return word.name;
  fail<InternalError>("[spec] no word for choice {}", static_cast<int>(choice));
}

template <class Choice>
Choice from_word(std::string_view word) {
  return words<Choice>().at(word).choice;
}

template std::vector<std::string> choice_words<NormKind>();
template std::vector<std::string> choice_words<FfnKind>();
template std::vector<std::string> choice_words<PositionKind>();
template std::string to_word(NormKind);
template std::string to_word(FfnKind);
template std::string to_word(PositionKind);
template NormKind from_word(std::string_view);
template FfnKind from_word(std::string_view);
template PositionKind from_word(std::string_view);

Json to_json(const DecoderSpec& spec) {
  Writer writer;
  walk(spec, writer);
  return std::move(writer.out);
}

DecoderSpec from_json(const Json& json, const std::string& source) {
  DecoderSpec spec;
  Reader reader{json, source};
  walk(spec, reader);
  reader.refuse_unknown();
  return spec;
}

}  // namespace retort::models
