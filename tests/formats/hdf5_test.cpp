#include "formats/hdf5.h"

#include <random>

#include "formats/hdf5_library.h"
#include "tests/formats/byte_image.h"

namespace retort::formats {
namespace {

using testing::expect_refused;
using testing::put_file;
using testing::TemporaryDirectory;

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

class Hdf5 : public ::testing::Test {
 protected:
  Path path() const { return directory_ / "a.h5"; }
  void refused(const std::string& what, std::initializer_list<std::string_view> words) {
    expect_refused<DataError>(
        what, [&] { Hdf5File{path()}; }, words);
  }
  // A file by HDF5's own calls: what Retort does not write.
  template <class Fill>
  void by_hand(const Fill& fill) {
    const Hdf5Lock lock;
    const Hdf5Handle file(H5Fcreate(path().c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    ASSERT_GE(file, 0);
    fill(static_cast<hid_t>(file));
  }
  TemporaryDirectory directory_;
};

void write_sample(const Path& path) {
  Hdf5Writer writer;
  const std::vector<uint8_t> odd = {1, 2, 3};
  const std::vector<uint16_t> tokens = {0, 1, 65535};
  const std::vector<uint32_t> wide = {0, UINT32_MAX};
  const std::vector<uint64_t> documents = {0, UINT64_MAX, 7};
  const std::vector<float> reals = {1.5f, -0.0f};
  const std::vector<uint16_t> halves = {0x3c00, 0x8000};
  writer.attribute("format", std::string("retort-test"));
  writer.attribute("version", int64_t{1});
  writer.attribute("least", int64_t{INT64_MIN});
  writer.attribute("most", uint64_t{UINT64_MAX});
  writer.attribute("temperature", 0.1);
  writer.attribute("empty", std::string());
  writer.attribute("title", std::string("größer\n"));
  for (int i = 0; i < 12; ++i)
    writer.attribute(fmt::format("more{:02}", i), int64_t{i});  // beyond compact storage
  writer.dataset("odd", Hdf5Type::U8, bytes_of(odd));
  writer.dataset("tokens", Hdf5Type::U16, bytes_of(tokens));
  writer.dataset("wide", Hdf5Type::U32, bytes_of(wide));
  writer.dataset("documents", Hdf5Type::U64, bytes_of(documents));
  writer.dataset("reals", Hdf5Type::F32, bytes_of(reals));
  writer.dataset("halves", Hdf5Type::F16, bytes_of(halves));
  writer.dataset("nothing", Hdf5Type::U16, std::span<const std::byte>());
  writer.write(local_files(), path);
}

template <class T>
std::vector<T> read_back(const Hdf5File& file, std::string_view name) {
  const auto values = file.values<T>(name);
  return {values.begin(), values.end()};
}

TEST_F(Hdf5, DatasetsAndAttributesComeBack) {
  write_sample(path());
  const Hdf5File file(path());
  EXPECT_EQ(file.text("format"), "retort-test");
  EXPECT_EQ(file.integer("version"), 1);
  EXPECT_EQ(file.integer("least"), INT64_MIN);
  EXPECT_EQ(std::get<uint64_t>(file.attributes().at("most")), UINT64_MAX);
  EXPECT_EQ(std::get<double>(file.attributes().at("temperature")), 0.1);
  EXPECT_EQ(file.text("empty"), "");
  EXPECT_EQ(file.text("title"), "größer\n");
  EXPECT_EQ(file.attributes().size(), 19u);
  EXPECT_EQ(file.datasets().size(), 7u);
  EXPECT_EQ(read_back<uint8_t>(file, "odd"), (std::vector<uint8_t>{1, 2, 3}));
  EXPECT_EQ(read_back<uint16_t>(file, "tokens"), (std::vector<uint16_t>{0, 1, 65535}));
  EXPECT_EQ(read_back<uint32_t>(file, "wide"), (std::vector<uint32_t>{0, UINT32_MAX}));
  EXPECT_EQ(read_back<uint64_t>(file, "documents"), (std::vector<uint64_t>{0, UINT64_MAX, 7}));
  EXPECT_EQ(read_back<float>(file, "reals")[0], 1.5f);
  EXPECT_EQ(file.dataset("halves").type, Hdf5Type::F16);
  EXPECT_EQ(read_back<uint16_t>(file, "halves"), (std::vector<uint16_t>{0x3c00, 0x8000}));
  EXPECT_EQ(file.dataset("nothing").size, 0);
  expect_refused<DataError>("name", [&] { file.dataset("token"); },
                            {"has no dataset \"token\"", "\"tokens\""});
  expect_refused<DataError>("name", [&] { file.integer("verson"); }, {"has no attribute", "\"version\""});
  expect_refused<DataError>("width", [&] { file.values<uint32_t>("tokens"); },
                            {"elements of 4 bytes, got 2"});
  expect_refused<DataError>("kind", [&] { file.integer("format"); }, {"must be an integer"});
  expect_refused<DataError>("kind", [&] { file.integer("most"); }, {"must be an integer of 63 bits"});
  expect_refused<DataError>("kind", [&] { file.text("version"); }, {"must be text"});
}

TEST_F(Hdf5, PartsAreJoinedInOrder) {
  std::mt19937 random(5);
  std::vector<uint16_t> tokens(3'000'000);  // beyond one growth of the image
  for (uint16_t& token : tokens) token = static_cast<uint16_t>(random());
  const auto all = bytes_of(tokens);
  const std::vector<std::span<const std::byte>> parts = {all.first(10), all.subspan(10, 0),
                                                         all.subspan(10, 2'000'000), all.subspan(2'000'010)};
  Hdf5Writer writer;
  writer.dataset("tokens", Hdf5Type::U16, parts);
  writer.dataset("after", Hdf5Type::U8, all.first(1));
  writer.write(local_files(), path());
  const Hdf5File file(path());
  EXPECT_TRUE(read_back<uint16_t>(file, "tokens") == tokens);
}

TEST_F(Hdf5, EqualContentGivesEqualBytes) {
  write_sample(path());
  write_sample(directory_ / "b.h5");
  EXPECT_TRUE(read_text(path()) == read_text(directory_ / "b.h5"));
}

TEST_F(Hdf5, SeveralWritersAndReadersAtOnce) {
  Hdf5Writer first, second;
  const std::vector<uint8_t> one = {1}, two = {2};
  first.dataset("x", Hdf5Type::U8, bytes_of(one));
  second.dataset("x", Hdf5Type::U8, bytes_of(two));
  second.write(local_files(), directory_ / "b.h5");
  first.write(local_files(), path());
  const Hdf5File a(path()), again(path()), b(directory_ / "b.h5");
  std::filesystem::remove(path());  // the mapping stays
  EXPECT_EQ(a.values<uint8_t>("x")[0] + again.values<uint8_t>("x")[0], 2);
  EXPECT_EQ(b.values<uint8_t>("x")[0], 2);
}

TEST_F(Hdf5, TheWriterRefusesWhatItCannotKeep) {
  Hdf5Writer writer;
  const std::vector<uint8_t> three = {1, 2, 3};
  writer.attribute("a", int64_t{1});
  writer.dataset("d", Hdf5Type::U8, bytes_of(three));
  EXPECT_THROW(writer.attribute("a", int64_t{1}), ShapeError);
  EXPECT_THROW(writer.attribute("", int64_t{1}), ShapeError);
  EXPECT_THROW(writer.attribute("nul", std::string("a\0b", 3)), ShapeError);
  EXPECT_THROW(writer.dataset("d", Hdf5Type::U8, bytes_of(three)), ShapeError);
  EXPECT_THROW(writer.dataset("a/b", Hdf5Type::U8, bytes_of(three)), ShapeError);
  EXPECT_THROW(writer.dataset("e", Hdf5Type::U16, bytes_of(three)), ShapeError);
  // HDF5's own refusal, in its own words; nothing is printed.
  ::testing::internal::CaptureStderr();
  expect_refused<IoError>("64 KiB", [&] { writer.attribute("long", std::string(70'000, 'x')); },
                          {"cannot make the attribute \"long\": ", "unable to"});
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  writer.write(local_files(), path());
  EXPECT_EQ(Hdf5File(path()).datasets().size(), 1u);
}

TEST_F(Hdf5, RefusesWhatIsNoFileOfOurs) {
  EXPECT_THROW(Hdf5File{path()}, IoError);
  put_file(path(), "");
  refused("empty", {path().string(), "is not an HDF5 file"});
  put_file(path(), "In the beginning God created the heaven and the earth.\n");
  refused("text", {path().string(), "is not an HDF5 file"});
  put_file(path(), "\x89HDF\r\n\x1a\n" + std::string(500, 'x'));
  refused("signature alone", {path().string(), "cannot open it as HDF5"});
}

TEST_F(Hdf5, EveryTruncationIsRefusedQuietly) {
  write_sample(directory_ / "whole.h5");
  const std::string whole = read_text(directory_ / "whole.h5");
  ::testing::internal::CaptureStderr();
  for (size_t size = 0; size < whole.size(); size += 64) {
    put_file(path(), std::string_view(whole).substr(0, size));
    refused(fmt::format("cut at {}", size), {path().string()});
  }
  put_file(path(), std::string_view(whole).substr(0, whole.size() - 1));
  refused("the last byte", {path().string(), "is it being written?"});
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

// Not hostile input, which HDF5 1.10.8 does not withstand: a rotten bit in what a file says about itself.
TEST_F(Hdf5, AFlippedBitOfMetadataIsRefused) {
  write_sample(directory_ / "whole.h5");
  const std::string whole = read_text(directory_ / "whole.h5");
  for (const std::string_view place : {"retort-test", "version", "tokens", "more07"}) {
    std::string bytes = whole;
    const size_t at = bytes.find(place);
    ASSERT_NE(at, std::string::npos) << place;
    bytes[at + 2] ^= 1;
    put_file(path(), bytes);
    refused(std::string(place), {path().string(), "does not match its seal"});
  }
}

// Wherever it is: the file is refused, or what is read is what was written.
TEST_F(Hdf5, AFlippedBitAnywhereIsNoCrash) {
  write_sample(directory_ / "whole.h5");
  const std::string whole = read_text(directory_ / "whole.h5");
  const auto attributes = Hdf5File(directory_ / "whole.h5").attributes();
  size_t refusals = 0;
  for (size_t at = 0; at < whole.size(); at += 7) {
    std::string bytes = whole;
    bytes[at] ^= static_cast<char>(1 << (at % 8));
    put_file(path(), bytes);
    try {
      EXPECT_EQ(Hdf5File(path()).attributes(), attributes) << at;
    } catch (const DataError& error) {
      EXPECT_NE(std::string(error.what()).find(path().string()), std::string::npos) << at;
      ++refusals;
    }
  }
  EXPECT_GT(refusals, whole.size() / 7 * 9 / 10) << "the sample is nearly all tables";
}

void make_dataset(hid_t file, const char* name, hid_t type, std::vector<hsize_t> shape, const auto& layout) {
  const Hdf5Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose);
  const Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  layout(static_cast<hid_t>(properties));
  const Hdf5Handle made(H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT), H5Dclose);
  ASSERT_GE(made, 0);
}
void early(hid_t properties) { H5Pset_alloc_time(properties, H5D_ALLOC_TIME_EARLY); }
void chunked(hid_t properties) {
  const hsize_t chunk = 4;
  H5Pset_chunk(properties, 1, &chunk);
}
void filtered(hid_t properties) {
  chunked(properties);
  H5Pset_deflate(properties, 6);
}

TEST_F(Hdf5, RefusesOtherLayoutsByName) {
  const auto with = [&](std::string_view rule, hid_t type, std::vector<hsize_t> shape, const auto& layout) {
    by_hand([&](hid_t file) { make_dataset(file, "d", type, shape, layout); });
    refused(std::string(rule), {path().string(), "\"d\"", rule});
  };
  by_hand([&](hid_t file) { make_dataset(file, "d", H5T_STD_U16LE, {8}, early); });
  EXPECT_EQ(Hdf5File(path()).dataset("d").size, 8);
  with("contiguous", H5T_STD_U16LE, {8}, chunked);
  with("contiguous", H5T_STD_U16LE, {8}, filtered);
  with("contiguous", H5T_STD_U16LE, {8}, [](hid_t p) { H5Pset_layout(p, H5D_COMPACT); });
  with("in this file", H5T_STD_U16LE, {8}, [](hid_t p) { H5Pset_external(p, "/etc/passwd", 0, 16); });
  with("was never written", H5T_STD_U16LE, {8}, [](hid_t) {});
  with("one dimension", H5T_STD_U16LE, {2, 4}, early);
  with("little-endian", H5T_STD_U16BE, {8}, early);
  with("little-endian", H5T_STD_I16LE, {8}, early);
  with("little-endian", H5T_C_S1, {8}, early);
}

TEST_F(Hdf5, RefusesLinksGroupsAndOddAttributes) {
  by_hand([](hid_t file) {
    const Hdf5Handle group(H5Gcreate2(file, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
  });
  refused("group", {"\"g\" must be a dataset"});
  by_hand([](hid_t file) { H5Lcreate_external("/etc/passwd", "/x", file, "l", H5P_DEFAULT, H5P_DEFAULT); });
  refused("external link", {"\"l\" is a link to elsewhere"});
  by_hand([](hid_t file) { H5Lcreate_soft("/nowhere", file, "l", H5P_DEFAULT, H5P_DEFAULT); });
  refused("soft link", {"\"l\" is a link to elsewhere"});
  by_hand([](hid_t file) {
    const Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose), space(H5Screate(H5S_SCALAR), H5Sclose);
    H5Tset_size(type, H5T_VARIABLE);
    const Hdf5Handle made(H5Acreate2(file, "v", type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  });
  refused("variable text", {"\"v\" must be text of a fixed length"});
  by_hand([](hid_t file) {
    const hsize_t size = 3;
    const Hdf5Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose);
    const Hdf5Handle made(H5Acreate2(file, "m", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  });
  refused("many values", {"\"m\" must be one value"});
}

TEST_F(Hdf5, AFullDiskIsAnErrorNotACrash) {
  struct FullDisk final : FileSystem {
    struct File final : WritableFile {
      void append(std::span<const std::byte>) override { fail<IoError>("no space left"); }
      void sync() override {}
      void close() override {}
    };
    std::unique_ptr<WritableFile> create(const Path&, uint64_t) override { return std::make_unique<File>(); }
    void make_directories(const Path&) override {}
    void rename(const Path&, const Path&) override {}
    void sync_directory(const Path&) override {}
    void remove_all(const Path&) override {}
    uint64_t free_bytes(const Path&) override { return 0; }
  } disk;
  Hdf5Writer writer;
  const std::vector<uint8_t> values(1000);
  writer.dataset("d", Hdf5Type::U8, bytes_of(values));
  EXPECT_THROW(writer.write(disk, path()), IoError);
  EXPECT_THROW(writer.attribute("late", int64_t{1}), ShapeError);
  EXPECT_THROW(writer.dataset("late", Hdf5Type::U8, bytes_of(values)), ShapeError);
  writer.write(local_files(), path());  // the image is still whole
  EXPECT_EQ(Hdf5File(path()).dataset("d").size, 1000);
}

}  // namespace
}  // namespace retort::formats
