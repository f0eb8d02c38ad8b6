// The language of templates, a line at a time: what jinja2 with transformers' settings makes of it.
#include <gtest/gtest.h>

#include "data/templates/chat_template.h"
#include "tests/data/chat_data.h"

namespace retort::data {
namespace {

using formats::Json;
using testing::written;

struct Line {
  const char *source, *text;
};

void expect(const std::vector<Line>& lines, const Json& values = Json::object()) {
  for (const auto& [source, text] : lines) EXPECT_EQ(written(source, values), text) << source;
}

}  // namespace

TEST(TemplateLanguage, EveryGoldenLineIsWrittenAsByJinja2) {
  RETORT_NEEDS_TEST_DATA();
  const Json file = formats::read_json(testing::test_data() / "chat" / "language.json");
  for (const Json& one : file.at("cases")) {
    const std::string source = one.at("template").get<std::string>();
    const std::string wanted = one.contains("text") ? one.at("text").get<std::string>()
                                                    : "! " + one.at("error").at("text").get<std::string>();
    EXPECT_EQ(written(source, file.at("variables")), wanted) << one.at("topic") << ": " << source;
  }
  EXPECT_EQ(file.at("cases").size(), 220u);
}

TEST(TemplateLanguage, WhiteSpaceFollowsTrimAndLstripBlocks) {
  expect({{"a\n  {% if 1 %}\nb\n  {%- endif %}\nc\n", "a\nbc"},
          {"{{ 1 }}\n\n", "1\n"},
          {"  {%+ if 1 %}x{% endif +%}\n", "  x"},
          {"  {%+ if 1 %}x{% endif +%}\n\n", "  x\n"},
          {"a{#- b -#} c", "ac"},
          {"{% raw -%} {{ x }} {%- endraw %}", "{{ x }}"},
          {"\xC2\xA0{%- if 1 %}x{% endif -%}\xE3\x80\x80y", "xy"}});
}

TEST(TemplateLanguage, NamesBelongToTheFrameThatSetsThem) {
  const Json values = {{"a", "given"}, {"l", {1, 2}}};
  expect(
      {{"{% for x in l %}{{ a }}{% set a = x %}{% endfor %}{{ a }}", "givengivengiven"},
       // jinja2 decides before it runs: the outer frame sets `a`, so the loop does not see the caller's.
       {"{% for x in l %}[{{ a }}]{% endfor %}{% set a = 1 %}{{ a }}", "[][]1"},
       {"{% if l %}{% set a = 1 %}{% endif %}{{ a }}", "1"},
       {"{% if not l %}{% set a = 1 %}{% endif %}{{ a }}", "given"},
       {"{% macro m() %}{{ b }}{% endmacro %}{% set b = 2 %}{{ m() }}", "2"},
       {"{% set b = 1 %}{% block x %}{{ b }}{% set b = 2 %}{{ b }}{% endblock %}{{ b }}", "121"},
       {"{% for x in l %}{% block y %}{{ x }}{% endblock %}{% endfor %}", ""},
       {"{% set ns = namespace(n=0) %}{% for x in l %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}", "3"}},
      values);
}

TEST(TemplateLanguage, LoopsEndAsPythonsDo) {
  const Json values = {{"l", {1, 2, 3}}};
  expect({{"{% for x in l %}{% break %}{% else %}E{% endfor %}", "E"},  // no iteration ran to its end
          {"{% for x in l %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% else %}E{% endfor %}", "13"},
          {"{% for x in l %}{% for y in [] %}{% else %}{% break %}{% endfor %}{{ x }}{% endfor %}", ""},
          {"{% for x in l|select('odd') %}{{ x }}/{{ loop.length }}{{ loop.last }} {% endfor %}",
           "1/2False 3/2True "},
          {"{% set g = l|map('string') %}{{ g|join }}{{ g|join }}", "123"},
          {"{{ 'yes' if l|select('gt', 5) else 'no' }}", "yes"},  // a generator is always true
          {"{{ [0, {}]|map(attribute='a.b')|first is defined }}", "! 'int object' has no attribute 'a'"}},
         values);
}

TEST(TemplateLanguage, NothingIsEvaluatedThatIsNotReached) {
  expect({{"{{ 'x' if true else raise_exception('no') }}", "x"},
          {"{{ false and raise_exception('no') }}", "False"},
          {"{{ true or raise_exception('no') }}", "True"},
          {"{{ 1 > 2 > raise_exception('no') }}", "False"},
          {"{{ [1, 'a']|map('abs')|first }}", "1"},
          {"{% macro m(a=raise_exception('no')) %}{{ a }}{% endmacro %}{{ m(1) }}", "1"},
          {"{% for x in [] %}{{ raise_exception('no') }}{% endfor %}", ""}});
}

TEST(TemplateLanguage, MarkupEscapesWhatIsAdded) {
  expect({{"{{ ('<b>'|safe) + '<i>' }}", "<b>&lt;i&gt;"},
          {"{{ '<i>' + ('<b>'|safe) }}", "&lt;i&gt;<b>"},
          {"{{ ('<b>'|safe) ~ '<i>' }}", "<b><i>"},
          {"{{ ('<b>%s'|safe) % '<i>' }}", "! formatting of escaped text is not supported"},
          {"{{ ['<b>'|safe, '<'|e] }}", "[Markup('<b>'), Markup('&lt;')]"},
          {"{{ ('a-b'|safe).replace('-', '<') }}", "a&lt;b"},
          {"{{ ('a-b'|safe)|replace('-', '<') }}", "a<b"},
          {"{{ {'a': '<b>'|safe}|tojson }}", "{\"a\": \"<b>\"}"}});
}

TEST(TemplateLanguage, PlacesCountLinesAndCharacters) {
  EXPECT_EQ(written("{{ 1 }}\néé {{ nope.x }}", {}, true), "! t:2:11: 'nope' is undefined");
  EXPECT_EQ(written("\n\n  {% foo %}", {}, true), "! t:3:6: Encountered unknown tag 'foo'.");
  EXPECT_EQ(written("a\r\nb\r\n{{ 'x' + 1 }}", {}, true),
            "! t:3:8: can only concatenate str (not \"int\") to str");
  EXPECT_EQ(written("{% for x in [1] %}\n{{ raise_exception('stop') }}{% endfor %}", {}, true),
            "! t:2:19: stop");
  EXPECT_EQ(written("{{ 'a'|nope }}", {}, true), "! t:1:8: No filter named 'nope'.");
}

TEST(TemplateLanguage, WhatIsNotSupportedIsRefusedWhenItIsRead) {
  for (const auto& [source, name] : std::vector<std::pair<std::string, std::string>>{
           {"{{ x|urlize }}", "'urlize'"},
           {"{{ x|random }}", "'random'"},
           {"{{ x|attr('y') }}", "'attr'"},
           {"{{ x is nope }}", "'nope'"},
           {"{% include 'x' %}", "no loader"},
           {"{% autoescape true %}{% endautoescape %}", "autoescape"},
           {"{% block b scoped %}{% endblock %}", "scoped"},
           {"{{ self.b() }}", "self"},
           {"{{ x[1:2, 3] }}", "slices"},
           {"{% break %}", "'break' outside loop"},
           {"{% for x in y %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}",
            "'continue' outside loop"},
           {"{% for x in y %}{% set loop = 1 %}{% endfor %}", "loop variable"},
           {"{{ 170141183460469231731687303715884105728 }}", "128 bits"},
           {"\xFF", "UTF-8"}}) {
    try {
      const ChatTemplate form("model/chat_template.jinja", "{% if false %}" + source + "{% endif %}");
      ADD_FAILURE() << source;
    } catch (const DataError& error) {
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
      EXPECT_EQ(std::string(error.what()).find("model/chat_template.jinja"), 0u) << error.what();
    }
  }
}

TEST(TemplateLanguage, WhatWouldBeAnAddressOrChanceIsRefused) {
  EXPECT_EQ(written("{{ d.items }}", {{"d", {{"items", 1}}}}),
            "! prints a builtin_function_or_method, which Python writes as an address");
  EXPECT_EQ(written("{{ [1]|map('abs') }}"), "! prints a generator, which Python writes as an address");
  EXPECT_EQ(written("{{ lipsum() }}"), "! lipsum() is not supported: it is random");
  EXPECT_EQ(written("{{ 'a'.translate({}) }}"), "! str.translate is not supported");
  EXPECT_EQ(written("{{ 'a'.casefold() }}"), "! str.casefold is not supported");
  EXPECT_EQ(written("{% macro m(a) %}{% endmacro %}{{ m.arguments }}"),
            "! arguments of a macro is not supported");
  const ChatTemplate clock("t", "{{ strftime_now('%Y') }}");
  EXPECT_TRUE(clock.asks_date());
  EXPECT_THROW(clock.render({}), DataError);
  EXPECT_FALSE(ChatTemplate("t", "{% set strftime_now = 1 %}{{ strftime_now }}").asks_date());
}

}  // namespace retort::data
