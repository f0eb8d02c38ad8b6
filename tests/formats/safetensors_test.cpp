#include "formats/safetensors.h"

#include "tests/formats/byte_image.h"

namespace retort::formats {
namespace {

using testing::ByteImage;
using testing::expect_refused;
using testing::put_file;
using testing::same_bits;
using testing::TemporaryDirectory;

std::string image(const std::string& header, size_t data_bytes) {
  return ByteImage().string(header).raw(std::string(data_bytes, '\x01')).bytes();
}

TEST(Safetensors, ReadsAnImageWrittenByHand) {
  const TemporaryDirectory directory;
  const std::string header =
      R"({"__metadata__":{"format":"pt","k":"ü"},"b":{"dtype":"I16","shape":[2,1],"data_offsets":[4,8]},)"
      R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"F64","shape":[0,3],"data_offsets":[8,8]}})"
      "   ";
  const std::string bytes =
      ByteImage().string(header).number(1.5f).number<int16_t>(-2).number<int16_t>(3).bytes();
  put_file(directory / "m.safetensors", bytes);
  const SafetensorsFile file(directory / "m.safetensors");
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"k", "ü"}}));
  EXPECT_EQ(file.entries().size(), 3u);
  EXPECT_TRUE(file.contains("a"));
  EXPECT_FALSE(file.contains("c"));
  EXPECT_EQ(file.tensor("a").dim(), 0);
  EXPECT_EQ(file.tensor("a").item<float>(), 1.5f);
  EXPECT_TRUE(same_bits(file.tensor("b"), at::tensor({-2, 3}, at::kShort).view({2, 1})));
  EXPECT_EQ(file.tensor("e").sizes(), (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(file.bytes("b").size(), 4u);
  expect_refused<DataError>("missing", [&] { file.tensor("bb"); }, {"m.safetensors: has no tensor \"bb\""});
}

NamedTensors every_type() {
  NamedTensors tensors;
  const auto ramp = at::arange(24, at::kFloat).view({2, 3, 4});
  for (const at::ScalarType type : {at::kByte, at::kFloat, at::kHalf, at::kBFloat16, at::kDouble, at::kLong,
                                    at::kInt, at::kShort, at::kChar, at::kUInt16, at::kUInt32, at::kUInt64})
    tensors.emplace_back(fmt::format("t.{}", c10::toString(type)), ramp.to(type));
  tensors.emplace_back("bool", ramp > 11);
  tensors.emplace_back("fp8", ramp.to(at::kFloat8_e4m3fn));
  tensors.emplace_back("transposed", ramp.permute({2, 0, 1}));
  tensors.emplace_back("expanded", ramp.select(0, 0).unsqueeze(0).expand({5, 3, 4}));
  tensors.emplace_back("scalar", at::scalar_tensor(-0.0, at::kFloat));
  tensors.emplace_back("nothing", at::empty({3, 0, 2}));
  tensors.emplace_back("odd \"name\"\n\xc3\xbc", at::full({1}, std::nan(""), at::kFloat));
  return tensors;
}

TEST(Safetensors, RoundTripIsBitForBit) {
  const TemporaryDirectory directory;
  const NamedTensors tensors = every_type();
  write_safetensors(local_files(), directory / "a", tensors, {{"format", "pt"}, {"q\"", "\\"}});
  const SafetensorsFile file(directory / "a");
  EXPECT_EQ(file.entries().size(), tensors.size());
  EXPECT_EQ(file.metadata().at("q\""), "\\");
  NamedTensors back;
  for (const auto& [name, tensor] : tensors) {
    EXPECT_TRUE(same_bits(file.tensor(name), tensor)) << name;
    back.emplace_back(name, file.tensor(name));
  }
  write_safetensors(local_files(), directory / "b", back, file.metadata());
  EXPECT_EQ(read_text(directory / "a"), read_text(directory / "b"));
  EXPECT_EQ(safetensors_header(tensors, {}).size() % 8, 0u);
}

TEST(Safetensors, AViewOutlivesItsFile) {
  const TemporaryDirectory directory;
  write_safetensors(local_files(), directory / "a", {{"x", at::arange(1000)}});
  const at::Tensor view = SafetensorsFile(directory / "a").tensor("x");
  EXPECT_TRUE(same_bits(view, at::arange(1000)));
}

TEST(Safetensors, TensorsAtOddAddressesAreCopied) {
  const TemporaryDirectory directory;
  write_safetensors(local_files(), directory / "a",
                    {{"odd", at::ones({3}, at::kByte)}, {"x", at::arange(7, at::kDouble)}});
  const at::Tensor x = SafetensorsFile(directory / "a").tensor("x");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(x.const_data_ptr()) % sizeof(double), 0u);
  EXPECT_TRUE(same_bits(x, at::arange(7, at::kDouble)));
}

TEST(Safetensors, TheWriterRefusesWhatNoReaderTakes) {
  const at::Tensor x = at::ones({2});
  EXPECT_THROW(safetensors_header({{"a", x}, {"a", x}}, {}), ShapeError);
  EXPECT_THROW(safetensors_header({{"__metadata__", x}}, {}), ShapeError);
  EXPECT_THROW(safetensors_header({{"a", at::Tensor()}}, {}), ShapeError);
  EXPECT_THROW(safetensors_header({{"a\xff", x}}, {}), ShapeError);
  EXPECT_THROW(safetensors_header({{"a", at::ones({2}, at::kComplexDouble)}}, {}), ShapeError);
}

struct Hostile {
  std::string rule;  // what the message must say
  std::string bytes;
};

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape, offsets);
}

std::vector<Hostile> lengths() {
  return {
      {"8 bytes of header length", ""},
      {"8 bytes of header length", "{\"a\":1}"},
      {"must fit in the file", ByteImage().number<uint64_t>(3).raw("{}").bytes()},
      {"must fit in the file", ByteImage().number<uint64_t>(UINT64_MAX).raw("{}").bytes()},
      {"must fit in the file", ByteImage().number<uint64_t>(UINT64_MAX - 7).raw("{}").bytes()},
      {"must fit in the file", ByteImage().number<uint64_t>(100'000'001).raw("{}").bytes()},
      {"must begin with {", image("", 0)},
      {"must begin with {", image(" {}", 0)},
      {"must begin with {", image("[]", 0)},
      {"invalid literal", image("{}x", 0)},
      {"the data has 4 bytes", image("{}", 4)},
      {"nested deeper", image("{\"a\":" + std::string(100, '['), 0)},
  };
}

std::vector<Hostile> entries() {
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets,
                      size_t bytes) { return image("{" + tensor("a", dtype, shape, offsets) + "}", bytes); };
  return {
      {"leaves a hole", one("F32", "[1]", "[4,8]", 8)},
      {"leaves a hole",
       image("{" + tensor("b", "U8", "[2]", "[0,2]") + "," + tensor("a", "U8", "[1]", "[3,4]") + "}", 4)},
      {"leaves an overlap",
       image("{" + tensor("b", "U8", "[2]", "[0,2]") + "," + tensor("a", "U8", "[2]", "[1,3]") + "}", 3)},
      {"leaves an overlap",
       image("{" + tensor("b", "U8", "[2]", "[0,2]") + "," + tensor("a", "U8", "[2]", "[0,2]") + "}", 2)},
      {"the data has 5 bytes", one("F32", "[1]", "[0,4]", 5)},
      {"lie in order within", one("F32", "[1]", "[0,4]", 3)},
      {"lie in order within", one("F32", "[1]", "[4,0]", 4)},
      {"lie in order within", one("U8", "[9223372036854775807]", "[0,9223372036854775807]", 4)},
      {"needs 4 bytes, but data_offsets span 8", one("F32", "[1]", "[0,8]", 8)},
      {"must fit in 63 bits", one("F32", "[4294967296,4294967296]", "[0,0]", 0)},
      {"must fit in 63 bits", one("U8", "[4611686018427387904,4,0]", "[0,0]", 0)},
      {"must fit in 63 bits", one("F32", "[18446744073709551615]", "[0,4]", 4)},
      {"whole numbers", one("F32", "[-1]", "[0,4]", 4)},
      {"whole numbers", one("F32", "[1.0]", "[0,4]", 4)},
      {"whole numbers", one("F32", "[1]", "[0,\"4\"]", 4)},
      {"[begin, end]", one("F32", "[1]", "[0,4,4]", 4)},
      {"shape must be an array", one("F32", "1", "[0,4]", 4)},
      {"safetensors defines, got \"F33\"", one("F33", "[1]", "[0,4]", 4)},
      {"needs 1 bytes", one("F4", "[1]", "[0,0]", 0)},
      {"duplicate key \"a\"",
       image("{" + tensor("a", "U8", "[1]", "[0,1]") + "," + tensor("a", "U8", "[1]", "[1,2]") + "}", 2)},
      {"has no dtype", image(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4)},
      {"has no shape", image(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4)},
      {"has no data_offsets", image(R"({"a":{"dtype":"F32","shape":[1]}})", 4)},
      {"must be an object", image(R"({"a":[1]})", 0)},
      {"must map strings to strings", image(R"({"__metadata__":{"k":1}})", 0)},
      {"must be an object", image(R"({"__metadata__":"pt"})", 0)},
  };
}

void expect_all_refused(const std::vector<Hostile>& files) {
  const TemporaryDirectory directory;
  const Path path = directory / "hostile.safetensors";
  for (const Hostile& file : files) {
    put_file(path, file.bytes);
    expect_refused<DataError>(file.rule, [&] { SafetensorsFile{path}; }, {path.string(), file.rule});
  }
}

TEST(Safetensors, RefusesLyingLengths) { expect_all_refused(lengths()); }
TEST(Safetensors, RefusesLyingEntries) { expect_all_refused(entries()); }

TEST(Safetensors, RefusesValuesItCannotGive) {
  const TemporaryDirectory directory;
  write_durably(
      local_files(), directory / "a",
      image("{" + tensor("p", "F4", "[2]", "[0,1]") + "," + tensor("t", "BOOL", "[1]", "[1,2]") + "}", 2));
  const SafetensorsFile file(directory / "a");
  expect_refused<DataError>("F4", [&] { file.tensor("p"); }, {"tensor \"p\" is F4"});
  EXPECT_TRUE(file.tensor("t").item<bool>());
  put_file(directory / "b",
           ByteImage().string("{" + tensor("t", "BOOL", "[1]", "[0,1]") + "}").raw("\x02").bytes());
  expect_refused<DataError>("2", [&] { SafetensorsFile(directory / "b").tensor("t"); }, {"0 and 1 only"});
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const TemporaryDirectory directory;
  write_safetensors(local_files(), directory / "whole", {{"x", at::arange(20)}, {"y", at::ones({3, 3})}});
  const std::string whole = read_text(directory / "whole");
  for (size_t size = 0; size < whole.size(); ++size) {
    put_file(directory / "cut", std::string_view(whole).substr(0, size));
    EXPECT_THROW(SafetensorsFile{directory / "cut"}, DataError) << size;
  }
}

TEST(Safetensors, RewritesOtherPeoplesModels) {
  RETORT_NEEDS_TEST_DATA();
  const TemporaryDirectory directory;
  int count = 0;
  for (const auto& item : std::filesystem::recursive_directory_iterator(testing::test_data() / "models")) {
    if (item.path().extension() != ".safetensors") continue;
    const SafetensorsFile file(item.path());
    NamedTensors tensors;
    for (const auto& [name, entry] : file.entries()) tensors.emplace_back(name, file.tensor(name));
    write_safetensors(local_files(), directory / "copy", tensors, file.metadata());
    const SafetensorsFile copy(directory / "copy");
    EXPECT_EQ(copy.metadata(), file.metadata());
    for (const auto& [name, tensor] : tensors)
      EXPECT_TRUE(same_bits(copy.tensor(name), tensor)) << item << name;
    ++count;
  }
  EXPECT_GT(count, 0);
}

}  // namespace
}  // namespace retort::formats
