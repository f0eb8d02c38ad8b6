#include "artifacts/open_stored.h"

#include <gtest/gtest.h>

#include "tests/artifacts/tiny.h"
#include "tests/testing.h"

namespace retort::artifacts {
namespace {

void expect_same(const models::StoredModel& stored, const models::Model& set) {
  ASSERT_TRUE(stored.values);
  for (const models::Parameter& p : stored.model->parameters().unique()) {
    EXPECT_TRUE(p.master.is_meta()) << p.name;
    EXPECT_TRUE(testing::same_bits(models::f32_of(stored.values, p), set.parameters().at(p.name).master))
        << p.name;
  }
}

}  // namespace

// On its grid a base has the values that are opened, and its masters are what training goes on with.
TEST(OpenStored, ACheckpointHasItsMastersAndItsValues) {
  testing::TemporaryDirectory directory;
  save_tiny(*tiny_model(2), directory / "plain", 10, std::nullopt);
  save_tiny(*tiny_model(2), directory / "grid", 10, quantize::QuantizeOptions());
  Log log(stderr, "", true);
  for (const char* name : {"plain", "grid"}) {
    const OpenedModel set = open_model(directory / name, log);
    OpenedStored stored = open_stored(directory / name, log);
    EXPECT_EQ(stored.model.need_tokenizer().name(), "bytes");
    EXPECT_EQ(stored.model.quantize.has_value(), set.quantize.has_value());
    expect_same({std::move(stored.model.decoder), stored.values}, *set.decoder);
    expect_same(open_stored(directory / name, log).take_base(),
                *open_model(directory / name, log).take_base());
  }
}

TEST(OpenStored, ANewModelIsTheOneThatIsSet) {
  const models::DecoderSpec spec = tiny_model(1)->spec();
  OpenedStored stored = new_stored(spec, 5, "new");
  EXPECT_EQ(stored.model.source, "new");
  expect_same({std::move(stored.model.decoder), stored.values}, *new_model(spec, 5, "new").decoder);
}

}  // namespace retort::artifacts
