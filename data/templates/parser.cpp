#include "data/templates/parser.h"

#include <algorithm>
#include <set>

#include "data/templates/expression_parser.h"
#include "data/templates/scopes.h"
#include "data/templates/text.h"

namespace retort::data::jinja {
namespace {

using Ends = std::vector<std::string_view>;

std::string alternatives(const Ends& ends) {
  std::string out;
  for (const std::string_view end : ends) out += (out.empty() ? "" : " or ") + in_quotes(end);
  return out;
}

class Parser final : ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  void run() { syntax_.body = statements(nullptr); }

 private:
  struct Tag {
    std::string_view name;
    void (Parser::*parse)(Body& out);
  };
  static const std::vector<Tag>& tags();

  template <class Node, class... Args>
  Node* add(Place place, Args&&... args) {
    count_node();
    auto made = std::make_unique<Node>(place, std::forward<Args>(args)...);
    Node* const out = made.get();
    syntax_.statements.push_back(std::move(made));
    return out;
  }

  // --- bodies
  // Up to one of `ends`, at whose name it stops; null: up to the end of the template.
  Body statements(const Ends* ends) {
    Body out;
    if (ends != nullptr) ends_.push_back(*ends);
    while (current().kind != TokenKind::kEnd) {
      if (current().kind == TokenKind::kText) {
        const Token text = advance();
        out.push_back(add<Text>(text.place, text.text));
      } else if (current().kind == TokenKind::kPrintBegin) {
        advance();
        const Place place = current().place;
        out.push_back(add<Print>(place, tuple()));
        expect(TokenKind::kPrintEnd);
      } else {
        expect(TokenKind::kBlockBegin);
        if (ends != nullptr && current().kind == TokenKind::kName &&
            std::find(ends->begin(), ends->end(), current().text) != ends->end())
          break;
        statement(out);
        expect(TokenKind::kBlockEnd);
      }
    }
    if (ends != nullptr) ends_.pop_back();
    return out;
  }

  // After a tag's own words: its body, and the name of the tag that ends it.
  Body body(const Ends& ends, std::string_view* ended = nullptr) {
    skip_operator(":");
    expect(TokenKind::kBlockEnd);
    Body out = statements(&ends);
    if (current().kind == TokenKind::kEnd) {
      ends_.push_back(ends);
      lost("Unexpected end of template.", "");
    }
    const Token end = advance();
    if (ended != nullptr) *ended = end.text;
    return out;
  }

  [[noreturn]] void lost(std::string text, std::string_view name) {
    if (!ends_.empty()) {
      const bool expected = std::any_of(ends_.begin(), ends_.end(), [&](const Ends& ends) {
        return !name.empty() && std::find(ends.begin(), ends.end(), name) != ends.end();
      });
      text += expected ? " You probably made a nesting mistake. Jinja is expecting this tag, but currently "
                         "looking for "
                       : " Jinja was looking for the following tags: ";
      text += alternatives(ends_.back()) + ".";
    }
    if (!open_.empty())
      text += fmt::format(" The innermost block that needs to be closed is {}.", in_quotes(open_.back()));
    raise_at(current().place, "{}", text);
  }

  void statement(Body& out) {
    const Nested nested(*this);
    if (current().kind != TokenKind::kName) raise_at(current().place, "tag name expected");
    const std::string_view name = current().text;
    for (const Tag& tag : tags()) {
      if (tag.name != name) continue;
      open_.push_back(name);
      (this->*tag.parse)(out);
      open_.pop_back();
      return;
    }
    for (const std::string_view loads : {"include", "import", "from", "extends"})
      if (name == loads) raise_at(current().place, "no loader for this environment specified");
    if (name == "autoescape") raise_at(current().place, "autoescape is not supported");
    lost(fmt::format("Encountered unknown tag {}.", in_quotes(name)), name);
  }

  // --- tags
  void parse_if(Body& out) {
    auto* const choice = add<If>(advance().place);
    out.push_back(choice);
    If* node = choice;
    std::string_view ended;
    while (true) {
      node->test = tuple(false);
      node->body = body({"elif", "else", "endif"}, &ended);
      if (ended != "elif") break;
      node = add<If>(current().place);
      choice->elifs.push_back(node);
    }
    if (ended == "else") choice->otherwise = body({"endif"});
  }

  void parse_for(Body& out) {
    const size_t stores = loop_stores_;
    auto* const loop = add<ForLoop>(advance().place);
    out.push_back(loop);
    loop->target = target(false, "in");
    expect_name("in");
    loop->source = tuple(false, "recursive");
    if (skip_name("if")) loop->test = expression();
    loop->recursive = skip_name("recursive");
    const size_t reads = reads_[kLoop];
    std::string_view ended;
    ++loops_;
    loop->body = body({"endfor", "else"}, &ended);
    --loops_;
    loop->names_loop = loop->recursive || reads_[kLoop] > reads;
    if (ended == "else") loop->otherwise = body({"endfor"});
    if (loop_stores_ > stores)
      raise_at(loop->place, "Can't assign to special loop variable in for-loop target");
  }

  void parse_set(Body& out) {
    const Place place = advance().place;
    Expression* const left = target(true);
    if (skip_operator("=")) {
      auto* const set = add<Set>(place);
      set->target = left;
      set->value = tuple();
      return out.push_back(set);
    }
    auto* const set = add<SetBlock>(place);
    set->target = left;
    set->filter = filters(nullptr, false);
    set->body = body({"endset"});
    out.push_back(set);
  }

  void parse_with(Body& out) {
    auto* const with = add<With>(advance().place);
    while (current().kind != TokenKind::kBlockEnd) {
      if (!with->targets.empty()) expect_operator(",");
      with->targets.push_back(target(false));
      expect_operator("=");
      with->values.push_back(expression());
    }
    with->body = body({"endwith"});
    out.push_back(with);
  }

  void signature(Macro& macro) {
    expect_operator("(");
    while (!current().is_operator(")")) {
      if (!macro.parameters.empty()) expect_operator(",");
      macro.parameters.push_back(target_name());
      if (skip_operator("="))
        macro.defaults.push_back(expression());
      else if (!macro.defaults.empty())
        raise_at(current().place, "non-default argument follows default argument");
    }
    expect_operator(")");
  }

  void macro_body(Macro& macro, std::string_view end) {
    const Counts before = reads_;
    const size_t loops = std::exchange(loops_, 0);
    macro.body = body({end});
    loops_ = loops;
    macro.names_caller = reads_[kCaller] > before[kCaller];
    macro.names_varargs = reads_[kVarargs] > before[kVarargs];
    macro.names_kwargs = reads_[kKwargs] > before[kKwargs];
  }

  void parse_macro(Body& out) {
    auto* const macro = add<Macro>(advance().place);
    macro->name = target_name()->name;
    signature(*macro);
    macro_body(*macro, "endmacro");
    out.push_back(macro);
  }

  void parse_call(Body& out) {
    const Place place = advance().place;
    auto* const caller = add<Macro>(place);
    if (current().is_operator("(")) signature(*caller);
    auto* const block = add<CallBlock>(place, caller);
    block->call = expression();
    if (block->call->kind != Expression::Kind::kCall) raise_at(place, "expected call");
    macro_body(*caller, "endcall");
    out.push_back(block);
  }

  void parse_generation(Body& out) {
    const Place place = advance().place;
    auto* const body = add<Macro>(place);
    macro_body(*body, "endgeneration");
    out.push_back(add<CallBlock>(place, body));
    syntax_.generation = true;
  }

  void parse_filter(Body& out) {
    auto* const block = add<FilterBlock>(advance().place);
    block->filter = filters(nullptr, true);
    block->body = body({"endfilter"});
    out.push_back(block);
  }

  void parse_block(Body& out) {
    auto* const block = add<Block>(advance().place);
    block->name = expect(TokenKind::kName).text;
    if (!blocks_.insert(block->name).second)
      raise_at(block->place, "block {} defined twice", in_quotes(block->name));
    for (const std::string_view word : {"scoped", "required"})
      if (current().is_name(word)) raise_at(current().place, "a block's {} is not supported", word);
    const size_t loops = std::exchange(loops_, 0);
    block->body = body({"endblock"});
    loops_ = loops;
    skip_name(block->name);
    out.push_back(block);
  }

  void parse_print(Body& out) {
    advance();
    for (bool first = true; current().kind != TokenKind::kBlockEnd; first = false) {
      if (!first) expect_operator(",");
      const Place place = current().place;
      out.push_back(add<Print>(place, expression()));
    }
  }

  void parse_jump(Body& out) {
    const Token word = advance();
    if (loops_ == 0) raise_at(word.place, "'{}' outside loop", word.text);
    const auto kind = word.text == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue;
    count_node();
    syntax_.statements.push_back(std::make_unique<Jump>(kind, word.place));
    out.push_back(syntax_.statements.back().get());
  }

  std::vector<Ends> ends_;              // of the bodies that are open
  std::vector<std::string_view> open_;  // their tags
  std::set<std::string_view> blocks_;
  size_t loops_ = 0;
};

const std::vector<Parser::Tag>& Parser::tags() {
  static const std::vector<Tag> table = {
      {"if", &Parser::parse_if},         {"for", &Parser::parse_for},
      {"set", &Parser::parse_set},       {"with", &Parser::parse_with},
      {"macro", &Parser::parse_macro},   {"call", &Parser::parse_call},
      {"filter", &Parser::parse_filter}, {"block", &Parser::parse_block},
      {"print", &Parser::parse_print},   {"generation", &Parser::parse_generation},
      {"break", &Parser::parse_jump},    {"continue", &Parser::parse_jump}};
  return table;
}

}  // namespace

std::unique_ptr<const Syntax> parse(std::string_view source, const TemplateLimits& limits) {
  if (source.size() > limits.source)
    raise_at({}, "has {} bytes; the limit of a template is {}", source.size(), limits.source);
  auto syntax = std::make_unique<Syntax>();
  syntax->source = Lexer::prepared(source);
  Parser(*syntax, limits).run();
  resolve_names(*syntax);
  return syntax;
}

}  // namespace retort::data::jinja
