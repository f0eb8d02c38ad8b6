// The parts of the template language by themselves: tokens, trees, variables, values, texts, numbers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "data/templates/access.h"
#include "data/templates/builtin.h"
#include "data/templates/expression_parser.h"
#include "data/templates/filters.h"
#include "data/templates/format.h"
#include "data/templates/heap.h"
#include "data/templates/interpreter.h"
#include "data/templates/json_value.h"
#include "data/templates/lexer.h"
#include "data/templates/number.h"
#include "data/templates/objects.h"
#include "data/templates/order.h"
#include "data/templates/parser.h"
#include "data/templates/print.h"
#include "data/templates/raised.h"
#include "data/templates/scopes.h"
#include "data/templates/syntax.h"
#include "data/templates/text.h"
#include "data/templates/text_methods.h"
#include "data/templates/value.h"
#include "tests/data/chat_data.h"

namespace retort::data::jinja {
namespace {

using ::testing::ElementsAre;
using testing::written;

std::vector<std::string> tokens(const std::string& source) {
  const std::string text = Lexer::prepared(source);
  Lexer lexer(text);
  std::vector<std::string> out;
  for (Token token = lexer.next(); token.kind != TokenKind::kEnd; token = lexer.next())
    out.emplace_back(token.text);
  return out;
}

std::string changed_case(std::string_view text, Case wanted) {
  Heap heap{TemplateLimits{}};
  Buffer out(heap);
  add_case(out, text, wanted);
  return std::string(out.view());
}

// Values made in a heap of their own, outside of a rendering.
class Values : public ::testing::Test {
 protected:
  Value of(const std::string& json) {
    kept_.push_back(std::make_unique<formats::Json>(formats::Json::parse(json)));
    return from_json(heap_, *kept_.back());
  }
  std::string repr(const Value& value) { return std::string(repr_of(interpreter_, value)); }

  Heap heap_{TemplateLimits{}};
  Syntax syntax_;
  Interpreter::Variables variables_;
  Interpreter interpreter_{syntax_, heap_, variables_, nullptr};
  std::vector<std::unique_ptr<formats::Json>> kept_;
};

}  // namespace

TEST(TemplateLexer, CutsTextAndTags) {
  EXPECT_THAT(tokens("a {{ x.y }} b"), ElementsAre("a ", "{{", "x", ".", "y", "}}", " b"));
  EXPECT_THAT(tokens("a\n  {%- if 1.5e3 -%}\n b"), ElementsAre("a", "{%-", "if", "1.5e3", "-%}\n ", "b"));
  EXPECT_THAT(tokens("{{ 'a\\'}}' }}{# x #}{% raw %}{{{% endraw %}"),
              ElementsAre("{{", "'a\\'}}'", "}}", "{{"));
  EXPECT_THAT(tokens("{{ {'a': {}} }}"), ElementsAre("{{", "{", "'a'", ":", "{", "}", "}", "}}"));
  EXPECT_THAT(tokens("{{ p.0.n }}{{ 1.5.x }}"),
              ElementsAre("{{", "p", ".", "0", ".", "n", "}}", "{{", "1.5", ".", "x", "}}"));
  EXPECT_EQ(Lexer::prepared("a\r\nb\rc\n\n"), "a\nb\nc\n");
}

TEST(TemplateParser, OperatorsBindAsInJinja2) {
  EXPECT_EQ(
      written(
          "{{ 2 * 3 ** 2 ~ 4 }} {{ 1 ~ 2 + '3' }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ not 1 == 2 and true }}"),
      "184 123 4 64 True");
  EXPECT_EQ(written("{{ -3|abs }} {{ 1 if 0 else 2 if 0 else 3 }} {{ 'a' 'b'|upper }}"), "3 3 AB");
  const auto syntax = parse("{% generation %}{{ strftime_now('%Y') }}{% endgeneration %}", TemplateLimits{});
  EXPECT_TRUE(syntax->generation);
  EXPECT_TRUE(syntax->clock);
  EXPECT_EQ(syntax->body.size(), 1u);
}

TEST(TemplateParser, CountsNodes) {
  TemplateLimits limits;
  limits.nodes = 3;
  EXPECT_NO_THROW(parse("{{ a }}x", limits));
  EXPECT_THROW(parse("{{ a }}{{ b }}", limits), Raised);
  limits.height = 2;
  EXPECT_THROW(parse("{{ a.b.c }}", limits), Raised);
}

TEST(TemplateScopes, AFrameKnowsHowItsNamesBegin) {
  const auto syntax =
      parse("{{ a }}{% set b = 1 %}{% for x in a %}{{ c }}{% set a = x %}{% endfor %}", TemplateLimits{});
  using From = Load::From;
  ASSERT_EQ(syntax->layout.size, 2u);
  EXPECT_EQ(syntax->layout.loads[0].from, From::kContext);  // a
  EXPECT_EQ(syntax->layout.loads[1].from, From::kNothing);  // b
  const auto& loop = static_cast<const ForLoop&>(*syntax->body[2]);
  ASSERT_EQ(loop.layout.size, 3u);
  EXPECT_EQ(loop.layout.loads[0].from, From::kParameter);  // x
  EXPECT_EQ(loop.layout.loads[1].from, From::kContext);    // c
  EXPECT_EQ(loop.layout.loads[2].from, From::kOuter);      // a
  EXPECT_EQ(loop.layout.loads[2].outer.up, 1u);
}

TEST_F(Values, CopyWhatJsonHolds) {
  EXPECT_EQ(repr(of(R"([1, -2.0, "é'", null, true, {"b": [], "a": {}}, 18446744073709551615])")),
            R"([1, -2.0, "é'", None, True, {'b': [], 'a': {}}, 18446744073709551615])");
  const formats::Json messages = formats::Json::parse(R"([{"role": "user"}, {}])");
  const Value list = from_json(heap_, messages, true);
  EXPECT_EQ(list.items()[1].dict().message, 1);
  EXPECT_EQ(of("{}").dict().message, -1);
}

TEST_F(Values, AreFoundInDictsByPythonsEquality) {
  Dict dict(heap_, 40);
  for (int64_t i = 0; i < 40; ++i) dict.set(heap_, Value::integer(i), Value::integer(i * i));
  dict.set(heap_, Value::real(7.0), Value::none());
  EXPECT_EQ(dict.size(), 40u);
  EXPECT_TRUE(dict.find(heap_, Value::integer(int64_t{7}))->is(Kind::kNone));
  EXPECT_TRUE(dict.find(heap_, Value::boolean(true))->integer() == 1);
  EXPECT_EQ(dict.find(heap_, Value::text("7")), nullptr);
  EXPECT_THROW(hash(heap_, of("[1]")), Raised);
}

TEST_F(Values, CompareExactly) {
  const Integer big = (Integer{1} << 53) + 1;  // no double is this
  EXPECT_FALSE(equal(heap_, Value::integer(heap_, big), Value::real(std::ldexp(1.0, 53))));
  EXPECT_TRUE(less(heap_, Value::real(std::ldexp(1.0, 53)), Value::integer(heap_, big)));
  EXPECT_TRUE(less(heap_, of("[1, 2]"), of("[1, 2, 0]")));
  EXPECT_TRUE(equal(heap_, of(R"({"a": 1, "b": 2})"), of(R"({"b": 2, "a": 1.0})")));
  EXPECT_FALSE(compared(interpreter_, Comparison::kIn, of("\"x\""), of("{\"y\": 1}")));
  EXPECT_THROW(less(heap_, of("1"), of("\"a\"")), Raised);
}

TEST_F(Values, AreCountedByTheHeap) {
  TemplateLimits limits;
  limits.memory = size_t{1} << 20;
  limits.text = 1000;
  Heap heap(limits);
  EXPECT_THROW(heap.copy(std::string(1001, 'x')), Raised);
  EXPECT_THROW(for (int i = 0; i < 100'000; ++i) heap.make<Dict>(heap, size_t{1}), Raised);
  Heap other(limits);
  Buffer buffer(other);
  EXPECT_THROW(buffer.repeat('x', 1001), Raised);
  buffer.repeat('x', 900);
  EXPECT_EQ(buffer.take().size(), 900u);
  limits.steps = 10;
  EXPECT_THROW(Heap(limits).step(11), Raised);
}

TEST_F(Values, CallWhatTheTablesHold) {
  const Value text = of("\"a-b\"");
  const Value dash = Value::text("-");
  const Builtin* split = find_method(text, "split");
  ASSERT_NE(split, nullptr);
  EXPECT_EQ(repr(run(interpreter_, *split, text, {{&dash, 1}, {}})), "['a', 'b']");
  EXPECT_EQ(find_method(text, "nope"), nullptr);
  EXPECT_TRUE(changes_value(of("[]"), "append"));
  const Named named{"seq", of("[1]")};
  EXPECT_TRUE(run(interpreter_, *tests().find("in"), of("1"), {{}, {&named, 1}}).boolean());
  const Named wrong{"sequence", of("[1]")};
  EXPECT_THROW(run(interpreter_, *tests().find("in"), of("1"), {{}, {&wrong, 1}}), Raised);
  EXPECT_THROW(run(interpreter_, *tests().find("in"), of("1"), {}), Raised);
  EXPECT_EQ(
      AttributePath(interpreter_, Value::text("a.1")).of(interpreter_, of(R"({"a": [1, 2]})")).integer(), 2);
}

TEST_F(Values, HaveTablesWithoutDoubles) {
  EXPECT_GT(filters().size(), 40u);  // a Registry refuses a row of a name that is there
  EXPECT_GT(tests().size(), 30u);
  EXPECT_GT(functions().size(), 7u);
  EXPECT_GT(text_methods().size(), 30u);
}

TEST(TemplateText, CountsCharacters) {
  EXPECT_EQ(characters("é🙂x", false), 3);
  EXPECT_EQ(byte_of("é🙂x", 2, false), 6u);
  EXPECT_EQ(strip("\u3000 x\u0085\u2003", nullptr, true, true), "x");
  EXPECT_EQ(strip("\u200Bx", nullptr, true, true), "\u200Bx");
  const std::string_view set = "é-";
  EXPECT_EQ(strip("é-xé", &set, true, false), "xé");
  EXPECT_EQ(characters("\xFF\xC3", false), 2);  // bytes that are no character
  const std::string hay = std::string(5000, 'a') + "b" + std::string(5000, 'a') + "c";
  const std::string needle = std::string(30, 'a') + "c";
  Heap heap{TemplateLimits{}};
  EXPECT_EQ(find(heap, hay, needle), hay.size() - needle.size());
  EXPECT_EQ(find(heap, hay, std::string(30, 'a') + "b"), 4970u);
  EXPECT_EQ(rfind(heap, hay, std::string(30, 'a') + "b"), 4970u);
  EXPECT_EQ(find(heap, hay, std::string(30, 'b')), std::string_view::npos);
  for (const std::string& text : {std::string("abcabc"), hay})  // across windows, and parts without a byte
    for (const std::string& part :
         {std::string(""), std::string("a"), std::string("b"), std::string("bc"), text})
      for (const size_t from : {size_t{0}, size_t{1}, size_t{600}, text.size()}) {
        EXPECT_EQ(find(heap, text, part, from), text.find(part, from)) << part << " from " << from;
        EXPECT_EQ(rfind(heap, text, part), text.rfind(part)) << part;
      }
}

TEST(TemplateText, ChangesCaseByFullMappings) {
  EXPECT_EQ(changed_case("straße ﬁn ŉ ΐ ᾀ ᾳ և", Case::kUpper), "STRASSE FIN ʼN \u0399\u0308\u0301 ἈΙ ΑΙ ԵՒ");
  EXPECT_EQ(changed_case("ΑΣ ΑΣΑ Σ İ", Case::kLower), "ας ασα σ i̇");
  EXPECT_EQ(changed_case("ǆ ßa they're", Case::kTitle), "ǅ Ssa They'Re");
  EXPECT_EQ(changed_case("ßA", Case::kCapital), "Ssa");
  EXPECT_EQ(changed_case("ß\xFF", Case::kSwap), "SS\xFF");
  EXPECT_EQ(changed_case("აბ", Case::kTitle), "აბ");
}

TEST(TemplateText, QuotesAsRepr) {
  EXPECT_EQ(in_quotes("it's"), "\"it's\"");
  EXPECT_EQ(in_quotes("'\""), "'\\'\"'");
  EXPECT_EQ(in_quotes("\n\x01\u2028\U0001F642\u00A0é"), "'\\n\\x01\\u2028🙂\\xa0é'");
}

TEST(TemplateNumber, IsSpelledAsByPython) {
  for (const auto& [value, text] :
       std::vector<std::pair<double, std::string>>{{1.0, "1.0"},
                                                   {-0.0, "-0.0"},
                                                   {0.1, "0.1"},
                                                   {1e16, "1e+16"},
                                                   {123456789012345680.0, "1.2345678901234568e+17"},
                                                   {1e-4, "0.0001"},
                                                   {1e-5, "1e-05"},
                                                   {1.5e300, "1.5e+300"},
                                                   {INFINITY, "inf"}})
    EXPECT_EQ(spelled(value), text);
  EXPECT_EQ(parse_integer(" -1_000 ", 10), Integer{-1000});
  EXPECT_EQ(parse_integer("0x1F", 0), Integer{31});
  EXPECT_EQ(parse_integer("1__0", 10), std::nullopt);
  EXPECT_EQ(parse_real("1e400"), INFINITY);
  EXPECT_EQ(parse_real("1_0.5"), 10.5);
  EXPECT_EQ(parse_real("0x1p3"), std::nullopt);
  EXPECT_EQ(rounded(2.675, 2), 2.67);
  EXPECT_THROW(truncated(NAN), Raised);
}

TEST(TemplateFormat, FillsInAsPython) {
  EXPECT_EQ(written("{{ '%d' % {'a': 'b'} }}"), "! %d format: a real number is required, not dict");
  EXPECT_EQ(written("{{ '%+5d|%-6s|%05.1f|%%|%r' % (7, 'ab', 2.25, 'q') }}"), "   +7|ab    |002.2|%|'q'");
  EXPECT_EQ(written("{{ '%s %s' % 1 }}"), "! not enough arguments for format string");
  EXPECT_EQ(written("{{ '%s' % (1, 2) }}"), "! not all arguments converted during string formatting");
  EXPECT_EQ(written("{{ '{0:>5}|{0:*^5}|{1:05d}|{2:.3}|{3:.1f}|{{}}'.format('é', -42, 'abcdef', 2.25) }}"),
            "    é|**é**|-0042|abc|2.2|{}");
  EXPECT_EQ(written("{{ '{0}{}'.format(1) }}"),
            "! cannot switch between manual field specification and automatic field numbering");
  EXPECT_EQ(formatted_time(testing::golden_clock(), "%A %-d %b %Y %j%z%f"), "Tuesday 3 Feb 2026 034000000");
}

TEST(TemplateFormat, RefusesByNameWhatTemplatesDoNotUse) {
  EXPECT_EQ(written("{{ '%x' % 7 }}"), "! the format %x is not supported");
  EXPECT_EQ(written("{{ '%(a)s' % {'a': 1} }}"), "! the format %( is not supported");
  EXPECT_EQ(written("{{ '{:,}'.format(7) }}"), "! the format specification ',' is not supported");
  EXPECT_EQ(written("{{ '{0.a}'.format(7) }}"), "! the format field '0.a' is not supported");
}

}  // namespace retort::data::jinja
