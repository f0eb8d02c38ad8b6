#include "formats/gguf.h"

#include "core/random.h"
#include "formats/safetensors.h"
#include "tests/formats/byte_image.h"

namespace retort::formats {
namespace {

using testing::ByteImage;
using testing::expect_refused;
using testing::put_file;
using testing::same_bits;
using testing::TemporaryDirectory;

// Header with counts; the rest is appended.
ByteImage header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
  ByteImage image;
  return image.raw("GGUF").number(version).number(tensors).number(keys);
}
void put_tensor(ByteImage& image, std::string_view name, std::vector<int64_t> ne, int32_t type,
                uint64_t offset) {
  image.string(name).number<uint32_t>(static_cast<uint32_t>(ne.size()));
  for (const int64_t size : ne) image.number(size);
  image.number(type).number(offset);
}

class Gguf : public ::testing::Test {
 protected:
  GgufFile open(const std::string& bytes) {
    put_file(path(), bytes);
    return GgufFile(path());
  }
  void refused(const std::string& rule, const std::string& bytes) {
    expect_refused<DataError>(rule, [&] { open(bytes); }, {path().string(), rule});
  }
  Path path() const { return directory_ / "a.gguf"; }
  TemporaryDirectory directory_;
};

TEST_F(Gguf, ReadsAnImageWrittenByHand) {
  ByteImage image = header(2, 5);
  image.string("general.architecture").number(8).string("llama");
  image.string("a.u8").number(0).number<uint8_t>(200);
  image.string("a.i16s").number(9).number(3).number<uint64_t>(2).number<int16_t>(-3).number<int16_t>(4);
  image.string("a.u64").number(10).number<uint64_t>(UINT64_MAX);
  image.string("a.flags").number(9).number(7).number<uint64_t>(2).raw(std::string("\x01\x00", 2));
  put_tensor(image, "m", {3, 2}, 0, 0);  // ne is the shape reversed: [2, 3]
  put_tensor(image, "q", {32}, 8, 32);
  image.pad(32);
  for (int i = 0; i < 6; ++i) image.number(static_cast<float>(i));
  image.pad(32).raw(std::string("\x00\x40", 2)).raw(std::string(32, '\xff')).pad(32);

  const GgufFile file = open(image.bytes());
  EXPECT_EQ(file.text("general.architecture"), "llama");
  EXPECT_EQ(file.integer("a.u8"), 200);
  EXPECT_EQ(std::get<std::vector<int32_t>>(*file.find("a.i16s")), (std::vector<int32_t>{-3, 4}));
  EXPECT_EQ(std::get<std::vector<bool>>(*file.find("a.flags")), (std::vector<bool>{true, false}));
  EXPECT_EQ(file.find("none"), nullptr);
  EXPECT_EQ(file.integer("none", 7), 7);
  EXPECT_EQ(file.real("none", 0.5), 0.5);
  EXPECT_EQ(file.text("none", "x"), "x");
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_TRUE(same_bits(file.values("m"), at::arange(6, at::kFloat).view({2, 3})));
  EXPECT_TRUE(same_bits(file.values("q"), at::full({32}, -2.0f)));
  expect_refused<DataError>("key", [&] { file.integer("a.u9"); },
                            {"has no key \"a.u9\"", "did you mean \"a.u8\""});
  expect_refused<DataError>("kind", [&] { file.integer("general.architecture"); },
                            {"must be an integer", "got text"});
  expect_refused<DataError>("wide", [&] { file.integer("a.u64"); },
                            {"must be an integer of 64 bits, got u64"});
  expect_refused<DataError>("real", [&] { file.real("a.u8"); }, {"must be a real number, got u32"});
  expect_refused<DataError>("text", [&] { file.text("a.u8"); }, {"must be text, got u32"});
  expect_refused<DataError>("tensor", [&] { file.values("n"); }, {"has no tensor \"n\""});
}

GgufMetadata every_kind() {
  return {{"general.architecture", std::string("llama")},
          {"u32", uint32_t{UINT32_MAX}},
          {"i32", int32_t{-5}},
          {"u64", uint64_t{UINT64_MAX}},
          {"i64", int64_t{INT64_MIN}},
          {"f32", 1e-5f},
          {"f64", 0.1},
          {"yes", true},
          {"empty", std::string()},
          {"i64s", std::vector<int64_t>{1, INT64_MIN}},
          {"i32s", std::vector<int32_t>{1, -1}},
          {"f32s", std::vector<float>{0.5f, -0.0f}},
          {"f64s", std::vector<double>{0.1}},
          {"bools", std::vector<bool>{true, false, true}},
          {"texts", std::vector<std::string>{"", "a b", std::string("\0\n", 2)}},
          {"none", std::vector<std::string>{}}};
}

std::vector<std::pair<std::string, PackedTensor>> some_tensors() {
  at::Tensor x = at::empty({6, 64});
  Random(3, "gguf_test").fill_normal(x, 1.0);
  return {{"a", pack(GgmlType::F32, x.view({2, 3, 1, 64}))},
          {"b", pack(GgmlType::Q4_0, x)},
          {"c", pack(GgmlType::Q8_0, x)},
          {"d", pack(GgmlType::BF16, x.slice(1, 0, 5))},
          {"e", pack(GgmlType::F16, x.view({-1}))},
          {"f", pack(GgmlType::F32, at::scalar_tensor(2.0f))},
          {"g", pack(GgmlType::F32, at::empty({0, 4}))},
          {"h", pack(GgmlType::F32, at::ones({1}))}};
}

TEST_F(Gguf, RoundTripIsBitForBit) {
  for (const uint32_t alignment : {0u, 8u, 256u}) {
    GgufMetadata metadata = every_kind();
    if (alignment != 0) metadata.emplace_back("general.alignment", alignment);
    const auto tensors = some_tensors();
    write_gguf(local_files(), path(), metadata, tensors);
    const GgufFile file(path());
    EXPECT_TRUE(file.metadata() == metadata);
    ASSERT_EQ(file.tensors().size(), tensors.size());
    std::vector<std::pair<std::string, PackedTensor>> back;
    for (const GgufTensorInfo& info : file.tensors()) {
      const auto bytes = file.bytes(info);
      back.push_back({info.name, {info.type, info.shape, {bytes.begin(), bytes.end()}}});
      EXPECT_EQ(info.offset % (alignment == 0 ? 32 : alignment), 0u);
      EXPECT_TRUE(same_bits(file.values(info.name), unpack(back.back().second)));
    }
    for (size_t i = 0; i < tensors.size(); ++i) {
      EXPECT_EQ(back[i].first, tensors[i].first);
      EXPECT_EQ(back[i].second.shape, tensors[i].second.shape);
      EXPECT_TRUE(back[i].second.bytes == tensors[i].second.bytes);
    }
    write_gguf(local_files(), directory_ / "again", file.metadata(), back);
    EXPECT_TRUE(read_text(path()) == read_text(directory_ / "again"));
  }
}

TEST_F(Gguf, ListsTypesWhoseValuesItCannotRead) {
  ByteImage image = header(1, 0);
  put_tensor(image, "k", {256, 2}, 22, 0);  // IQ2_S, 82 bytes a block
  image.pad(32).raw(std::string(164, 'x')).pad(32);
  const GgufFile file = open(image.bytes());
  EXPECT_EQ(file.tensors()[0].bytes, 164u);
  EXPECT_EQ(ggml_type_info(file.tensors()[0].type).name, "iq2_s");
  EXPECT_EQ(file.bytes(file.tensors()[0]).size(), 164u);
  expect_refused<DataError>("values", [&] { file.values("k"); }, {"tensor \"k\" is of type iq2_s", "q4_0"});
}

TEST_F(Gguf, RefusesLyingHeaders) {
  refused("the file ends at byte 0", "");
  refused("must begin with \"GGUF\"", "GGML" + std::string(100, '\0'));
  refused("is big-endian",
          ByteImage().raw("GGUF").number<uint32_t>(0x03000000).raw(std::string(16, '\0')).bytes());
  refused("version 2 or 3, got 1", header(0, 0, 1).bytes());
  refused("version 2 or 3, got 4", header(0, 0, 4).bytes());
  refused("the tensor list claims", header(1, 0).bytes());
  refused("the tensor list claims", header(uint64_t{1} << 63, 0).bytes());
  refused("the metadata claims", header(0, UINT64_MAX).bytes());
  refused("the metadata claims", header(0, 2).raw(std::string(25, '\0')).bytes());
}

TEST_F(Gguf, RefusesLyingKeys) {
  const auto one = [](const ByteImage& rest) {
    return header(0, 1).raw(rest.bytes()).raw(std::string(16, '\0')).bytes();
  };
  const auto key = [](int32_t type) {
    ByteImage image;
    return image.string("k").number(type);
  };
  refused("bytes of text, but", one(ByteImage().number<uint64_t>(UINT64_MAX).raw("xxxxx")));
  refused("bytes of text, but", one(ByteImage().number<uint64_t>(1000).raw("xxxxx")));
  refused("key \"k\" at byte", one(key(8).number<uint64_t>(17)));
  refused("key \"k\" must have a value type of 0 to 12, got 13", one(key(13)));
  refused("got -1", one(key(-1)));
  refused("is a bool and must be 0 or 1, got 2", one(key(7).number<uint8_t>(2)));
  refused("key \"k\" claims 17 entries", one(key(9).number(0).number<uint64_t>(17)));
  refused("claims 9223372036854775807 entries", one(key(9).number(12).number<uint64_t>(INT64_MAX)));
  refused("claims 3 entries", one(key(9).number(8).number<uint64_t>(3)));
  refused("key \"k\" is an array of type 9", one(key(9).number(9).number<uint64_t>(1)));
  refused("does not fit in 63 bits", one(key(9).number(10).number<uint64_t>(1).number<uint64_t>(UINT64_MAX)));
  refused("key \"k\" must be there once",
          header(0, 2).raw(key(4).number(1).bytes()).raw(key(4).number(2).bytes()).bytes());
  for (const auto& value :
       {key(0), key(1), key(2), key(3), key(4), key(5), key(6), key(7), key(10), key(11), key(12)})
    refused("within key \"k\"", header(0, 1).raw(value.bytes()).bytes());
}

TEST_F(Gguf, RefusesLyingTensors) {
  const auto one = [](std::string_view name, std::vector<int64_t> ne, int32_t type, uint64_t offset,
                      size_t data) {
    ByteImage image = header(1, 0);
    put_tensor(image, name, std::move(ne), type, offset);
    return image.pad(32).raw(std::string(data, '\0')).bytes();
  };
  EXPECT_NO_THROW(open(one("t", {8}, 0, 0, 32)));
  EXPECT_NO_THROW(open(one(std::string(63, 'n'), {8}, 0, 0, 32)));
  refused("a name of at most 63 bytes", one(std::string(64, 'n'), {8}, 0, 0, 32));
  refused("tensor \"t\" must have at most 4 dimensions, got 5", one("t", {1, 1, 1, 1, 1}, 0, 0, 32));
  refused("type 99 is not known", one("t", {8}, 99, 0, 32));
  refused("type 4 is not known", one("t", {8}, 4, 0, 32));  // Q4_2, gone since 2023
  refused("type -1 is not known", one("t", {8}, -1, 0, 32));
  refused("must divide by its block of 32, got [33]", one("t", {33}, 8, 0, 64));
  refused("must fit in 63 bits", one("t", {-8}, 0, 0, 32));
  refused("must fit in 63 bits", one("t", {int64_t{1} << 32, int64_t{1} << 31}, 0, 0, 32));
  refused("must fit in 63 bits", one("t", {int64_t{1} << 62, 2, 2, 4}, 0, 0, 32));  // wraps to 0 in 64 bits
  refused("must lie at offset 0", one("t", {8}, 0, 32, 64));
  refused("needs 64 bytes at offset 0, but the data has 32", one("t", {16}, 0, 0, 32));
  EXPECT_NO_THROW(open(one("t", {9}, 0, 0, 36)));  // without its padding
  refused("needs 36 bytes at offset 0, but the data has 35", one("t", {9}, 0, 0, 35));
  refused("but the data has 0", one("t", {8}, 0, 0, 0));
  refused("needs 9223372036854775776 bytes", one("t", {(INT64_MAX - 31) / 4}, 0, 0, 32));
  ByteImage dimensions = header(1, 0);
  dimensions.string("t").number<uint32_t>(UINT32_MAX).raw(std::string(64, '\0'));
  refused("at most 4 dimensions, got 4294967295", dimensions.bytes());
}

TEST_F(Gguf, RefusesLyingLayouts) {
  const auto two = [](uint64_t second, std::string_view name = "u") {
    ByteImage image = header(2, 0);
    put_tensor(image, "t", {9}, 0, 0);  // 36 bytes, 64 with its padding
    put_tensor(image, name, {8}, 0, second);
    return image.pad(32).raw(std::string(256, '\0')).bytes();
  };
  EXPECT_NO_THROW(open(two(64)));
  refused("tensor \"u\" must lie at offset 64, right after the one before, got 32", two(32));
  refused("must lie at offset 64", two(96));
  refused("must lie at offset 64", two(0));
  refused("must lie at offset 64", two(UINT64_MAX));
  refused("tensor \"t\" must be there once", two(64, "t"));
  for (const uint32_t alignment : {0u, 3u, 48u, UINT32_MAX}) {
    ByteImage image = header(0, 1);
    image.string("general.alignment").number(4).number(alignment);
    refused("general.alignment must be a u32 power of two, got " + std::to_string(alignment), image.bytes());
  }
  ByteImage cut = header(2, 0);  // an empty tensor after a padding that is not there
  put_tensor(cut, "t", {9}, 0, 0);
  put_tensor(cut, "u", {0}, 0, 64);
  refused("needs 0 bytes at offset 64, but the data has 36", cut.pad(32).raw(std::string(36, '\0')).bytes());
  ByteImage text = header(0, 1);
  text.string("general.alignment").number(8).string("32");
  refused("general.alignment must be a u32 power of two, got text", text.bytes());
  ByteImage huge = header(1, 1);  // the data would begin beyond the file
  huge.string("general.alignment").number(4).number(uint32_t{1} << 31);
  put_tensor(huge, "t", {8}, 0, 0);
  refused("but the data has 0", huge.pad(64).raw(std::string(64, '\0')).bytes());
}

TEST_F(Gguf, EveryTruncationIsRefused) {
  write_gguf(local_files(), path(), every_kind(), some_tensors());
  const std::string whole = read_text(path());
  for (size_t size = 0; size < whole.size(); size += 64)
    expect_refused<DataError>(fmt::format("cut at {}", size), [&] { open(whole.substr(0, size)); },
                              {path().string()});
  const size_t padding = 28;  // after the last tensor, of one float
  EXPECT_NO_THROW(open(whole.substr(0, whole.size() - padding)));
  for (size_t back = padding + 1; back < 64; ++back)
    EXPECT_THROW(open(whole.substr(0, whole.size() - back)), DataError) << back;
}

// Any byte may lie: the answer is a file or a DataError, never another exception or a crash.
TEST_F(Gguf, NoFlippedByteEscapes) {
  write_gguf(local_files(), path(), every_kind(), some_tensors());
  const std::string whole = read_text(path());
  for (size_t at = 0; at < whole.size(); ++at)
    for (const char value : {'\xff', '\x7f', '\0'}) {
      std::string bytes = whole;
      bytes[at] = value;
      try {
        const GgufFile file = open(bytes);
        for (const GgufTensorInfo& info : file.tensors()) file.bytes(info);
      } catch (const DataError&) {
      }
    }
}

TEST_F(Gguf, TheWriterRefusesWhatNoClientLoads) {
  const PackedTensor x = pack(GgmlType::F32, at::ones({4}));
  const auto refuses = [&](const GgufMetadata& metadata,
                           const std::vector<std::pair<std::string, PackedTensor>>& t,
                           std::string_view rule) {
    expect_refused<ShapeError>(std::string(rule), [&] { write_gguf(local_files(), path(), metadata, t); },
                               {rule});
    EXPECT_FALSE(std::filesystem::exists(path()));
  };
  refuses({}, {{std::string(64, 'n'), x}}, "1 to 63 bytes");
  refuses({}, {{"", x}}, "1 to 63 bytes");
  refuses({}, {{"a", x}, {"a", x}}, "must be there once");
  refuses({}, {{"a", pack(GgmlType::F32, at::ones({1, 1, 1, 1, 4}))}}, "at most 4 dimensions");
  refuses({{"k", true}, {"k", true}}, {}, "must be there once");
  refuses({{"general.alignment", uint32_t{48}}}, {}, "power of two");
  refuses({{"general.alignment", int32_t{32}}}, {}, "power of two");
  PackedTensor cut = x;
  cut.bytes.pop_back();
  refuses({}, {{"a", cut}}, "must have 16 bytes, got 15");
}

TEST_F(Gguf, RewritesLlamaCppsFilesBitForBit) {
  RETORT_NEEDS_TEST_DATA();
  const Path models = testing::test_data() / "models" / "stories260K";
  for (const char* name : {"stories260K-f32.gguf", "stories260K-q8_0.gguf"}) {
    const GgufFile file(models / name);
    EXPECT_EQ(file.text("general.architecture"), "llama");
    EXPECT_EQ(file.integer("llama.block_count"), 5);
    std::vector<std::pair<std::string, PackedTensor>> tensors;
    for (const GgufTensorInfo& info : file.tensors()) {
      const auto bytes = file.bytes(info);
      tensors.push_back({info.name, {info.type, info.shape, {bytes.begin(), bytes.end()}}});
    }
    write_gguf(local_files(), path(), file.metadata(), tensors);
    EXPECT_TRUE(read_text(path()) == read_text(models / name)) << name;
  }
  const SafetensorsFile hf(models / "hf" / "model.safetensors");
  const at::Tensor embed = GgufFile(models / "stories260K-f32.gguf").values("token_embd.weight");
  EXPECT_TRUE(same_bits(embed, hf.tensor("model.embed_tokens.weight").to(at::kFloat)));
  const at::Tensor packed = GgufFile(models / "stories260K-q8_0.gguf").values("token_embd.weight");
  EXPECT_TRUE(same_bits(packed, unpack(pack(GgmlType::Q8_0, embed))));
}

}  // namespace
}  // namespace retort::formats
