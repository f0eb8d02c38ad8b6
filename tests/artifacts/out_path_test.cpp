#include "artifacts/out_path.h"

#include <gmock/gmock.h>

#include <fstream>

#include "core/error.h"
#include "tests/testing.h"

namespace retort::artifacts {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(OutPath, IsTriedBeforeTheWork) {
  testing::TemporaryDirectory directory;
  const Path source = directory / "model.gguf", folder = directory / "folder";
  std::ofstream(source) << "weights";
  std::filesystem::create_directory(folder);
  probe_out("--out", directory / "new.gguf", true, source);
  probe_out("--out", directory / "new" / "deep", false, source);
  EXPECT_FALSE(std::filesystem::exists(directory / "new"));  // nothing is left behind
  EXPECT_THAT([&] { probe_out("--out", "", true, source); },
              ThrowsMessage<ConfigError>(HasSubstr("--out must name a file, got none")));
  EXPECT_THAT([&] { probe_out("--out", folder, true, source); },
              ThrowsMessage<ConfigError>(HasSubstr("must be a file, and is a directory")));
  EXPECT_THAT([&] { probe_out("--out", folder / ".." / "model.gguf", true, source); },
              ThrowsMessage<ConfigError>(HasSubstr("is a file that is read")));
  EXPECT_THAT([&] { probe_out("--out", folder, false, folder); },
              ThrowsMessage<ConfigError>(HasSubstr("is a file that is read")));
  EXPECT_THROW(probe_out("--out", directory / "nowhere" / "new.gguf", true, source), IoError);
}

}  // namespace retort::artifacts
