#include "quantize/scheme.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "quantize/hf_packing.h"
#include "quantize/post_training.h"

namespace retort::quantize {

TEST(Scheme, EveryRowNamesAMethodAndGridsThatThereAre) {
  const std::vector<std::string> methods = method_names();
  for (const Scheme& scheme : schemes()) {
    EXPECT_NE(std::find(methods.begin(), methods.end(), scheme.method), methods.end()) << scheme.name;
    EXPECT_TRUE(scheme.name.starts_with(scheme.method + "-")) << scheme.name;
    const Grid& grid = grids().at(scheme.grid);
    EXPECT_TRUE(grid.ggml || layout_misfit("compressed-tensors", grid).empty()) << scheme.name;
    EXPECT_EQ(scheme.grids().weights.grid, scheme.grid);
    EXPECT_EQ(scheme.grids().head.grid, scheme.embedding);
  }
}

TEST(Scheme, AnUnknownNameGetsTheNearest) {
  try {
    schemes().at("gptq-q4-0");
    FAIL() << "found";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean \"gptq-q4_0\"?"), std::string::npos)
        << error.what();
  }
}

}  // namespace retort::quantize
