#include "models/foreign.h"

#include <gmock/gmock.h>

#include <set>

#include "core/error.h"
#include "models/family.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

// The model's tensors in HF's form, in memory.
struct Store {
  explicit Store(const Decoder& model) {
    for (const ForeignTensor& t : tensors_of(model.spec())) {
      const at::Tensor value = model.parameters().at(t.parameter).master;
      values[t.name] = values.contains(t.name) ? at::cat({values[t.name], value}) : value;
      if (t.transposed) transposed.insert(t.name);
    }
    for (const std::string& name : transposed) values[name] = values[name].t();
  }
  static std::vector<ForeignTensor> tensors_of(const DecoderSpec& spec) {
    return families().at(spec.family).hf_tensors(spec);
  }
  std::unique_ptr<Decoder> load(const DecoderSpec& spec) const {
    ForeignFile file{"store", {}, [this](const std::string& name) { return values.at(name); }};
    for (const auto& [name, value] : values) file.shapes[name] = value.sizes().vec();
    return load_foreign(spec, tensors_of, file);
  }
  std::map<std::string, at::Tensor> values;
  std::set<std::string> transposed;
};

std::string message_of(const Store& store, const DecoderSpec& spec) {
  try {
    store.load(spec);
  } catch (const DataError& e) {
    return e.what();
  }
  return "loaded";
}

TEST(Foreign, FusedTransposedAndPlainTensorsComeBack) {
  for (const DecoderSpec& spec : {testing::tiny_llama(), testing::tiny_gpt2()}) {
    const auto model = testing::random_model(spec);
    const auto loaded = Store(*model).load(spec);
    for (const Parameter& p : model->parameters().unique())
      EXPECT_TRUE(testing::same_bits(p.master, loaded->parameters().at(p.name).master)) << p.name;
  }
}

TEST(Foreign, NamesWhatIsMissingExtraOrMisshapen) {
  const DecoderSpec spec = testing::tiny_llama();
  const Store good(*testing::random_model(spec));
  Store missing = good, extra = good, renamed = good, misshapen = good, integers = good;
  missing.values.erase("model.layers.1.mlp.up_proj.weight");
  EXPECT_THAT(message_of(missing, spec),
              ::testing::HasSubstr("lacks 1 of its 21 tensors: model.layers.1.mlp.up_proj"));
  extra.values["model.layers.2.mlp.up_proj.weight"] = at::zeros({48, 32});
  EXPECT_THAT(message_of(extra, spec), ::testing::HasSubstr("does not have: model.layers.2.mlp.up_proj"));
  renamed.values.erase("model.norm.weight");
  renamed.values["model.norms.weight"] = at::zeros({32});
  EXPECT_THAT(message_of(renamed, spec), ::testing::HasSubstr("did you mean \"model.norms.weight\""));
  misshapen.values["model.norm.weight"] = at::zeros({33});
  EXPECT_THAT(message_of(misshapen, spec),
              ::testing::HasSubstr("model.norm.weight must have shape [32], got [33]"));
  integers.values["model.norm.weight"] = at::zeros({32}, at::kInt);
  EXPECT_THAT(message_of(integers, spec), ::testing::HasSubstr("floating point"));
  DecoderSpec impossible = spec;
  impossible.layers = int64_t{1} << 60;  // refused before anything of that size is made
  EXPECT_THAT(message_of(good, impossible), ::testing::HasSubstr("model.layers must lie in"));
}

TEST(Foreign, ATiedHeadMayBeAbsentOrEqual) {
  DecoderSpec spec = testing::tiny_llama();
  spec.tie_embeddings = true;
  Store store(*testing::random_model(spec));
  EXPECT_EQ(message_of(store, spec), "loaded");  // present and equal
  store.values["lm_head.weight"] = store.values["lm_head.weight"] + 1e-3;
  EXPECT_THAT(message_of(store, spec), ::testing::HasSubstr("lm_head.weight differs"));
  store.values.erase("lm_head.weight");
  EXPECT_EQ(message_of(store, spec), "loaded");
  spec.tie_embeddings = false;
  EXPECT_THAT(message_of(store, spec), ::testing::HasSubstr("lm_head.weight"));
}

TEST(Foreign, HalfPrecisionIsWidened) {
  const DecoderSpec spec = testing::tiny_llama();
  const auto model = testing::random_model(spec);
  for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
    Store store(*model);
    for (auto& [name, value] : store.values) value = value.to(dtype);
    const auto loaded = store.load(spec);
    for (const Parameter& p : model->parameters().unique())
      EXPECT_TRUE(
          testing::same_bits(p.master.to(dtype).to(at::kFloat), loaded->parameters().at(p.name).master));
  }
}

TEST(Foreign, InterleavedOrderPairsTheHalves) {
  // two heads of six rows: (0,3) (1,4) (2,5) of each side by side
  EXPECT_TRUE(
      at::equal(interleaved_order(12, 2), at::tensor({0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11}, at::kLong)));
}

}  // namespace
}  // namespace retort::models
