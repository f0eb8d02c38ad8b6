#include "data/pieces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "core/random.h"
#include "data/tokenizers/utf8.h"
#include "tests/data/packing.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using retort::testing::gzipped;
using retort::testing::TemporaryDirectory;
using retort::testing::write_file;

constexpr size_t kMiB = size_t{1} << 20;

std::vector<Piece> pieces_of(const Path& path, const DocumentOptions& options, double validation, Part part) {
  const auto reader = open_pieces(path, options, validation, part);
  std::vector<Piece> out;
  for (Piece piece; reader->next(piece);) {
    EXPECT_FALSE(piece.text.empty());
    EXPECT_LE(piece.text.size(), kMiB);
    EXPECT_EQ(piece.continues, !out.empty() && !out.back().ends);
    out.push_back(piece);
  }
  EXPECT_TRUE(out.empty() || out.back().ends);
  return out;
}

std::string joined(const std::vector<Piece>& pieces) {
  std::string out;
  for (const Piece& piece : pieces) out += piece.text;
  return out;
}

std::string lines(size_t size, uint64_t seed = 1) {
  const Random random(seed, "test/lines");
  std::string out;
  for (uint64_t i = 0; out.size() < size; ++i)
    out += fmt::format("{}{} {}\n", i % 7 == 0 ? "  " : "", i, std::string(random.below(i, 120), 'x'));
  return out;
}

}  // namespace

TEST(Pieces, TextIsCutWhereALineBegins) {
  const TemporaryDirectory directory;
  const std::string text = lines(3 * kMiB + 17);
  for (const std::string& bytes : {text, gzipped(text)}) {
    const Path path = write_file(directory / "a.txt", bytes);
    const auto pieces = pieces_of(path, {}, 0.0, Part::kTrain);
    EXPECT_GE(pieces.size(), 4u);
    for (size_t i = 0; i + 1 < pieces.size(); ++i) {
      EXPECT_EQ(pieces[i].text.back(), '\n');
      EXPECT_NE(pieces[i + 1].text.front(), ' ');  // white space stays with what it stands before
    }
    EXPECT_TRUE(joined(pieces) == text);
    EXPECT_TRUE(pieces_of(path, {}, 0.0, Part::kValidation).empty());
  }
}

TEST(Pieces, ACharacterIsNeverCut) {
  const TemporaryDirectory directory;
  for (const size_t shift : std::vector<size_t>{0, 1, 2}) {
    std::string text(shift, 'x');
    while (text.size() < 2 * kMiB) text += "\u20ac";  // no line at all
    const auto pieces = pieces_of(write_file(directory / "a.txt", text), {}, 0.0, Part::kTrain);
    EXPECT_GE(pieces.size(), 2u);
    for (Piece piece : pieces) EXPECT_NO_THROW(check_utf8(piece.text, "refuse", "piece"));
    EXPECT_TRUE(joined(pieces) == text);
  }
}

TEST(Pieces, ThePartsOfATextMeetAtTheSplit) {
  const TemporaryDirectory directory;
  const std::string text = lines(2 * kMiB);
  for (const double share : {0.01, 0.3, 0.9}) {
    const Path path = write_file(directory / "a.txt.gz", gzipped(text));
    const std::string train = joined(pieces_of(path, {}, share, Part::kTrain)),
                      validation = joined(pieces_of(path, {}, share, Part::kValidation));
    EXPECT_TRUE(train + validation == text);
    EXPECT_EQ(train.back(), '\n');
    EXPECT_NEAR(static_cast<double>(validation.size()), share * static_cast<double>(text.size()), 130);
    EXPECT_EQ(split_point(path, text.size(), share), train.size());
  }
}

TEST(Pieces, ADocumentsContentDecidesItsPart) {
  const TemporaryDirectory directory;
  std::string records;
  std::vector<std::string> texts;
  for (int i = 0; i < 2000; ++i) {
    texts.push_back(fmt::format("document {}", i % 1800));  // some stand twice
    records += fmt::format("{{\"text\":\"{}\"}}\n", texts.back());
  }
  const Path path = write_file(directory / "a.jsonl", records);
  std::multiset<std::string> train, validation, all(texts.begin(), texts.end());
  for (const Piece& piece : pieces_of(path, {}, 0.2, Part::kTrain)) train.insert(piece.text);
  for (const Piece& piece : pieces_of(path, {}, 0.2, Part::kValidation)) validation.insert(piece.text);
  for (const std::string& text : validation) EXPECT_FALSE(train.contains(text)) << text;
  // 2000 draws at 0.2: five standard deviations are 90.
  EXPECT_NEAR(static_cast<double>(validation.size()), 400, 90);
  train.merge(validation);
  EXPECT_TRUE(train == all);
  EXPECT_TRUE(pieces_of(path, {}, 0.0, Part::kValidation).empty());
}

TEST(Pieces, ALongDocumentContinuesInPieces) {
  const TemporaryDirectory directory;
  const std::string one = lines(kMiB + kMiB / 2, 2), two = "short", three = lines(2 * kMiB, 3);
  const Path path = write_file(directory / "a.txt", one + "##" + two + "##" + three);
  std::vector<std::string> documents;
  for (const Piece& piece : pieces_of(path, {.split = "##"}, 0.0, Part::kTrain)) {
    if (!piece.continues) documents.emplace_back();
    documents.back() += piece.text;
  }
  EXPECT_TRUE((documents == std::vector<std::string>{one, two, three}));
}

TEST(Pieces, SpansOfAConversationKeepWhetherTheyAreLearned) {
  const TemporaryDirectory directory;
  const Path path = write_file(directory / "a.jsonl", "{\"q\":\"?\",\"a\":\"" + std::string(kMiB + 5, 'a') +
                                                          "\"}\n{\"q\":\"??\",\"a\":\"b\"}\n");
  const auto pieces = pieces_of(path, {.prompt = {"q"}, .response = "a"}, 0.0, Part::kTrain);
  ASSERT_EQ(pieces.size(), 5u);  // prompt, the answer in two pieces; prompt, answer
  for (const size_t i : {0u, 3u}) EXPECT_FALSE(pieces[i].learned || pieces[i].continues);
  for (const size_t i : {1u, 2u, 4u}) EXPECT_TRUE(pieces[i].learned && pieces[i].continues);
  EXPECT_TRUE(pieces[2].ends && pieces[4].ends && !pieces[1].ends);
}

TEST(Pieces, ATextThatShrinksIsRefused) {
  const TemporaryDirectory directory;
  const Path path = write_file(directory / "a.txt", lines(4 * kMiB));
  const auto reader = open_pieces(path, {}, 0.0, Part::kTrain);
  Piece piece;
  ASSERT_TRUE(reader->next(piece));
  std::filesystem::resize_file(path, 3 * kMiB);
  try {
    while (reader->next(piece)) continue;
    FAIL() << "read to the end";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("a.txt: became shorter while it was read"));
  }
}

TEST(Pieces, AnEmptyFileIsRefused) {
  const TemporaryDirectory directory;
  EXPECT_THROW(open_pieces(write_file(directory / "a.txt", ""), {}, 0.1, Part::kTrain), DataError);
  EXPECT_THROW(open_pieces(write_file(directory / "b.txt", gzipped("")), {}, 0.1, Part::kTrain), DataError);
}

}  // namespace retort::data
