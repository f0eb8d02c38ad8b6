// A template as a tree. The nodes lie in one Syntax and point to each other and into its source; it is made once
// by the parser, completed by scopes.cpp (which variable a name means), and never changes again.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/templates/builtin.h"
#include "data/templates/order.h"
#include "data/templates/raised.h"

namespace retort::data::jinja {

// A variable: `up` frames out of the one that names it, the `index`th there.
struct Slot {
  uint32_t up = 0, index = 0;
};

// How a frame's variables begin, in order.
struct Load {
  enum class From { kParameter, kContext, kOuter, kNothing };
  uint32_t index;
  From from;
  std::string_view name;
  Slot outer;
};
struct Layout {
  std::vector<Load> loads;
  uint32_t size = 0;
};

enum class Operator { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };

struct Expression {
  enum class Kind {
    kConstant,    // constant
    kName,        // name, slot
    kList,        // parts
    kTuple,       // parts
    kDict,        // parts: key, value, key, value, ...
    kAttribute,   // parts[0], name
    kItem,        // parts[0], parts[1]
    kSlice,       // parts[0]; parts[1..3]: start, stop, step or null
    kCall,        // parts[0], then as kFilter
    kFilter,      // parts[0] (null: a block's text); builtin; the others: arguments, the last ones by `names`
    kTest,        // the same
    kNot,         // parts[0]
    kNegative,    // parts[0]
    kPositive,    // parts[0]
    kAnd,         // parts[0], parts[1]
    kOr,          // parts[0], parts[1]
    kCondition,   // parts[0] if parts[1] else parts[2], which may be null
    kComparison,  // parts, with `comparisons` between
    kConcat,      // parts
    kBinary,      // parts[0] operation parts[1]
    kAttributeOf  // name.attribute, to be set: slot, name, constant (the attribute)
  };
  Kind kind;
  Operator operation = Operator::kAdd;
  Place place;
  uint32_t height = 1;  // nodes on the longest way down
  Slot slot;
  std::string_view name;
  Value constant;
  std::vector<Expression*> parts;
  std::vector<std::string_view> names;
  std::vector<Comparison> comparisons;
  Expression *rest = nullptr, *named_rest = nullptr;  // *rest, **named_rest of a call
  const Builtin* builtin = nullptr;
};

struct Statement {
  enum class Kind {
    kText,
    kPrint,
    kIf,
    kFor,
    kSet,
    kSetBlock,
    kMacro,
    kCallBlock,
    kFilterBlock,
    kWith,
    kBlock,
    kBreak,
    kContinue
  };
  Statement(Kind kind, Place place) : kind(kind), place(place) {}
  virtual ~Statement() = default;
  const Kind kind;
  const Place place;
};
using Body = std::vector<Statement*>;

struct Text final : Statement {
  Text(Place place, std::string_view text) : Statement(Kind::kText, place), text(text) {}
  std::string_view text;
};

struct Print final : Statement {
  Print(Place place, Expression* value) : Statement(Kind::kPrint, place), value(value) {}
  Expression* value;
};

struct If final : Statement {
  explicit If(Place place) : Statement(Kind::kIf, place) {}
  Expression* test = nullptr;
  Body body, otherwise;
  std::vector<If*> elifs;  // each without elifs and otherwise
};

struct ForLoop final : Statement {
  explicit ForLoop(Place place) : Statement(Kind::kFor, place) {}
  Expression *target = nullptr, *source = nullptr, *test = nullptr;
  bool recursive = false, names_loop = false;
  Body body, otherwise;
  Layout layout, test_layout, otherwise_layout;
  uint32_t loop_index = 0;  // of the variable `loop`
};

struct Set final : Statement {
  explicit Set(Place place) : Statement(Kind::kSet, place) {}
  Expression *target = nullptr, *value = nullptr;
};

struct SetBlock final : Statement {
  explicit SetBlock(Place place) : Statement(Kind::kSetBlock, place) {}
  Expression *target = nullptr, *filter = nullptr;  // a filter or null
  Body body;
  Layout layout;
};

struct Macro final : Statement {
  explicit Macro(Place place) : Statement(Kind::kMacro, place) {}
  std::string_view name;  // empty: of a call block
  Slot slot;
  std::vector<Expression*> parameters, defaults;  // the defaults are the last parameters'
  Body body;
  Layout layout;
  std::vector<uint32_t> indices;  // of the parameters' variables
  bool names_caller = false, names_varargs = false, names_kwargs = false;
  uint32_t caller_index = 0, varargs_index = 0, kwargs_index = 0;
};

struct CallBlock final : Statement {
  CallBlock(Place place, Macro* caller) : Statement(Kind::kCallBlock, place), caller(caller) {}
  Macro* caller;
  Expression* call = nullptr;  // null: {% generation %}
};

struct FilterBlock final : Statement {
  explicit FilterBlock(Place place) : Statement(Kind::kFilterBlock, place) {}
  Expression* filter = nullptr;
  Body body;
  Layout layout;
};

struct With final : Statement {
  explicit With(Place place) : Statement(Kind::kWith, place) {}
  std::vector<Expression*> targets, values;
  Body body;
  Layout layout;
};

struct Block final : Statement {
  explicit Block(Place place) : Statement(Kind::kBlock, place) {}
  std::string_view name;
  Body body;
  Layout layout;
};

struct Jump final : Statement {  // break or continue
  using Statement::Statement;
};

struct Syntax {
  std::string source;             // with \n for every end of a line
  std::deque<std::string> texts;  // of literals with escapes
  std::deque<Integer> integers;   // beyond 64 bits
  std::deque<Expression> expressions;
  std::vector<std::unique_ptr<Statement>> statements;
  Body body;
  Layout layout;
  std::vector<std::pair<std::string_view, uint32_t>> variables;  // of the outermost frame, for blocks
  bool generation = false;                                       // whether there is a {% generation %}
  bool clock = false;                                            // whether strftime_now is named
};

}  // namespace retort::data::jinja
