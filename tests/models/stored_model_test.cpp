#include "models/stored_model.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "formats/safetensors.h"
#include "models/gguf_model.h"
#include "models/hf_folder.h"
#include "models/linear.h"
#include "models/stored_adapters.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

using testing::same_bits;

void expect_same(const StoredModel& stored, const Model& set) {
  EXPECT_EQ(stored.model->spec(), set.spec());
  EXPECT_EQ(stored.model->parameters().unique().size(), set.parameters().unique().size());
  for (const Parameter& p : stored.model->parameters().unique()) {
    EXPECT_TRUE(p.master.is_meta() || p.codes) << p.name;
    const Parameter& other = set.parameters().at(p.name);
    EXPECT_TRUE(same_bits(f32_of(stored.values, p), f32_of({}, other))) << p.name;
    EXPECT_EQ(p.borrowed, other.borrowed) << p.name;
  }
}

struct Folder {
  testing::TemporaryDirectory directory;
  std::unique_ptr<Decoder> model = testing::random_model(testing::tiny_llama());
  Path hf = directory / "hf", gguf = directory / "model.gguf";
  Folder() {
    IdentityMap identity;
    save_hf_folder(local_files(), hf, *model, identity, at::kFloat, {});
    const auto pack = [](const Parameter& p) { return formats::pack(formats::GgmlType::F16, p.master); };
    save_gguf(local_files(), gguf, *model, pack, {}, "tiny");
  }
};

AdapterOptions adapters(const std::string& base) {
  AdapterOptions out;
  out.rank = 3;
  out.dora = true;
  out.whole = {"lm_head"};
  out.base = base;
  return out;
}

}  // namespace

TEST(StoredModel, GivesWhatLoadersSet) {
  const Folder folder;
  expect_same(stored_hf_folder(folder.hf), *load_hf_folder(folder.hf));
  expect_same(stored_gguf(folder.gguf), *load_gguf(folder.gguf));
  expect_same(stored_hf_folder(folder.hf), *folder.model);
}

// Rows that are not asked for are not read.
TEST(StoredModel, ValuesOfAFolderAreViewsOfItsFile) {
  const Folder folder;
  const StoredModel stored = stored_hf_folder(folder.hf);
  const Parameter& p = stored.model->parameters().at("layers.1.ffn.up.weight");
  const at::Tensor once = stored.values(p), again = stored.values(p);
  EXPECT_EQ(once.const_data_ptr(), again.const_data_ptr());
}

// An alias that the file holds too is compared when its parameter is asked for.
TEST(StoredModel, AHeadThatDiffersIsRefusedWhenItIsRead) {
  DecoderSpec spec = testing::tiny_llama();
  spec.tie_embeddings = true;
  const auto model = testing::random_model(spec);
  const auto list = [](const DecoderSpec& s) {
    std::vector<ForeignTensor> out;
    const Decoder shape(s, at::kMeta);
    for (const Parameter& p : shape.parameters().unique()) out.push_back({p.name, p.name});
    out.push_back({"lm_head.weight", "lm_head.weight"});
    return out;
  };
  ForeignFile file{"store", {}, [&](const std::string& name) {
                     const at::Tensor values = model->parameters().at(name).master;
                     return name == "lm_head.weight" ? values + 1 : values;
                   }};
  for (const ForeignTensor& t : list(spec)) file.shapes[t.name] = model->parameters().at(t.parameter).shape;
  const StoredModel stored = stored_foreign(spec, list, file);
  stored.values(stored.model->parameters().at("layers.0.attn.q.weight"));
  EXPECT_THROW(stored.values(stored.model->parameters().at("embed.weight")), DataError);
}

TEST(StoredModel, AdaptersAreWhatTheyAreOverASetBase) {
  const Folder folder;
  for (const char* base : {"f32", "bf16", "nf4"}) {
    const auto set = adapt(load_hf_folder(folder.hf), adapters(base), 5);
    StoredModel stored = adapt(stored_hf_folder(folder.hf), adapters(base), 5);
    EXPECT_EQ(stored.model->parameters().at("layers.0.ffn.up.weight").codes != nullptr,
              base != std::string("f32"));
    expect_same(stored, *set);
    IdentityMap identity;
    const auto merged = merge_adapters(*set, identity);
    expect_same(merge_adapters(std::move(stored), std::make_shared<IdentityMap>()), *merged);
  }
}

TEST(StoredModel, HasTheDigestOfASetOne) {
  const Folder folder;
  const StoredModel stored = stored_hf_folder(folder.hf);
  EXPECT_EQ(weights_digest(stored.model->parameters(), stored.values),
            weights_digest(folder.model->parameters()));
}

}  // namespace retort::models
