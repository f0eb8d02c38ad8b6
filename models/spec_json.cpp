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

// One walk over the fields serves writing and reading, so a key has one home.
template <class Scaling, class Visit>
void walk_scaling(Scaling& r, Visit& visit) {
  visit("kind", r.kind);
  visit("factor", r.factor);
  visit("low_freq_factor", r.low_freq_factor);
  visit("high_freq_factor", r.high_freq_factor);
  visit("original_context", r.original_context);
  visit("attention_factor", r.attention_factor);
  visit("short_factor", r.short_factor);
  visit("long_factor", r.long_factor);
}

template <class Spec, class Visit>
void walk(Spec& s, Visit& visit) {
  visit("family", s.family);
  visit("vocabulary", s.vocabulary);
  visit("context", s.context);
  visit("layers", s.layers);
  visit("width", s.width);
  visit("heads", s.heads);
  visit("kv_heads", s.kv_heads);
  visit("head_dim", s.head_dim);
  visit("ffn_width", s.ffn_width);
  visit("norm", s.norm);
  visit("norm_eps", s.norm_eps);
  visit("ffn", s.ffn);
  visit("positions", s.positions);
  visit("rope_theta", s.rope_theta);
  visit("rope_scaling", s.rope_scaling);
  visit("rope_local_theta", s.rope_local_theta);
  visit("window", s.window);
  visit("global_every", s.global_every);
  visit("query_scalar", s.query_scalar);
  visit("attention_bias", s.attention_bias);
  visit("qkv_bias", s.qkv_bias);
  visit("qk_norm", s.qk_norm);
  visit.since("sub_norms", s.sub_norms);
  visit("post_norms", s.post_norms);
  visit("ffn_bias", s.ffn_bias);
  visit("tie_embeddings", s.tie_embeddings);
  visit("scale_embeddings", s.scale_embeddings);
  visit("logit_softcap", s.logit_softcap);
  visit("share_ffn", s.share_ffn);
  visit("share_output", s.share_output);
  visit("keep_first", s.keep_first);
  visit("keep_last", s.keep_last);
  visit("lora_rank", s.lora_rank);
  visit("repeat", s.repeat);
  visit("patch", s.patch);
}

template <class Patch, class Visit>
void walk_patch(Patch& p, Visit& visit) {
  visit("width", p.width);
  visit("layers", p.layers);
  visit("heads", p.heads);
  visit("ffn_width", p.ffn_width);
  visit("window", p.window);
  visit("longest", p.longest);
  visit("parallel", p.parallel);
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
  void since(const char* key, bool& value) {
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
