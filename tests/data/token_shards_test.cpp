#include "data/token_shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/digest.h"
#include "core/error.h"
#include "formats/hdf5.h"
#include "tests/data/corpus.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using retort::testing::concatenation;
using retort::testing::Documents;
using retort::testing::random_documents;
using retort::testing::TemporaryDirectory;
using retort::testing::write_corpus;
using ::testing::AllOf;
using ::testing::HasSubstr;

// A vocabulary that needs u32 ids.
class WideTokenizer final : public Tokenizer {
 public:
  std::string name() const override { return "wide"; }
  int64_t vocabulary() const override { return 100000; }
  std::vector<int32_t> encode(std::string_view) const override { return {}; }
  std::string decode(std::span<const int32_t>) const override { return {}; }
  std::string_view token_bytes(int32_t) const override { return {}; }
  bool is_special(int32_t) const override { return false; }
  std::optional<int32_t> separator() const override { return 0; }
  std::string fingerprint() const override { return "00000000deadbeef"; }
  formats::GgufMetadata gguf_metadata() const override { return {}; }
  std::map<std::string, std::string> hf_files() const override { return {}; }
};

// Local files, on a disk that is full after some bytes.
class FullDisk final : public FileSystem {
 public:
  explicit FullDisk(uint64_t room) : room_(room) {}
  std::unique_ptr<WritableFile> create(const Path& path, uint64_t expected_bytes) override {
    check<IoError>(expected_bytes <= room_, "{}: no space left on device", path.string());
    room_ -= expected_bytes;
    return local_files().create(path, expected_bytes);
  }
  void make_directories(const Path& path) override { local_files().make_directories(path); }
  void rename(const Path& from, const Path& to) override { local_files().rename(from, to); }
  void sync_directory(const Path& path) override { local_files().sync_directory(path); }
  void remove_all(const Path& path) override { local_files().remove_all(path); }
  uint64_t free_bytes(const Path&) override { return room_; }

 private:
  uint64_t room_;
};

std::string content(const Path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <class T>
void flip(const Path& path, const std::vector<T>& values, size_t victim) {
  std::string bytes = content(path);
  const std::string pattern(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  const size_t at = bytes.find(pattern);
  ASSERT_NE(at, std::string::npos);
  bytes[at + victim * sizeof(T)] = static_cast<char>(bytes[at + victim * sizeof(T)] ^ 1);
  std::ofstream(path, std::ios::binary) << bytes;
}

template <class E, class F>
void expect_error(F&& call, const ::testing::Matcher<std::string>& message) {
  try {
    call();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const E& error) {
    EXPECT_THAT(std::string(error.what()), message);
  }
}

// A shard file written by hand, to lie in.
struct HandMade {
  std::map<std::string, formats::Hdf5Attribute> attributes = {{"format", std::string("retort-tokens")},
                                                              {"version", int64_t{1}},
                                                              {"shard", int64_t{0}},
                                                              {"last", int64_t{1}},
                                                              {"bytes", int64_t{4}},
                                                              {"tokenizer", std::string("0123456789abcdef")},
                                                              {"tokenizer_name", std::string("hand")},
                                                              {"source", std::string("hand")},
                                                              {"vocabulary", int64_t{300}}};
  std::vector<uint16_t> tokens = {1, 2, 299, 4};
  std::vector<uint64_t> documents = {0, 2, 4};
  bool wide = false;
  size_t digests = 1;

  void write(const Path& directory) const {
    std::filesystem::create_directories(directory);
    formats::Hdf5Writer writer;
    for (const auto& [name, value] : attributes) writer.attribute(name, value);
    writer.attribute("documents_digest", hex(xxh3(std::as_bytes(std::span(documents)))));
    writer.dataset("tokens", wide ? formats::Hdf5Type::U32 : formats::Hdf5Type::U16,
                   std::as_bytes(std::span(tokens)));
    writer.dataset("documents", formats::Hdf5Type::U64, std::as_bytes(std::span(documents)));
    const std::vector<uint64_t> digest(digests, xxh3(std::as_bytes(std::span(tokens))));
    writer.dataset("digest", formats::Hdf5Type::U64, std::as_bytes(std::span(digest)));
    writer.write(local_files(), directory / "shard-00000.h5");
  }
};

}  // namespace

TEST(TokenShards, ReadsWhatWasWrittenAcrossShards) {
  const TemporaryDirectory directory;
  const Documents documents = random_documents(1, 40, 60, 256);
  const std::vector<int64_t> all = concatenation(documents);
  const auto shards = write_corpus(directory / "c", documents, 97);
  ASSERT_EQ(shards->size(), static_cast<int64_t>(all.size()));
  EXPECT_EQ(shards->documents(), 40);
  EXPECT_EQ(shards->text_bytes(), all.size());
  EXPECT_EQ(shards->vocabulary(), 256);
  EXPECT_EQ(shards->tokenizer_name(), "bytes");
  EXPECT_EQ(shards->tokenizer_fingerprint(), make_byte_tokenizer()->fingerprint());
  EXPECT_EQ(shards->source(), "test");
  for (const int64_t length : {1, 2, 96, 97, 98, 300})
    for (int64_t begin = 0; begin + length <= shards->size(); begin += 31) {
      std::vector<int64_t> got(static_cast<size_t>(length));
      shards->read(begin, got);
      EXPECT_TRUE(std::equal(got.begin(), got.end(), all.begin() + begin)) << begin << " + " << length;
    }
  EXPECT_NO_THROW(shards->verify());
}

TEST(TokenShards, FindsTheDocumentOfEveryPosition) {
  const TemporaryDirectory directory;
  // Documents that span several shards of 7, and some that end with one.
  Documents documents = random_documents(2, 30, 12, 256);
  documents.insert(documents.begin() + 5, std::vector<int32_t>(40, 9));
  const auto shards = write_corpus(directory / "c", documents, 7);
  int64_t start = 0;
  for (const auto& document : documents) {
    const int64_t end = start + static_cast<int64_t>(document.size());
    for (int64_t position = start; position < end; ++position) {
      ASSERT_EQ(shards->document_start(position), start) << position;
      ASSERT_EQ(shards->document_end(position), end) << position;
    }
    start = end;
  }
  EXPECT_THROW(shards->document_start(start), ShapeError);
  EXPECT_THROW(shards->document_end(-1), ShapeError);
}

TEST(TokenShards, PiecesMakeOneDocument) {
  const TemporaryDirectory directory;
  TokenShardWriter writer(local_files(), directory / "c", *make_byte_tokenizer(), "test", 4);
  writer.add(std::vector<int32_t>{1, 2, 3}, 3);
  writer.add(std::vector<int32_t>{4, 5, 6}, 3, true);
  writer.add(std::vector<int32_t>{}, 0);  // an empty document leaves no trace
  writer.add(std::vector<int32_t>{7}, 1);
  EXPECT_EQ(writer.size(), 7);
  writer.finish();
  const TokenShards shards(directory / "c");
  EXPECT_EQ(shards.documents(), 2);
  EXPECT_EQ(shards.document_start(5), 0);
  EXPECT_EQ(shards.document_start(6), 6);
  EXPECT_EQ(shards.text_bytes(), 7u);
}

TEST(TokenShards, IdsAreAsWideAsTheVocabularyNeeds) {
  const TemporaryDirectory directory;
  const auto wide = write_corpus(directory / "wide", {{99999, 70000, 3}}, 1000, WideTokenizer());
  write_corpus(directory / "narrow", {{255, 0}});
  std::vector<int64_t> got(3);
  wide->read(0, got);
  EXPECT_THAT(got, ::testing::ElementsAre(99999, 70000, 3));
  const formats::Hdf5File wide_file(directory / "wide" / "shard-00000.h5");
  const formats::Hdf5File narrow_file(directory / "narrow" / "shard-00000.h5");
  EXPECT_EQ(wide_file.dataset("tokens").type, formats::Hdf5Type::U32);
  EXPECT_EQ(narrow_file.dataset("tokens").type, formats::Hdf5Type::U16);
}

TEST(TokenShards, DigestNamesTheTokensAndTheDocuments) {
  const TemporaryDirectory directory;
  const auto a = write_corpus(directory / "a", {{1, 2, 3, 4}});
  EXPECT_EQ(write_corpus(directory / "same", {{1, 2, 3, 4}})->digest(), a->digest());
  EXPECT_NE(write_corpus(directory / "other", {{1, 2, 3, 5}})->digest(), a->digest());
  EXPECT_NE(write_corpus(directory / "split", {{1, 2}, {3, 4}})->digest(), a->digest());
}

TEST(TokenShards, VerifyNamesTheDamagedShardAndBlock) {
  const TemporaryDirectory directory;
  constexpr int64_t kShard = (1 << 20) + 1000;  // block 1 is a short one
  const Documents documents = {std::vector<int32_t>(kShard, 7), random_documents(3, 1, 1, 256)[0],
                               random_documents(4, 1, 90000, 256)[0]};
  write_corpus(directory / "c", documents, kShard);
  const Path second = directory / "c" / "shard-00001.h5";
  const std::string whole = content(second);
  const std::vector<int64_t> all = concatenation(documents);
  flip(second, std::vector<uint16_t>(all.begin() + kShard, all.begin() + kShard + 32), 9);
  expect_error<DataError>([&] { TokenShards(directory / "c").verify(); },
                          AllOf(HasSubstr("shard-00001.h5"), HasSubstr("block 0")));
  std::ofstream(second, std::ios::binary) << whole;
  EXPECT_NO_THROW(TokenShards(directory / "c").verify());

  const Path first = directory / "c" / "shard-00000.h5";
  flip(first, std::vector<uint16_t>(kShard, 7), kShard - 1);
  expect_error<DataError>([&] { TokenShards(directory / "c").verify(); },
                          AllOf(HasSubstr("shard-00000.h5"), HasSubstr("block 1")));
}

TEST(TokenShards, VerifySeesADamagedDocumentTable) {
  const TemporaryDirectory directory;
  write_corpus(directory / "c", {std::vector<int32_t>(700, 1), std::vector<int32_t>(900, 2)});
  flip(directory / "c" / "shard-00000.h5", std::vector<uint64_t>{0, 700, 1600}, 1);
  expect_error<DataError>([&] { TokenShards(directory / "c").verify(); }, HasSubstr("/documents is damaged"));
}

TEST(TokenShards, OpeningRefusesMissingStrangeAndSurplusShards) {
  const TemporaryDirectory directory;
  const Documents documents = {std::vector<int32_t>(25, 3)};
  expect_error<IoError>([&] { TokenShards(directory / "nowhere"); }, HasSubstr("nowhere"));
  std::filesystem::create_directory(directory / "empty");
  expect_error<DataError>([&] { TokenShards(directory / "empty"); }, HasSubstr("shard-00000.h5"));

  write_corpus(directory / "c", documents, 10);
  const Path c = directory / "c";
  std::filesystem::copy_file(c / "shard-00000.h5", c / "shard-00003.h5");
  expect_error<DataError>([&] { TokenShards{c}; }, HasSubstr("follows the last shard"));
  std::filesystem::remove(c / "shard-00003.h5");
  std::filesystem::copy_file(c / "shard-00000.h5", c / "shard-00001.h5",
                             std::filesystem::copy_options::overwrite_existing);
  expect_error<DataError>([&] { TokenShards{c}; }, HasSubstr("shard must be 1"));
  std::filesystem::remove(c / "shard-00001.h5");
  expect_error<DataError>([&] { TokenShards{c}; }, HasSubstr("shard-00001.h5: token shard is missing"));

  write_corpus(directory / "wide", documents, 10, WideTokenizer());
  std::filesystem::copy_file(directory / "wide" / "shard-00001.h5", c / "shard-00001.h5");
  expect_error<DataError>([&] { TokenShards{c}; }, HasSubstr("must be those of"));
}

TEST(TokenShards, OpeningChecksEveryPromiseOfTheFormat) {
  const TemporaryDirectory directory;
  int number = 0;
  const auto refuses = [&](const char* message, auto&& lie) {
    HandMade file;
    lie(file);
    const Path path = directory / std::to_string(number++);
    file.write(path);
    expect_error<DataError>([&] { TokenShards{path}; }, HasSubstr(message));
  };
  HandMade().write(directory / "honest");
  TokenShards(directory / "honest").verify();
  refuses("format must be", [](HandMade& f) { f.attributes["format"] = std::string("other"); });
  refuses("version must be 1, 2 or 3", [](HandMade& f) { f.attributes["version"] = int64_t{4}; });
  refuses("no dataset \"loss_mask\"", [](HandMade& f) { f.attributes["version"] = int64_t{2}; });
  refuses("vocabulary must lie in", [](HandMade& f) { f.attributes["vocabulary"] = int64_t{0}; });
  refuses("vocabulary must lie in", [](HandMade& f) { f.attributes["vocabulary"] = int64_t{1} << 40; });
  refuses("must be u32", [](HandMade& f) { f.attributes["vocabulary"] = int64_t{70000}; });
  refuses("must be u16", [](HandMade& f) { f.wide = true; });
  refuses("bytes must be", [](HandMade& f) { f.attributes["bytes"] = int64_t{-1}; });
  refuses("source", [](HandMade& f) { f.attributes.erase("source"); });
  refuses("shard must be 0", [](HandMade& f) { f.attributes["shard"] = int64_t{1}; });
  refuses("must end with", [](HandMade& f) { f.documents = {0, 2, 5}; });
  refuses("must increase", [](HandMade& f) { f.documents = {0, 2, 2, 4}; });
  refuses("must increase", [](HandMade& f) { f.documents = {0, 4, 4}; });
  refuses("must start at 0", [](HandMade& f) { f.documents = {1, 4}; });
  refuses("must start at 0", [](HandMade& f) { f.documents = {4}; });
  refuses("must have 1 entries", [](HandMade& f) { f.digests = 2; });
}

TEST(TokenShards, SayWhatTheirDocumentsBeginWith) {
  const TemporaryDirectory directory;
  HandMade shard;
  shard.write(directory / "old");  // as they were before they said so
  EXPECT_EQ(TokenShards(directory / "old").prefix(), std::vector<int32_t>{});
  shard.attributes["prefix"] = std::string("1,299");
  shard.write(directory / "new");
  EXPECT_EQ(TokenShards(directory / "new").prefix(), (std::vector<int32_t>{1, 299}));
  for (const char* bad : {"300", "-1", "1;2", "one", "1,,2", "99999999999"}) {
    shard.attributes["prefix"] = std::string(bad);
    shard.write(directory / bad);
    EXPECT_THROW(TokenShards(directory / bad), DataError) << bad;
  }
}

// A vocabulary may be larger than a model's embedding, as long as no text uses what is beyond it.
TEST(TokenShards, RowsAreCheckedWhereTheVocabularyHasMore) {
  const TemporaryDirectory directory;
  HandMade{}.write(directory / "s");
  const TokenShards shards(directory / "s");
  shards.check_rows(300, "[here]");
  EXPECT_THAT(
      [&] { shards.check_rows(299, "[here]"); },
      ::testing::ThrowsMessage<DataError>(::testing::HasSubstr("[here]: token 2 of the text is id 299")));
  HandMade few;
  few.tokens = {1, 2, 3, 4};
  few.write(directory / "few");
  TokenShards(directory / "few").check_rows(5, "[here]");
}

TEST(TokenShards, AnIdBeyondTheVocabularyIsNeverHandedOut) {
  const TemporaryDirectory directory;
  HandMade file;
  file.tokens[2] = 300;
  file.write(directory / "c");
  const TokenShards shards(directory / "c");
  std::vector<int64_t> out(4);
  expect_error<DataError>([&] { shards.read(0, out); }, HasSubstr("ids must be < 300, got 300"));
  expect_error<DataError>([&] { shards.verify(); }, HasSubstr("ids must be < 300"));
  EXPECT_NO_THROW(shards.read(0, std::span(out).first(2)));
  EXPECT_THROW(shards.read(1, out), ShapeError);
}

TEST(TokenShardWriter, TheDirectoryAppearsWholeOrNotAtAll) {
  const TemporaryDirectory directory;
  const auto tokenizer = make_byte_tokenizer();
  const auto entries = [&] {
    return std::distance(std::filesystem::directory_iterator(directory.path()), {});
  };
  {
    TokenShardWriter writer(local_files(), directory / "c/", *tokenizer, "test", 40);
    writer.add(std::vector<int32_t>(10, 1), 10);
    EXPECT_FALSE(std::filesystem::exists(directory / "c"));
  }
  EXPECT_EQ(entries(), 0) << "an unfinished writer left something behind";

  std::filesystem::create_directories(directory / "c.tmp" / "left");  // by a killed writer
  write_corpus(directory / "c", {{1, 2, 3}});
  EXPECT_EQ(entries(), 1);
  expect_error<DataError>([&] { TokenShardWriter(local_files(), directory / "c", *tokenizer, "test"); },
                          HasSubstr("exists already"));
}

TEST(TokenShardWriter, AFullDiskLeavesFullShardsToGoOnFrom) {
  const TemporaryDirectory directory;
  int64_t kept = 0;
  const auto write = [&](FileSystem& files) {
    TokenShardWriter writer(files, directory / "c", *make_byte_tokenizer(), "test", 4000);
    kept = writer.pieces_done();
    for (int64_t i = kept; i < 20; ++i) writer.add(std::vector<int32_t>(1000, static_cast<int>(i)), 1000);
    writer.finish();
  };
  FullDisk disk(20000);  // room for the first shard, not for all
  expect_error<IoError>([&] { write(disk); }, HasSubstr("no space left"));
  EXPECT_FALSE(std::filesystem::exists(directory / "c"));
  write(local_files());
  EXPECT_EQ(kept, 4);
  EXPECT_EQ(TokenShards(directory / "c").size(), 20000);

  FullDisk full(1000);  // none for the first
  const auto nothing = [&] {
    TokenShardWriter writer(full, directory / "d", *make_byte_tokenizer(), "test", 4000);
    writer.add(std::vector<int32_t>(1000, 1), 1000);
    writer.finish();
  };
  expect_error<IoError>(nothing, HasSubstr("no space left"));
  EXPECT_FALSE(std::filesystem::exists(directory / "d.tmp"));
}

TEST(TokenShardWriter, RefusesForeignIdsAndNoTokens) {
  const TemporaryDirectory directory;
  TokenShardWriter writer(local_files(), directory / "c", *make_byte_tokenizer(), "test");
  expect_error<DataError>([&] { writer.finish(); }, HasSubstr("no tokens"));
  expect_error<DataError>([&] { writer.add(std::vector<int32_t>{256}, 1); }, HasSubstr("[0, 256), got 256"));
  expect_error<DataError>([&] { writer.add(std::vector<int32_t>{-1}, 1); }, HasSubstr("got -1"));
}

}  // namespace retort::data
