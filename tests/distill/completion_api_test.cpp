#include "distill/completion_api.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "core/random.h"
#include "tests/distill/word_tokenizer.h"

namespace retort::distill {
namespace {

using formats::Json;
using ::testing::HasSubstr;

const testing::WordTokenizer& words() {
  static const testing::WordTokenizer tokenizer({"<s>", " a", "b", "\xc3", "\xa9"}, {0});
  return tokenizer;
}

// Ids 1 2 of a window at token 40, then 3.
const Prompt kPrompt{.place = 40, .ids = {1, 2}, .next = 3};

Json entry(double log_p, int64_t rank, const char* text) {
  return {{"logprob", log_p}, {"rank", rank}, {"decoded_token", text}};
}

// Two positions, 2 ids each; the ids that were sent are 2 and 3.
Json vllm_answer() {
  const Json list = {nullptr,
                     {{"2", entry(-3.0, 4, "b")}, {"1", entry(-0.5, 1, "a")}, {"0", entry(-1.0, 2, "")}},
                     {{"3", entry(-0.25, 1, "\xef\xbf\xbd")}, {"4", entry(-2.0, 2, "\xef\xbf\xbd")}}};
  return {{"choices", Json::array({{{"prompt_logprobs", list}}})}};
}

Json llamacpp_answer() {
  const Json list = {{{"id", 1}, {"bytes", {32, 97}}, {"logprob", -0.5}},
                     {{"id", 3}, {"bytes", Json::array({0xc3})}, {"logprob", -1.0}}};
  return {{"completion_probabilities", Json::array({{{"id", 1}, {"top_logprobs", list}}})},
          {"tokens_evaluated", 1},
          {"truncated", false}};
}

TopK read(const std::string& api, const Json& answer, int64_t vocabulary = 5) {
  const int64_t k = std::min<int64_t>(2, vocabulary);
  TopK out(2, k);
  completion_apis().at(api).read(answer, kPrompt, 0, {words(), vocabulary, k}, out, 0);
  return out;
}

std::string error_of(const std::string& api, const Json& answer, int64_t vocabulary = 5) {
  try {
    read(api, answer, vocabulary);
  } catch (const DataError& error) {
    return error.what();
  }
  return "no error";
}

struct Wrong {
  const char* pointer;  // of what is replaced
  Json by;
  const char* said;
};

void expect_refused(const std::string& api, const Json& sound, const std::vector<Wrong>& wrongs) {
  for (const Wrong& wrong : wrongs) {
    Json answer = sound;
    answer[Json::json_pointer(wrong.pointer)] = wrong.by;
    const std::string said = error_of(api, answer);
    EXPECT_THAT(said, HasSubstr(wrong.said)) << wrong.pointer;
    EXPECT_THAT(said, HasSubstr("window at token 40")) << wrong.pointer;
  }
}

}  // namespace

TEST(CompletionApi, VllmsPositionsAreThoseBeforeEachElement) {
  const TopK rows = read("vllm", vllm_answer());
  EXPECT_THAT(rows.count, ::testing::ElementsAre(2, 2));
  EXPECT_THAT(rows.ids, ::testing::ElementsAre(1u, 0u, 3u, 4u));
  EXPECT_FLOAT_EQ(rows.p[0], std::exp(-0.5f));
  EXPECT_NEAR(rows.rest[0], 1 - std::exp(-0.5) - std::exp(-1.0), 1e-12);
  EXPECT_NEAR(rows.rest[1], 1 - std::exp(-0.25) - std::exp(-2.0), 1e-12);
}

TEST(CompletionApi, LlamacppsPositionIsThatAfterThePrompt) {
  const TopK rows = read("llama.cpp", llamacpp_answer());
  EXPECT_EQ(rows.count[0], 2);
  EXPECT_EQ(rows.ids[1], 3u);
  EXPECT_NEAR(rows.rest[0], 1 - std::exp(-0.5) - std::exp(-1.0), 1e-12);
}

TEST(CompletionApi, VllmIsAskedForAllPositionsAndLlamacppForOne) {
  const Json all =
      Json::parse(completion_apis().at("vllm").request(kPrompt, 0, 0, "m", {words(), 5, 4}).body);
  EXPECT_EQ(all.at("prompt"), Json({1, 2, 3}));
  EXPECT_EQ(all.at("prompt_logprobs"), 4);
  const HttpRequest request = completion_apis().at("llama.cpp").request(kPrompt, 1, 3, "m", {words(), 5, 4});
  const Json one = Json::parse(request.body);
  EXPECT_EQ(request.path, "/completion");
  EXPECT_EQ(one.at("prompt"), Json({1, 2}));
  EXPECT_EQ(one.at("n_probs"), 4);
  EXPECT_EQ(one.at("id_slot"), 3);
  EXPECT_EQ(one.at("logit_bias")[0][0], 2);  // "b", the first that is printable
}

TEST(CompletionApi, AnAnswerThatDoesNotFitIsNamedByItsPlace) {
  const std::string list = "/choices/0/prompt_logprobs";
  const std::string at_0 = list + "/1", at_1 = list + "/2";
  Json three = vllm_answer(), wide = vllm_answer();
  three.at("choices")[0].at("prompt_logprobs").erase(2);
  EXPECT_THAT(error_of("vllm", three), HasSubstr("must be null and 2 positions, got array of 2"));
  wide.at("choices")[0].at("prompt_logprobs")[1].erase("2");
  EXPECT_THAT(error_of("vllm", wide), HasSubstr("read another id after it than 2"));
  EXPECT_THAT(error_of("vllm", wide), HasSubstr("position 0 (token 40, after ids 1)"));
  const std::string p1 = at_0 + "/1/logprob", p0 = at_0 + "/0/logprob", r0 = at_0 + "/0/rank",
                    text = at_0 + "/1/decoded_token", last = at_1 + "/3/logprob";
  expect_refused(
      "vllm", vllm_answer(),
      {{last.c_str(), nullptr, "position 1 (token 41, after ids 1 2): key \"logprob\" must be a number"},
       {p1.c_str(), 0.5, "must be numbers up to 0, got 0.5 for id 1"},
       {p0.c_str(), -0.25, "from the likeliest on"},
       {r0.c_str(), 3, "must have the 2 likeliest ids, got 1"},
       {r0.c_str(), 1, "ranks must be 1, 2, ..."},
       {text.c_str(), "c", "id 1 is \"c\" to the server and \" a\""},
       {list.c_str(), nullptr, "must be null and 2 positions"},
       {"/choices", Json::array(), "\"choices\" of the answer must be a list, got an empty one"}});
  const std::string top = "/completion_probabilities/0/top_logprobs";
  const std::string first = top + "/0/logprob", second = top + "/1/logprob", id = top + "/1/id",
                    bytes = top + "/0/bytes";
  expect_refused("llama.cpp", llamacpp_answer(),
                 {{second.c_str(), "NaN", "key \"logprob\" must be a number"},
                  {second.c_str(), -0.4, "from the likeliest on"},
                  {first.c_str(), 0.01, "must be numbers up to 0"},
                  {id.c_str(), 1, "id 1 is \"\\xc3\" to the server"},
                  {bytes.c_str(), Json::array({97}), "id 1 is \"a\" to the server"},
                  {bytes.c_str(), Json::array({300}), "bytes must be numbers below 256"},
                  {top.c_str(), Json::array(), "must have the 2 likeliest ids, got 0"},
                  {"/tokens_evaluated", 2, "the server read 2 tokens, not the 1"},
                  {"/truncated", true, "cut the text off"}});
}

TEST(CompletionApi, ProbabilitiesAddUpToOneAtMostAndIdsAreDifferent) {
  Json answer = llamacpp_answer();
  Json& list = answer.at("completion_probabilities")[0].at("top_logprobs");
  list[1]["logprob"] = -0.5;
  EXPECT_THAT(error_of("llama.cpp", answer), HasSubstr("must add up to at most 1, got 1.2"));
  list[1] = list[0];
  list[1]["logprob"] = -1.0;
  EXPECT_THAT(error_of("llama.cpp", answer), HasSubstr("ids must be different, got 1 twice"));
}

// A head that is padded has ids that no tokenizer has. Their share is nothing, else the vocabularies differ.
TEST(CompletionApi, IdsThatPadAHeadHaveNoLabel) {
  Json answer = llamacpp_answer();
  Json& list = answer.at("completion_probabilities")[0].at("top_logprobs");
  EXPECT_THAT(error_of("llama.cpp", answer, 3), HasSubstr("ids must be below 3"));
  list[1]["logprob"] = -20.0;
  const TopK rows = read("llama.cpp", answer, 3);
  EXPECT_EQ(rows.count[0], 1);
  EXPECT_EQ(rows.ids[0], 1u);
  EXPECT_NEAR(rows.rest[0], 1 - std::exp(-0.5), 1e-12);
}

// A decoded token has lost a leading space or half a character at most; a mark of control has no text.
TEST(CompletionApi, TextsAreComparedAsFarAsTheyCanBe) {
  Json answer = vllm_answer();
  Json& first = answer.at("choices")[0].at("prompt_logprobs")[1];
  for (const char* same : {"a", " a", ""}) {
    first.at("1").at("decoded_token") = same;
    EXPECT_EQ(error_of("vllm", answer), "no error") << same;
  }
  first.at("0").at("decoded_token") = "<|begin|>";
  EXPECT_EQ(error_of("vllm", answer), "no error");
  first.at("2").at("decoded_token") = " b";  // of an id beyond the likeliest, too
  EXPECT_THAT(error_of("vllm", answer), HasSubstr("id 2 is \" b\" to the server and \"b\""));
}

TEST(CompletionApi, TheServersModelIsNamed) {
  const auto get = [](const std::string& path) -> Json {
    if (path == "/props") return {{"total_slots", 2}, {"default_generation_settings", {{"n_ctx", 128}}}};
    return {{"data",
             {{{"id", "m"}, {"created", 5}, {"root", "w"}, {"max_model_len", 64}, {"meta", {{"size", 9}}}}}}};
  };
  const ServedModel vllm = completion_apis().at("vllm").describe(get, "m");
  EXPECT_EQ(vllm.facts, "vllm id=\"m\" root=\"w\"");  // not when it was started
  EXPECT_EQ(vllm.reads, 64);
  const ServedModel llamacpp = completion_apis().at("llama.cpp").describe(get, "m");
  EXPECT_EQ(llamacpp.facts, "llama.cpp id=\"m\" size=9");
  EXPECT_EQ(llamacpp.reads, 128);
  EXPECT_EQ(llamacpp.slots, 2);
  try {
    completion_apis().at("vllm").describe(get, "n");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("the server has no model \"n\""));
  }
}

// Whatever a server says ends in labels or in an error of ours.
TEST(CompletionApi, AnswersWithOtherValuesInThemAreReadOrRefused) {
  const std::vector<Json> others = {nullptr,
                                    true,
                                    -1,
                                    1e300,
                                    int64_t{1} << 62,
                                    "text",
                                    Json::array(),
                                    Json::object(),
                                    Json::array({nullptr}),
                                    {{"id", -5}}};
  int64_t refused = 0;
  for (const auto& [api, sound] : {std::pair{"vllm", vllm_answer()}, {"llama.cpp", llamacpp_answer()}}) {
    const Json flat = sound.flatten();
    std::set<std::string> places;  // every value and every container
    for (const auto& [pointer, value] : flat.items())
      for (Json::json_pointer at(pointer); !at.empty(); at.pop_back()) places.insert(at.to_string());
    for (const std::string& place : places)
      for (const Json& other : others) {
        Json answer = sound;
        answer[Json::json_pointer(place)] = other;
        refused += error_of(api, answer) != "no error";
      }
  }
  EXPECT_GT(refused, 200);
}

}  // namespace retort::distill
