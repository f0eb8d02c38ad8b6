// Templates that mean harm, and templates that are garbage: each ends with a DataError, within its limits.
#include <gtest/gtest.h>

#include <random>

#include "data/templates/limits.h"
#include "data/templates/shipped.h"
#include "tests/data/chat_data.h"
#include "tests/process_memory.h"

namespace retort::data {
namespace {

using formats::Json;
using testing::written;

std::string repeated(const std::string& text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

struct Hostile {
  std::string source, limit;
};

const std::string kLoop = "{% for x in range(1000) %}", kEnd = "{% endfor %}";

// What doubles until a limit ends it.
std::vector<Hostile> growing() {
  const auto doubling = [](const std::string& from, const std::string& twice) {
    return "{% set ns = namespace(x=" + from + ") %}{% for i in range(100) %}{% set ns.x = " + twice +
           " %}{% endfor %}";
  };
  return {{doubling("'ab'", "ns.x ~ ns.x"), "bytes"},
          {doubling("'ab'", "ns.x + ns.x"), "bytes"},
          {doubling("'ab'", "ns.x|replace('a', ns.x)"), "bytes"},
          {doubling("'ab'", "[ns.x, ns.x]|join"), "bytes"},
          {doubling("'a\\n'", "(ns.x ~ ns.x)|indent(1000, true, true)"), "bytes"},
          {doubling("[1]", "ns.x + ns.x"), "memory"},
          {doubling("[1]", "[ns.x, ns.x]") + "{{ ns.x }}", "the limit"},
          {doubling("(1,)", "(ns.x, ns.x)") + "{{ ns.x == ns.x + (1,) }}{{ {ns.x: 1} }}", "the limit"}};
}

std::vector<Hostile> wide() {
  return {
      {repeated(kLoop, 3) + repeated(kEnd, 3), "steps"},
      {repeated(kLoop, 3) + "{{ x }}" + repeated(kEnd, 3), "steps"},
      {"{% for i in range(100001) %}{% endfor %}", "MAX_RANGE (100000)"},
      {repeated("{% for i in range(300) %}{% set x = [1] %}", 1) + "{% endfor %}" +
           "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ "
           "ns.x|tojson }}",
       "nested deeper"},
      {"{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}", "nested deeper"},
      {"{{ 'a' * 10000000000 }}", "bytes"},
      {"{{ [0] * 100000000 }}", "the limit"},
      {"{{ 2 ** 1000000000 }}", "128 bits"},
      {"{{ '%1000000000d' % 1 }}", "the limit"},
      {"{{ '{:>1000000000}'.format(1) }}", "the limit"},
      {"{{ 'x'.center(1000000000) }}", "the limit"},
      {"{{ 'x'|center(1000000000) }}", "the limit"},
      {"{{ 'x'.zfill(1000000000) }}", "the limit"},
      {"{{ 'x'|indent(1000000000, true) }}", "the limit"},
      {"{{ [1]|tojson(indent=1000000000) }}", "the limit"},
      {"{{ [1]|batch(1000000000, 0)|list }}", "the limit"},
      {"{{ [1]|slice(1000000000)|list }}", "the limit"},
      {"{{ strftime_now('%c' * 1000) }}", "at most"}};
}

std::vector<Hostile> deep() {
  return {{"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested deeper"},
          {"{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
           "nested deeper"},
          {"{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "nested deeper"},
          {"{{ " + repeated("(", 20000) + "1" + repeated(")", 20000) + " }}", "nests"},
          {"{{ " + repeated("[", 20000) + repeated("]", 20000) + " }}", "nests"},
          {"{{ " + repeated("not ", 20000) + "1 }}", "nests"},
          {"{{ " + repeated("- ", 20000) + "1 }}", "nests"},
          {"{{ " + repeated("1 if 1 else ", 20000) + "1 }}", "nests"},
          {"{{ 1" + repeated(" + 1", 20000) + " }}", "nested deeper"},
          {"{{ a" + repeated(".a", 20000) + " }}", "nested deeper"},
          {"{{ a" + repeated("|e", 20000) + " }}", "nested deeper"},
          {"{{ a" + repeated("()", 20000) + " }}", "nested deeper"},
          {repeated("{% if a %}", 20000) + repeated("{% endif %}", 20000), "nests"},
          {repeated("{{ a }}", 140000), "expressions and statements"},
          {repeated("x", (1 << 20) + 1), "bytes"}};
}

std::vector<Hostile> slow() {
  return {
      // Looking for a long part at each place would take the product of their lengths.
      {"{% set a = 'a' * 4000000 %}{{ ('a' * 2000000 ~ 'b') in a }}" + kLoop +
           "{{ ('a' * 2000000 ~ 'b') in a }}" + kEnd,
       "the limit"},
      {"{% set a = 'a' * 1000000 %}" + kLoop + "{{ a.rsplit('a' * 1000, 900)|length }}" + kEnd, "the limit"},
      {"{% set a = 'ab' * 1000000 %}" + kLoop + "{{ a|upper|lower|title|length }}" + kEnd, "the limit"},
      {"{% set a = 'é' * 1000000 %}" + kLoop + kLoop + "{{ a[x] }}" + kEnd + kEnd, "the limit"},
      {"{% set a = range(100000)|list %}" + kLoop + "{{ a|sort(reverse=true)|length }}" + kEnd, "the limit"},
      {"{% set a = range(100000)|list %}" + kLoop + "{{ a|unique|list|length }}" + kEnd, "the limit"},
      {"{{ dict(" + repeated("a=1, ", 1) + "**dict()) }}{% set ns = namespace() %}" + kLoop + kLoop +
           "{% set ns.a = ns.a %}{% set y = {x: x, 'b': 1} %}" + kEnd + kEnd + kLoop + kLoop + "{{ x }}" +
           kEnd + kEnd,
       "the limit"}};
}

std::vector<Hostile> hostile() {
  std::vector<Hostile> out;
  for (const auto& part : {growing(), wide(), deep(), slow()})
    out.insert(out.end(), part.begin(), part.end());
  return out;
}

constexpr std::string_view kWords[] = {"{%",
                                       "%}",
                                       "{{",
                                       "}}",
                                       "{#",
                                       "#}",
                                       "-%}",
                                       "{%-",
                                       "(",
                                       ")",
                                       "[",
                                       "]",
                                       "'",
                                       "\"",
                                       "\\",
                                       " not ",
                                       " in ",
                                       " is ",
                                       "|",
                                       "~",
                                       "**",
                                       "//",
                                       "%",
                                       "[::-1]",
                                       "[0]",
                                       ".x",
                                       "()",
                                       "(loop)",
                                       "loop",
                                       " if ",
                                       " else ",
                                       "{% endfor %}",
                                       "{% else %}",
                                       "{% break %}",
                                       "{% set x = x %}",
                                       "{% for x in messages %}",
                                       "{% macro m(a) %}",
                                       "|tojson",
                                       "|list",
                                       "|join",
                                       "messages",
                                       "namespace(x=1)",
                                       "range(9)",
                                       "|map('m')",
                                       "*args",
                                       "9999",
                                       "\xC3\xA9",
                                       "\xFF",
                                       "\n",
                                       "none",
                                       "['role']",
                                       "{% generation %}",
                                       "{% endgeneration %}"};

// A text with some bytes cut, doubled, moved or changed, or with a word of the language put in.
std::string mutated(std::string text, std::mt19937& random) {
  const auto pick = [&](size_t below) {
    return below == 0 ? 0 : std::uniform_int_distribution<size_t>(0, below - 1)(random);
  };
  for (size_t changes = 1 + pick(4); changes > 0 && !text.empty(); --changes) {
    const size_t at = pick(text.size()), size = 1 + pick(std::min<size_t>(text.size() - at, 40));
    switch (pick(6)) {
      case 0:
        text.erase(at, size);
        break;
      case 1:
        text.insert(pick(text.size()), text.substr(at, size));
        break;
      case 2:
        text[at] = static_cast<char>(pick(256));
        break;
      case 3:
        text = text.substr(0, at) + text.substr(at + size) + text.substr(at, size);
        break;
      case 4:
        text.resize(at);
        break;
      default:
        text.insert(at, kWords[pick(std::size(kWords))]);
    }
  }
  return text;
}

}  // namespace

TEST(TemplateLimits, AHostileTemplateEndsNamingPlaceAndLimit) {
  for (const auto& [source, limit] : hostile()) {
    const std::string said = written(source, {}, true);
    EXPECT_EQ(said.find("! t:"), 0u) << source.substr(0, 100) << " wrote " << said.substr(0, 100);
    EXPECT_NE(said.find(limit), std::string::npos) << source.substr(0, 100) << " said " << said;
  }
}

TEST(TemplateLimits, AHostileTemplateTakesNoMoreThanItsMemory) {
  RETORT_NEEDS_COUNTED_MEMORY();
  for (const auto& [source, limit] : hostile())
    EXPECT_LT(testing::peak_growth([&] { written(source); }), 100'000'000) << source.substr(0, 100);
}

TEST(TemplateLimits, LimitsAreTheCallers) {
  TemplateLimits limits;
  limits.steps = 100;
  const ChatTemplate form("t", "{% for x in range(90) %}{{ x }}{% endfor %}", limits);
  EXPECT_THROW(form.render({}), DataError);
  limits.steps = 1000;
  EXPECT_EQ(ChatTemplate("t", "{% for x in range(90) %}{{ x }}{% endfor %}", limits).render({}).text.size(),
            170u);
}

// A case that crashes is found by its number: the mutations are the same each time.
TEST(TemplateLimits, GarbageIsRenderedOrRefused) {
  std::vector<std::string> sources;
  if (!testing::test_data().empty())
    for (const std::string& folder : testing::chat_folders()) sources.push_back(testing::template_of(folder));
  for (const ShippedText& shipped : shipped_texts()) sources.emplace_back(shipped.text);
  Chat chat;
  chat.messages =
      Json::parse(R"([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hí 🙂"},
      {"role": "assistant", "content": "", "tool_calls": [{"id": "a1b2c3d4e", "type": "function",
       "function": {"name": "f", "arguments": {"x": [1, 2.5, null]}}}]},
      {"role": "tool", "content": "3", "name": "f", "tool_call_id": "a1b2c3d4e"},
      {"role": "assistant", "content": "<think>\nx</think>\nYes."}])");
  chat.tools =
      Json::parse(R"([{"type": "function", "function": {"name": "f", "description": "d", "parameters":
      {"type": "object", "properties": {"x": {"type": "array"}}, "required": []}}}])");
  chat.special = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  chat.generation_prompt = true;
  chat.now = testing::golden_clock();
  TemplateLimits limits;
  limits.steps = 50'000;
  std::mt19937 random(7);
  size_t rendered = 0, refused = 0, failed = 0;
  for (size_t i = 0; i < 20'000; ++i) {
    const std::string source = mutated(sources[i % sources.size()], random);
    std::optional<ChatTemplate> form;
    try {
      form.emplace("t", source, limits);
      render(*form, chat);
      ++rendered;
    } catch (const DataError&) {
      ++(form ? failed : refused);
    } catch (const std::exception& error) {
      FAIL() << "mutation " << i << " throws something else: " << error.what() << "\n" << source;
    }
  }
  for (const size_t count : {rendered, refused, failed}) EXPECT_GT(count, 500u);
}

}  // namespace retort::data
