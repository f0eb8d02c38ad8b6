#include "data/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <set>

#include "core/error.h"
#include "core/random.h"
#include "data/templates/shipped.h"
#include "data/templates/spans.h"
#include "data/token_shards.h"
#include "data/tokenizers/bpe_tokenizer.h"
#include "data/tokenizers/token_decoder.h"
#include "data/tokenizers/tokenizer.h"
#include "formats/json.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using retort::testing::TemporaryDirectory;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string write(const Path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
  return path.string();
}

std::string text_of(const Path& shards_directory) {
  const TokenShards shards(shards_directory);
  std::vector<int64_t> ids(static_cast<size_t>(shards.size()));
  shards.read(0, ids);
  return {ids.begin(), ids.end()};
}

// Everything below, by relative name.
std::map<std::string, std::string> contents(const Path& directory) {
  std::map<std::string, std::string> out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory))
    if (entry.is_regular_file() && entry.path().filename() != ".lock")
      out[std::filesystem::relative(entry.path(), directory).string()] = read_text(entry.path());
  return out;
}

// Kills the process with the file that would be its `lives`-th, half written.
class KillingFiles final : public FileSystem {
 public:
  explicit KillingFiles(int lives) : lives_(lives) {}
  std::unique_ptr<WritableFile> create(const Path& path, uint64_t expected_bytes) override {
    if (--lives_ == 0) {
      local_files().create(path)->append(as_bytes("half a file"));
      kill(getpid(), SIGKILL);
    }
    return local_files().create(path, expected_bytes);
  }
  void make_directories(const Path& path) override { local_files().make_directories(path); }
  void rename(const Path& from, const Path& to) override { local_files().rename(from, to); }
  void sync_directory(const Path& path) override { local_files().sync_directory(path); }
  void remove_all(const Path& path) override { local_files().remove_all(path); }
  uint64_t free_bytes(const Path& path) override { return local_files().free_bytes(path); }

 private:
  int lives_;
};

std::string lines(int count, uint64_t seed = 1) {
  const Random random(seed, "test/lines");
  std::string out;
  for (int i = 0; i < count; ++i)
    out += fmt::format("{} {}\n", i, std::string(random.below(static_cast<uint64_t>(i), 60), 'x'));
  return out;
}

class Prepare : public ::testing::Test {
 protected:
  PrepareReport run(const std::vector<std::string>& text, double validation = 0.1, int64_t window = 8) {
    return prepare({.text = text, .validation = validation}, out(), window, local_files(), log_);
  }
  template <class E>
  void expect_error(const std::vector<std::string>& text, const ::testing::Matcher<std::string>& message,
                    double validation = 0.1, int64_t window = 8) {
    try {
      run(text, validation, window);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const E& error) {
      EXPECT_THAT(std::string(error.what()), message);
    }
  }
  Path out() const { return directory_ / "out"; }

  TemporaryDirectory directory_;
  Log log_{stderr, "", true};
};

}  // namespace

TEST_F(Prepare, TheLastShareOfAFileFromALineIsForValidation) {
  const std::string text = lines(500);
  const PrepareReport report = run({write(directory_ / "a.txt", text)});
  const std::string train = text_of(out() / "train"), validation = text_of(out() / "validation");
  EXPECT_EQ(train + validation, text);
  EXPECT_EQ(train.back(), '\n');
  // The cut moves by at most a line (64 bytes) from the share.
  EXPECT_NEAR(static_cast<double>(validation.size()), 0.1 * static_cast<double>(text.size()), 64);
  EXPECT_EQ(report.train.directory, out() / "train");
  EXPECT_EQ(report.train.tokens, static_cast<int64_t>(train.size()));
  EXPECT_EQ(report.train.bytes, train.size());
  EXPECT_EQ(report.validation.tokens, static_cast<int64_t>(validation.size()));
  EXPECT_EQ(report.validation.bytes, validation.size());
  EXPECT_EQ(report.train.documents, 1);
  EXPECT_EQ(report.validation.documents, 1);
}

TEST_F(Prepare, FilesAreCutEachForItselfWhateverTheirOrder) {
  const std::string a = write(directory_ / "a.txt", lines(100, 1)),
                    b = write(directory_ / "b.txt", lines(40, 2));
  run({a});
  const std::string validation_a = text_of(out() / "validation");
  std::filesystem::remove_all(out());
  run({b});
  const std::string validation_b = text_of(out() / "validation");
  std::filesystem::remove_all(out());
  EXPECT_EQ(run({a, b}).validation.documents, 2);
  EXPECT_EQ(text_of(out() / "validation"), validation_a + validation_b);
  std::filesystem::remove_all(out());
  run({b, a});
  EXPECT_EQ(text_of(out() / "validation"), validation_b + validation_a);
}

TEST_F(Prepare, TextWithoutUsableLinesIsStillCut) {
  struct Case {
    std::string text;
    size_t train;
  };
  const std::vector<Case> cases = {
      {std::string(100, 'x'), 90},                               // no line break: at the share
      {std::string(50, 'x') + "\n" + std::string(49, 'y'), 51},  // one long last line: all of it
      {std::string(100, 'x') + "\n", 91},                        // a break at the very end does not count
      {std::string(89, 'x') + "\u00e9\u00e9" + std::string(7, 'x'), 89},  // never within a character
      {std::string(89, 'x') + "\n" + std::string(10, 'y'), 90},           // a line that begins with the share
      {std::string(100, '\x80'), 90},                                     // not UTF-8 at all
  };
  for (const Case& c : cases) {
    run({write(directory_ / "a.txt", c.text)});
    EXPECT_EQ(text_of(out() / "train"), c.text.substr(0, c.train));
    EXPECT_EQ(text_of(out() / "validation"), c.text.substr(c.train));
    std::filesystem::remove_all(out());
  }
}

TEST_F(Prepare, ALargeFileInPiecesIsOneDocument) {
  std::string text = lines(60000);                   // above 1 MiB
  text += std::string(1500000, 'z') + "\u00e9 end";  // and a line longer than a piece
  ASSERT_GT(text.size(), size_t{3} << 20);
  const PrepareReport report = run({write(directory_ / "a.txt", text)}, 0.0);
  EXPECT_EQ(report.train.documents, 1);
  EXPECT_EQ(report.train.bytes, text.size());
  EXPECT_TRUE(text_of(out() / "train") == text);
  EXPECT_TRUE(report.validation.directory.empty());
  EXPECT_FALSE(std::filesystem::exists(out() / "validation"));
}

TEST_F(Prepare, FinishedPartsAreKeptAndMissingOnesMade) {
  const std::string path = write(directory_ / "a.txt", lines(200));
  const PrepareReport first = run({path});
  EXPECT_FALSE(first.train.kept || first.validation.kept);
  const uint64_t digest = TokenShards(out() / "validation").digest();

  std::filesystem::rename(path, directory_ / "renamed.txt");  // the text counts, not its name
  const std::string renamed = (directory_ / "renamed.txt").string();
  const PrepareReport second = run({renamed});
  EXPECT_TRUE(second.train.kept && second.validation.kept);
  EXPECT_EQ(second.train.tokens, first.train.tokens);
  EXPECT_EQ(second.validation.bytes, first.validation.bytes);

  std::filesystem::remove_all(out() / "validation");
  std::filesystem::create_directories(out() / "validation.tmp");  // killed while writing it
  const PrepareReport third = run({renamed});
  EXPECT_TRUE(third.train.kept);
  EXPECT_FALSE(third.validation.kept);
  EXPECT_EQ(TokenShards(out() / "validation").digest(), digest);
  EXPECT_FALSE(std::filesystem::exists(out() / "validation.tmp"));
}

TEST_F(Prepare, OtherTextNeverReplacesWhatIsThere) {
  run({write(directory_ / "a.txt", lines(200))});
  const std::string before = text_of(out() / "train");
  expect_error<DataError>({write(directory_ / "b.txt", lines(201))},
                          AllOf(HasSubstr("holds other tokens"), HasSubstr((out() / "train").string())));
  expect_error<DataError>({(directory_ / "a.txt").string()}, HasSubstr("holds other tokens"), 0.2);
  EXPECT_EQ(text_of(out() / "train"), before);
}

TEST_F(Prepare, ADamagedPartIsNotKept) {
  const std::string path = write(directory_ / "a.txt", lines(400));
  run({path});
  const Path shard = out() / "train" / "shard-00000.h5";
  std::string bytes = read_text(shard);
  const size_t at =
      bytes.find(std::string("1\0"
                             "9\0"
                             "9\0",
                             6));  // within the tokens, u16 each
  ASSERT_NE(at, std::string::npos);
  bytes[at] = '2';
  write(shard, bytes);
  expect_error<DataError>({path}, AllOf(HasSubstr("shard-00000.h5"), HasSubstr("block 0 is damaged")));
}

TEST_F(Prepare, BadInputIsNamedAndLeavesNoPart) {
  const std::string good = write(directory_ / "good.txt", lines(20));
  const std::string empty = write(directory_ / "empty.txt", "");
  expect_error<ConfigError>({}, HasSubstr("at least one file"));
  expect_error<IoError>({good, (directory_ / "missing.txt").string()},
                        AllOf(HasSubstr("missing.txt"), HasSubstr("No such file")));
  expect_error<IoError>({directory_.path().string()}, HasSubstr("not a regular file"));
  expect_error<DataError>({good, empty}, AllOf(HasSubstr("empty.txt"), HasSubstr("at least one byte")));
  expect_error<DataError>({good}, HasSubstr("must hold at least 5000 tokens"), 0.1, 5000);
  expect_error<ConfigError>({good}, HasSubstr("validation must be in"), 1.0);
  EXPECT_FALSE(std::filesystem::exists(out() / "train"));
  EXPECT_FALSE(std::filesystem::exists(out() / "validation"));
  expect_error<DataError>({write(directory_ / "tiny.txt", "ab\n")},
                          AllOf(HasSubstr("validation"), HasSubstr("at least 1 tokens, got 0")), 0.1, 1);
  try {
    prepare({.tokenizer = "bites", .text = {good}}, out(), 8, local_files(), log_);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("bytes"));
  }
}

TEST_F(Prepare, RecordsThatAreLeftOutAreCountedAndNamed) {
  const std::string good = "{\"text\": \"one and two\"}\n";
  const std::string file = write(directory_ / "r.jsonl", good + "{oops\n{\"text\": null}\n" + good);
  PrepareOptions options{.text = {file}, .validation = 0};
  EXPECT_THROW(prepare(options, out(), 1, local_files(), log_), DataError);
  options.documents.bad_records = "skip";
  ::testing::internal::CaptureStderr();
  Log log;
  prepare(options, out(), 1, local_files(), log);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("left out: 1 record(s) without text, 1 malformed record(s)"));
  EXPECT_THAT(said, HasSubstr(file + ":2"));
  EXPECT_EQ(text_of(out() / "train"), "one and twoone and two");
  options.text = {write(directory_ / "n.jsonl", "{\"text\": null}\n")};
  try {
    prepare(options, directory_ / "none", 1, local_files(), log_);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("1 record(s) without text"));
  }
}

// What a tokenizer cannot cut is named by file and record.
TEST_F(Prepare, ATokenizersErrorNamesTheRecord) {
  formats::Json json = formats::parse_json(make_byte_tokenizer()->hf_files().at("tokenizer.json"), "bytes");
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", "^(a+)+$"}}}, {"behavior", "Isolated"}, {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  PrepareOptions options{.tokenizer = write(directory_ / "tokenizer.json", json.dump()), .validation = 0};
  const std::string endless = "{\"text\": \"" + std::string(64, 'a') + "!\"}\n";
  options.text = {write(directory_ / "r.jsonl", "{\"text\": \"one\"}\n" + endless)};
  try {
    prepare(options, out(), 1, local_files(), log_);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr(options.text[0] + ":2: "));
  }
}

TEST_F(Prepare, AFileShorterThanItSaysIsRefused) {
  const Path path = "/sys/devices/system/cpu/online";  // says a page, holds a line
  std::error_code none;
  if (std::filesystem::file_size(path, none) != 4096) GTEST_SKIP() << path << " is not there";
  expect_error<DataError>({path.string()}, HasSubstr("must keep its 4096 bytes while it is read, got "));
}

TEST_F(Prepare, AKilledPreparationEndsWithTheSameBytes) {
  PrepareOptions options{
      .text = {write(directory_ / "a.txt", lines(400)), write(directory_ / "b.txt", lines(90000))},
      .validation = 0.2,
      .shard_tokens = 700001,
      .threads = 2};
  const PrepareReport whole = prepare(options, directory_ / "whole", 8, local_files(), log_);
  ASSERT_GT(whole.train.tokens, 3 * 700001);
  int killed = 0;
  for (bool done = false; !done; ++killed) {
    ASSERT_LT(killed, 50);
    const pid_t child = fork();
    if (child == 0) {
      KillingFiles files(2);  // a shard, and then no more
      prepare(options, out(), 8, files, log_);
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    done = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    ASSERT_TRUE(done || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) << status;
  }
  EXPECT_GE(killed, 4);
  EXPECT_TRUE(contents(out()) == contents(directory_ / "whole"));
  const PrepareReport again = prepare(options, out(), 8, local_files(), log_);
  EXPECT_TRUE(again.train.kept && again.validation.kept);
  EXPECT_EQ(again.train.digest, whole.train.digest);
}

TEST_F(Prepare, ShardsDoNotDependOnTheThreads) {
  std::string records;
  for (int i = 0; i < 3000; ++i)
    records += fmt::format("{{\"q\":\"{0} and {0}\",\"a\":\"{1}\"}}\n", i,
                           std::string(static_cast<size_t>(i % 300), 'y'));
  PrepareOptions options{.text = {write(directory_ / "a.jsonl", records)},
                         .documents = {.prompt = {"q"}, .response = "a"},
                         .shard_tokens = 100000};
  options.threads = 1;
  prepare(options, directory_ / "one", 8, local_files(), log_);
  options.threads = 5;
  prepare(options, directory_ / "five", 8, local_files(), log_);
  EXPECT_TRUE(contents(directory_ / "one") == contents(directory_ / "five"));
}

TEST_F(Prepare, ConversationsKeepWhatIsLearned) {
  const std::string path =
      write(directory_ / "a.json", R"([{"q":"1+1?","a":"two"},{"q":"Name a colour.","a":"red"}])");
  const PrepareReport report =
      prepare({.text = {path}, .validation = 0.0, .documents = {.prompt = {"q"}, .response = "a"}}, out(), 8,
              local_files(), log_);
  const TokenShards shards(out() / "train");
  ASSERT_TRUE(shards.has_loss_mask());
  EXPECT_EQ(report.train.documents, 2);
  EXPECT_EQ(report.train.learned, 10);
  const std::string text = text_of(out() / "train");
  std::vector<uint8_t> mask(text.size());
  shards.read_loss_mask(0, mask);
  std::string learned;
  for (size_t i = 0; i < text.size(); ++i)
    if (mask[i] != 0) learned += text[i];
  EXPECT_EQ(learned, "two\n\nred\n\n");
  EXPECT_THAT(text,
              ::testing::StartsWith("### Instruction:\n1+1?\n\n### Response:\ntwo\n\n### Instruction:"));
}

TEST_F(Prepare, ConversationsWithoutAnswersAreRefused) {
  const std::string path = write(directory_ / "a.json", R"([{"q":"1+1?","a":"x"},{"q":"And?","a":""}])");
  DocumentOptions documents{.prompt = {"q"}, .response = "q"};  // learned: fine
  prepare({.text = {path}, .validation = 0.0, .documents = documents}, directory_ / "fine", 8, local_files(),
          log_);
  const std::string users = write(directory_ / "b.json", R"([{"m":[{"role":"user","content":"Hi"}]}])");
  try {
    prepare({.text = {users}, .validation = 0.0, .documents = {.messages = "m"}}, out(), 8, local_files(),
            log_);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("no token is learned"));
  }
}

TEST_F(Prepare, AModelsOwnTemplateIsPartOfWhatTheShardsAre) {
  const std::string form = (directory_ / "x.jinja").string();
  const std::string body =
      "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt "
      "%}<assistant>{% endif %}";
  write(form, "{{ strftime_now('%Y') }}" + body);
  const std::string path =
      write(directory_ / "a.json",
            R"([{"m":[{"role":"user","content":"1+1?"},{"role":"assistant","content":"two"}]}])");
  PrepareOptions options{
      .text = {path}, .validation = 0.0, .documents = {.messages = "m", .chat_template = form}};
  EXPECT_THROW(prepare(options, out(), 8, local_files(), log_), ConfigError) << "the date is not told";
  options.documents.chat_date = "2026-02-03";
  const PrepareReport report = prepare(options, out(), 8, local_files(), log_);
  EXPECT_EQ(text_of(out() / "train"), "2026<user>1+1?\n<assistant>two\n");
  EXPECT_EQ(report.train.learned, 3);
  EXPECT_TRUE(prepare(options, out(), 8, local_files(), log_).train.kept);
  options.documents.chat_date = "2027-02-03";
  EXPECT_THROW(prepare(options, out(), 8, local_files(), log_), DataError) << "another date, other tokens";
  options.documents.chat_date = "2026-02-03";
  write(form, "{{ strftime_now('%Y') }} " + body);
  EXPECT_THROW(prepare(options, out(), 8, local_files(), log_), DataError)
      << "another template, other tokens";
}

TEST_F(Prepare, ASeparatorEndsEveryDocument) {
  RETORT_NEEDS_TEST_DATA();
  const std::string address = (testing::test_data() / "tokenizers" / "gpt2").string();
  const auto tokenizer = make_tokenizer(address);
  const std::vector<std::string> texts = {"One document.", "Another\none, longer.", "three"};
  std::string records;
  std::vector<int64_t> expected, ends;
  for (const std::string& text : texts) {
    records += formats::Json{{"text", text}}.dump() + "\n";
    for (const int32_t id : tokenizer->encode(text)) expected.push_back(id);
    expected.push_back(tokenizer->separator().value());
    ends.push_back(std::ssize(expected));
  }
  prepare({.tokenizer = address, .text = {write(directory_ / "a.jsonl", records)}, .validation = 0.0}, out(),
          8, local_files(), log_);
  const TokenShards shards(out() / "train");
  std::vector<int64_t> ids(static_cast<size_t>(shards.size()));
  shards.read(0, ids);
  EXPECT_EQ(ids, expected);
  EXPECT_EQ(shards.documents(), 3);
  for (const int64_t end : ends) EXPECT_EQ(shards.document_end(end - 1), end);
}

// Bytes, "x", "xx" and two marks, as SentencePiece has them: with "▁" before a text.
BpeSpec character_spec() {
  BpeSpec spec;
  spec.name = "test";
  for (int byte = 0; byte < 256; ++byte) spec.tokens.push_back(byte_token(static_cast<unsigned char>(byte)));
  for (const char* token : {"\u2581", "x", "xx", "<|im_start|>", "<|im_end|>"}) spec.tokens.push_back(token);
  spec.merges = {{257, 257, 258}};
  for (const int32_t id : {259, 260})
    spec.added.push_back({.id = id, .text = spec.tokens[static_cast<size_t>(id)], .special = true});
  spec.byte_fallback = true;
  return spec;
}

TEST_F(Prepare, PiecesOfADocumentGiveTheIdsOfTheWhole) {
  BpeSpec prepend = character_spec(), metaspace = character_spec();
  prepend.normalizer = formats::Json::parse(R"({"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})");
  metaspace.pre_tokenizer = formats::Json::parse(
      R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false})");
  const std::string text = write(directory_ / "a.txt", lines(60000)),
                    chats = write(directory_ / "b.jsonl", R"(
{"m": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "xx"},
       {"role": "user", "content": " xxx"}, {"role": "assistant", "content": "x x"}]})");
  std::string record = read_text(chats);
  std::erase(record, '\n');
  write(chats, record);
  ASSERT_GT(std::filesystem::file_size(text), size_t{2} << 20);  // pieces are of 1 MiB
  for (const BpeSpec& spec : {prepend, metaspace}) {
    const auto tokenizer = make_bpe_tokenizer(spec);
    for (const auto& [name, content] : tokenizer->hf_files()) write(directory_ / name, content);
    for (const std::string& path : {text, chats}) {
      PrepareOptions options{.text = {path}, .validation = 0.0};
      if (path == chats) options.documents = {.messages = "m", .chat_template = "chatml"};
      prepare(options, directory_ / "bytes", 8, local_files(), log_);
      options.tokenizer = (directory_ / "tokenizer.json").string();
      prepare(options, out(), 8, local_files(), log_);
      const TokenShards shards(out() / "train");
      std::vector<int64_t> ids(static_cast<size_t>(shards.size()));
      shards.read(0, ids);
      const std::vector<int32_t> whole = tokenizer->encode(text_of(directory_ / "bytes" / "train"));
      EXPECT_TRUE(ids == std::vector<int64_t>(whole.begin(), whole.end())) << path;
      EXPECT_EQ(ids[0], path == text ? 256 : 259);
      for (const Path& done : {directory_ / "bytes", out()}) std::filesystem::remove_all(done);
    }
  }
}

// The tokenizer that a model takes from the shards writes conversations as the model has learned them, and knows the
// mark that it ends its turns with.
TEST_F(Prepare, TheTokenizerTakesTheTemplateAlong) {
  BpeSpec spec = character_spec();
  spec.chat_template = "{{ messages }}";
  for (const auto& [name, content] : make_bpe_tokenizer(spec)->hf_files()) write(directory_ / name, content);
  const std::string chats =
      write(directory_ / "b.jsonl",
            R"({"m": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "xx"}]})");
  prepare({.tokenizer = (directory_ / "tokenizer.json").string(),
           .text = {chats},
           .validation = 0.0,
           .documents = {.messages = "m", .chat_template = "chatml"}},
          out(), 8, local_files(), log_);
  const auto own = make_tokenizer((directory_ / "tokenizer.json").string()),
             kept = TokenShards(out() / "train").tokenizer();
  EXPECT_EQ(own->chat_template(), "{{ messages }}");
  EXPECT_EQ(kept->chat_template(), shipped_text("chatml"));
  EXPECT_EQ(kept->fingerprint(), own->fingerprint());
  EXPECT_EQ(turn_ends(*kept), std::vector<int32_t>{260});
  EXPECT_EQ(turn_ends(*own), std::vector<int32_t>{});
  std::string in_gguf;
  for (const auto& [key, value] : kept->gguf_metadata())
    if (key == "tokenizer.chat_template") in_gguf += std::get<std::string>(value);
  EXPECT_EQ(in_gguf, shipped_text("chatml"));
}

// Every document begins with what the tokenizer puts before a text, whatever it is made of; the shards say so, and so
// does the tokenizer that a model takes from them.
TEST_F(Prepare, DocumentsBeginWithTheBeginToken) {
  BpeSpec spec = character_spec();
  spec.post_processor = formats::Json::parse(
      R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|im_end|>", "type_id": 0}},
          {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
          "special_tokens": {"<|im_end|>": {"id": "<|im_end|>", "ids": [260], "tokens": ["<|im_end|>"]}}})");
  for (const auto& [name, content] : make_bpe_tokenizer(spec)->hf_files()) write(directory_ / name, content);
  const std::string text = write(directory_ / "a.txt", "xx#x#<|im_end|>xx"),
                    chats = write(directory_ / "b.jsonl",
                                  "{\"m\": [{\"role\": \"user\", \"content\": \"x\"}, "
                                  "{\"role\": \"assistant\", \"content\": \"xx\"}]}\n");
  const auto begins = [&](PrepareOptions options, bool begin, bool kept = true) {
    options.tokenizer = (directory_ / "tokenizer.json").string();
    options.begin_token = begin;
    options.validation = 0.0;
    std::filesystem::remove_all(out());
    prepare(options, out(), 1, local_files(), log_);
    const TokenShards shards(out() / "train");
    EXPECT_EQ(shards.prefix(), begin && kept ? std::vector<int32_t>{260} : std::vector<int32_t>{});
    EXPECT_EQ(shards.tokenizer()->prefix(), shards.prefix());
    std::vector<int64_t> ids(static_cast<size_t>(shards.size()));
    shards.read(0, ids);
    std::vector<bool> found;  // of each document: twice at most
    for (int64_t at = 0; at < shards.size(); at = shards.document_end(at)) {
      found.push_back(ids[static_cast<size_t>(at)] == 260);
      const bool twice = at + 1 < shards.size() && found.back() && ids[static_cast<size_t>(at) + 1] == 260;
      EXPECT_FALSE(twice);
    }
    return found;
  };
  PrepareOptions documents{.text = {text}, .documents = {.split = "#"}};
  EXPECT_EQ(begins(documents, true), (std::vector<bool>{true, true, true}));
  EXPECT_EQ(begins(documents, false), (std::vector<bool>{false, false, true}));  // the last one's own text
  PrepareOptions talks{.text = {chats}, .documents = {.messages = "m", .chat_template = "chatml"}};
  EXPECT_EQ(begins(talks, true), std::vector<bool>{true});
  EXPECT_EQ(begins(talks, false), std::vector<bool>{false});
  const std::string body = "{% for m in messages %}{{ m.content }}|{% endfor %}";
  talks.documents.chat_template = write(directory_ / "x.jinja", "<|im_end|>" + body);  // a model's own
  EXPECT_EQ(begins(talks, true), std::vector<bool>{true}) << "it prints the token";
  write(directory_ / "x.jinja", body);
  EXPECT_EQ(begins(talks, true, /*kept=*/false), std::vector<bool>{false}) << "it prints none";
}

TEST_F(Prepare, InstructionDataOfTheFieldIsReadWhole) {
  RETORT_NEEDS_TEST_DATA();
  const Path path = testing::test_data() / "tasks" / "instruct" / "instruction-data.json";
  const PrepareReport report =
      prepare({.text = {path.string()},
               .validation = 0.1,
               .documents = {.prompt = {"instruction", "input"}, .response = "output"}},
              out(), 8, local_files(), log_);
  const formats::Json rows = formats::read_json(path);
  EXPECT_EQ(report.train.documents + report.validation.documents, std::ssize(rows));
  int64_t learned = 0;
  for (const formats::Json& row : rows) learned += std::ssize(row["output"].get<std::string>()) + 2;
  EXPECT_EQ(report.train.learned + report.validation.learned, learned);
}

}  // namespace retort::data
