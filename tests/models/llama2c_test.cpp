// stories260K in its three forms: llama2.c's own file, a Hugging Face folder and GGUF give one text, the
// published one.
#include "models/llama2c.h"

#include <cstring>

#include "core/error.h"
#include "formats/json.h"
#include "models/gguf_model.h"
#include "models/hf_folder.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

Path stories() { return testing::test_data() / "models" / "stories260K"; }

// tok512.bin: i32 longest, then a token: f32 score, i32 length, bytes. Decoding drops the space after BOS.
std::string decode(const std::vector<int64_t>& ids) {
  const std::string file = read_text(stories() / "tok512.bin");
  std::vector<std::string> pieces;
  for (size_t at = 4; at + 8 <= file.size();) {
    int32_t length;
    std::memcpy(&length, &file[at + 4], 4);
    pieces.push_back(file.substr(at + 8, static_cast<size_t>(length)));
    at += 8 + static_cast<size_t>(length);
  }
  std::string text;
  for (size_t i = 1; i < ids.size(); ++i) {
    std::string piece = pieces.at(static_cast<size_t>(ids[i]));
    if (piece.size() == 6 && piece.starts_with("<0x"))
      piece = static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16));
    text += i == 1 && piece.starts_with(" ") ? piece.substr(1) : piece;
  }
  return text;
}

// The greedy sample on the model's own page.
std::string published() {
  const std::string page = read_text(stories() / "stories260K.md");
  const size_t begin = page.find("Once upon a time");
  return page.substr(begin, page.find("\n```", begin) - begin);
}

class Stories : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { RETORT_NEEDS_TEST_DATA(); }
  static std::unique_ptr<Decoder> load(const std::string& form) {
    const Path path = stories() / form;
    if (path.extension() == ".bin") return load_llama2c(path);
    return path.extension() == ".gguf" ? load_gguf(path) : load_hf_folder(path);
  }
};

TEST_P(Stories, TellsThePublishedStory) {
  const auto model = load(GetParam());
  const formats::Json expected = formats::read_json(stories() / "hf" / "expected.json");
  const auto prompt = expected["prompt_ids"].get<std::vector<int64_t>>();
  const at::Tensor last = testing::logits(*model, {at::tensor(prompt).unsqueeze(0), {}, {}})[0][-1];
  const auto theirs = at::tensor(expected["last_logits"].get<std::vector<double>>());
  const bool quantized = GetParam().find("q8_0") != std::string::npos;
  EXPECT_LT(testing::relative_error(last, theirs), quantized ? 5e-2 : 1e-4);
  if (quantized) return;  // another model, by its rounding
  // llama2.c generates 256 tokens after BOS; the GGUF says context 128
  const std::vector<int64_t> ids =
      testing::continue_greedily(*model, {1}, std::min<int64_t>(model->context() - 1, 256));
  const auto greedy = expected["greedy_ids_from_bos"].get<std::vector<int64_t>>();
  EXPECT_EQ(std::vector<int64_t>(ids.begin(), ids.begin() + std::ssize(greedy)), greedy);
  const std::string text = decode(ids);
  EXPECT_EQ(text, model->context() > 256 ? published() : published().substr(0, text.size()));
}

INSTANTIATE_TEST_SUITE_P(Forms, Stories,
                         ::testing::Values("stories260K.bin", "hf", "stories260K-f32.gguf",
                                           "stories260K-q8_0.gguf"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

TEST(Llama2c, AgreesWithTheHuggingFaceFormBitForBit) {
  RETORT_NEEDS_TEST_DATA();
  const auto ours = load_llama2c(stories() / "stories260K.bin"), theirs = load_hf_folder(stories() / "hf");
  for (const Parameter& p : ours->parameters().unique())
    EXPECT_TRUE(testing::same_bits(p.master, theirs->parameters().at(p.name).master)) << p.name;
}

TEST(Llama2c, RefusesAFileOfAnotherSize) {
  const testing::TemporaryDirectory directory;
  const auto write = [&](std::vector<int32_t> header, size_t values) {
    header.resize(7 + values);
    const auto* bytes = reinterpret_cast<const char*>(header.data());
    write_durably(local_files(), directory / "m.bin", std::string_view(bytes, header.size() * 4));
    return directory / "m.bin";
  };
  // dim 4, hidden 6, 1 layer, 2 heads, 1 kv head, vocabulary 5, sequence 3
  const size_t values = 5 * 4 + 4 + 4 * 4 + 2 * 2 * 4 + 4 * 4 + 4 + 3 * 6 * 4 + 4 + 3 * 2;
  EXPECT_NO_THROW(load_llama2c(write({4, 6, 1, 2, 1, 5, 3}, values)));
  EXPECT_NO_THROW(load_llama2c(write({4, 6, 1, 2, 1, -5, 3}, values + 5 * 4)));  // own classifier
  EXPECT_THROW(load_llama2c(write({4, 6, 1, 2, 1, 5, 3}, values - 1)), DataError);
  EXPECT_THROW(load_llama2c(write({4, 6, 1, 2, 1, 5, 3}, values + 1)), DataError);
  EXPECT_THROW(load_llama2c(write({4, 6, 1 << 30, 2, 1, 5, 3}, values)), DataError);
  EXPECT_THROW(load_llama2c(write({4, 6, 1, 0, 1, 5, 3}, values)), DataError);
  EXPECT_THROW(load_llama2c(write({4, 6, 1, 3, 1, 5, 3}, values)), DataError);  // 4 / 3
}

}  // namespace
}  // namespace retort::models
