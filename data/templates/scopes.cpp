#include "data/templates/scopes.h"

#include <optional>
#include <unordered_map>
#include <unordered_set>

namespace retort::data::jinja {
namespace {

using Node = Expression::Kind;

// The names of one frame while they are being found.
class Names {
 public:
  Names(const Names* outer, Layout& layout, Syntax& syntax)
      : outer_(outer), layout_(layout), syntax_(syntax) {}

  std::optional<Slot> find(std::string_view name) const {
    Slot slot;
    for (const Names* frame = this; frame != nullptr; frame = frame->outer_, ++slot.up)
      if (const auto found = frame->indices_.find(name); found != frame->indices_.end()) {
        slot.index = found->second;
        return slot;
      }
    return std::nullopt;
  }

  uint32_t parameter(std::string_view name) {
    set_.insert(name);
    return define(name, Load::From::kParameter);
  }

  void read(std::string_view name, Place place) {
    if (find(name)) return;
    if (name == "self" || name == "super") raise_at(place, "the name {} is not supported", name);
    if (name == "strftime_now") syntax_.clock = true;
    define(name, Load::From::kContext);
  }

  void set(std::string_view name) {
    if (set_.insert(name).second) order_.push_back(name);
    if (indices_.contains(name)) return;
    begin_outside(name, Load::From::kNothing);
  }

  // What was set since `mark` may not have been: it begins with what it would mean without that.
  size_t mark() const { return order_.size(); }
  void maybe_set(size_t mark) {
    for (size_t i = mark; i < order_.size(); ++i) begin_outside(order_[i], Load::From::kContext);
  }

  const std::unordered_map<std::string_view, uint32_t>& indices() const { return indices_; }
  Syntax& syntax() const { return syntax_; }

 private:
  void begin_outside(std::string_view name, Load::From otherwise) {
    std::optional<Slot> outer;
    if (outer_ != nullptr) outer = outer_->find(name);
    if (!outer) {
      define(name, otherwise);
      return;
    }
    layout_.loads[define(name, Load::From::kOuter)].outer = {outer->up + 1, outer->index};
  }

  uint32_t define(std::string_view name, Load::From from) {
    const auto [found, added] = indices_.try_emplace(name, layout_.size);
    if (added) {
      layout_.loads.push_back({layout_.size, from, name, {}});
      return layout_.size++;
    }
    layout_.loads[found->second].from = from;  // loads are in the order of indices
    return found->second;
  }

  const Names* outer_;
  Layout& layout_;
  Syntax& syntax_;
  std::unordered_map<std::string_view, uint32_t> indices_;
  std::unordered_set<std::string_view> set_;
  std::vector<std::string_view> order_;
};

// --- first: the names of a frame ------------------------------------------------------------------------

void collect(const Expression* node, Names& names) {
  if (node == nullptr) return;
  if (node->kind == Node::kName || node->kind == Node::kAttributeOf) names.read(node->name, node->place);
  for (const Expression* part : node->parts) collect(part, names);
  collect(node->rest, names);
  collect(node->named_rest, names);
}

void collect_target(const Expression& node, Names& names) {
  if (node.kind == Node::kName) names.set(node.name);
  if (node.kind == Node::kAttributeOf) names.read(node.name, node.place);
  for (const Expression* part : node.parts) collect_target(*part, names);
}

void collect_parameters(const Expression& node, Names& names) {
  if (node.kind == Node::kName) names.parameter(node.name);
  for (const Expression* part : node.parts) collect_parameters(*part, names);
}

void collect(const Body& body, Names& names);

void collect_if(const If& choice, Names& names) {
  collect(choice.test, names);
  const size_t mark = names.mark();
  collect(choice.body, names);
  for (const If* other : choice.elifs) collect_if(*other, names);
  collect(choice.otherwise, names);
  names.maybe_set(mark);
}

void collect(const Body& body, Names& names) {
  for (const Statement* statement : body) {
    switch (statement->kind) {
      case Statement::Kind::kPrint:
        collect(static_cast<const Print*>(statement)->value, names);
        break;
      case Statement::Kind::kIf:
        collect_if(static_cast<const If&>(*statement), names);
        break;
      case Statement::Kind::kFor:
        collect(static_cast<const ForLoop*>(statement)->source, names);
        break;
      case Statement::Kind::kSet:
        collect(static_cast<const Set*>(statement)->value, names);
        collect_target(*static_cast<const Set*>(statement)->target, names);
        break;
      case Statement::Kind::kSetBlock:
        collect_target(*static_cast<const SetBlock*>(statement)->target, names);
        break;
      case Statement::Kind::kMacro:
        names.set(static_cast<const Macro*>(statement)->name);
        break;
      case Statement::Kind::kCallBlock:
        collect(static_cast<const CallBlock*>(statement)->call, names);
        break;
      case Statement::Kind::kFilterBlock:
        collect(static_cast<const FilterBlock*>(statement)->filter, names);
        break;
      case Statement::Kind::kWith:
        for (const Expression* value : static_cast<const With*>(statement)->values) collect(value, names);
        break;
      default:
        break;  // text, jumps; a block's names are its own
    }
  }
}

// --- then: what each name in it means -------------------------------------------------------------------

void resolve(Expression* node, const Names& names) {
  if (node == nullptr) return;
  if (node->kind == Node::kName || node->kind == Node::kAttributeOf)
    node->slot = names.find(node->name).value();
  for (Expression* part : node->parts) resolve(part, names);
  resolve(node->rest, names);
  resolve(node->named_rest, names);
}

void resolve(Body& body, const Names& names);

void resolve_body(Body& body, Names& names) {
  collect(body, names);
  resolve(body, names);
}

void resolve_if(If& choice, const Names& names) {
  resolve(choice.test, names);
  resolve(choice.body, names);
  for (If* other : choice.elifs) resolve_if(*other, names);
  resolve(choice.otherwise, names);
}

void resolve_loop(ForLoop& loop, const Names& names) {
  resolve(loop.source, names);
  if (loop.test != nullptr) {
    Names test(&names, loop.test_layout, names.syntax());
    collect_parameters(*loop.target, test);
    collect(loop.test, test);
    resolve(loop.test, test);
  }
  Names inner(&names, loop.layout, names.syntax());
  collect_parameters(*loop.target, inner);  // first, so that they lie as in the test's frame
  if (loop.names_loop) loop.loop_index = inner.parameter("loop");
  collect(loop.body, inner);
  resolve(loop.target, inner);
  resolve(loop.body, inner);
  Names otherwise(&names, loop.otherwise_layout, names.syntax());
  resolve_body(loop.otherwise, otherwise);
}

void resolve_macro(Macro& macro, const Names& names) {
  Names inner(&names, macro.layout, names.syntax());
  for (const Expression* parameter : macro.parameters)
    macro.indices.push_back(inner.parameter(parameter->name));
  const auto special = [&](bool named, std::string_view name) {
    if (!named) return uint32_t{0};
    const auto found = inner.indices().find(name);
    return found != inner.indices().end() ? found->second : inner.parameter(name);
  };
  macro.caller_index = special(macro.names_caller, "caller");
  for (const Expression* parameter : macro.parameters) {  // those of the macro's own hide what is left over
    if (parameter->name == "kwargs") macro.names_kwargs = false;
    if (parameter->name == "varargs") macro.names_varargs = false;
  }
  macro.kwargs_index = special(macro.names_kwargs, "kwargs");
  macro.varargs_index = special(macro.names_varargs, "varargs");
  for (const Expression* value : macro.defaults) collect(value, inner);
  collect(macro.body, inner);
  for (Expression* value : macro.defaults) resolve(value, inner);
  resolve(macro.body, inner);
}

void resolve_statement(Statement& statement, const Names& names) {
  switch (statement.kind) {
    case Statement::Kind::kPrint:
      return resolve(static_cast<Print&>(statement).value, names);
    case Statement::Kind::kIf:
      return resolve_if(static_cast<If&>(statement), names);
    case Statement::Kind::kFor:
      return resolve_loop(static_cast<ForLoop&>(statement), names);
    case Statement::Kind::kSet:
      resolve(static_cast<Set&>(statement).value, names);
      return resolve(static_cast<Set&>(statement).target, names);
    case Statement::Kind::kSetBlock: {
      auto& set = static_cast<SetBlock&>(statement);
      resolve(set.target, names);
      Names inner(&names, set.layout, names.syntax());
      collect(set.filter, inner);
      resolve_body(set.body, inner);
      return resolve(set.filter, inner);
    }
    case Statement::Kind::kMacro: {
      auto& macro = static_cast<Macro&>(statement);
      macro.slot = names.find(macro.name).value();
      return resolve_macro(macro, names);
    }
    case Statement::Kind::kCallBlock:
      resolve(static_cast<CallBlock&>(statement).call, names);
      return resolve_macro(*static_cast<CallBlock&>(statement).caller, names);
    case Statement::Kind::kFilterBlock: {
      auto& block = static_cast<FilterBlock&>(statement);
      Names inner(&names, block.layout, names.syntax());
      collect(block.filter, inner);
      resolve_body(block.body, inner);
      return resolve(block.filter, inner);
    }
    case Statement::Kind::kWith: {
      auto& with = static_cast<With&>(statement);
      for (Expression* value : with.values) resolve(value, names);
      Names inner(&names, with.layout, names.syntax());
      for (const Expression* target : with.targets) collect_parameters(*target, inner);
      resolve_body(with.body, inner);
      for (Expression* target : with.targets) resolve(target, inner);
      return;
    }
    case Statement::Kind::kBlock: {
      auto& block = static_cast<Block&>(statement);
      Names inner(nullptr, block.layout, names.syntax());
      return resolve_body(block.body, inner);
    }
    default:
      return;
  }
}

void resolve(Body& body, const Names& names) {
  for (Statement* statement : body) resolve_statement(*statement, names);
}

bool has_blocks(const Syntax& syntax) {
  for (const auto& statement : syntax.statements)
    if (statement->kind == Statement::Kind::kBlock) return true;
  return false;
}

}  // namespace

void resolve_names(Syntax& syntax) {
  Names names(nullptr, syntax.layout, syntax);
  resolve_body(syntax.body, names);
  if (has_blocks(syntax)) syntax.variables.assign(names.indices().begin(), names.indices().end());
}

}  // namespace retort::data::jinja
