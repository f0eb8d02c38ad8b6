#include "data/templates/interpreter.h"

#include <algorithm>

#include "data/templates/access.h"
#include "data/templates/print.h"
#include "data/templates/text.h"

namespace retort::data::jinja {
namespace {

// The values that pass a loop's own condition.
struct FilteredIterator final : Iterator {
  FilteredIterator(const ForLoop& loop, Iterator* values, Frame* frame)
      : loop(loop), values(values), frame(frame) {}
  bool next(Interpreter& at, Value& value) override {
    while (values->next(at, value)) {
      at.heap().step();
      at.assign(*loop.target, frame, value);
      if (at.test(*loop.test, frame)) return true;
    }
    return false;
  }

  const ForLoop& loop;
  Iterator* values;
  Frame* frame;
};

bool empty(const Value& value) { return value.missing(); }

}  // namespace

// What is printed while it lives is kept back.
class Interpreter::Capture {
 public:
  explicit Capture(Interpreter& at) : at_(at), buffer_(at.heap_), before_(std::exchange(at.out_, &buffer_)) {}
  ~Capture() { at_.out_ = before_; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  Value take() { return Value::text(buffer_.take()); }

 private:
  Interpreter& at_;
  Buffer buffer_;
  Buffer* before_;
};

Interpreter::Interpreter(const Syntax& syntax, Heap& heap, const Variables& variables, const std::tm* clock)
    : syntax_(syntax), heap_(heap), variables_(variables), clock_(clock), main_(heap) {}

void Interpreter::too_deep() {
  raise("is nested deeper than {} while it runs, the limit of a rendering", heap_.limits().depth);
}

const std::tm& Interpreter::clock() const {
  if (clock_ == nullptr) raise("asks for the date, and none is given");
  return *clock_;
}

void Interpreter::run() {
  root_ = enter(syntax_.layout, nullptr);
  execute(syntax_.body, root_);
}

// --- frames --------------------------------------------------------------------------------------------

Frame* Interpreter::enter(const Layout& layout, Frame* outer) {
  Frame* frame = heap_.make<Frame>(outer, heap_.array<Value>(layout.size));
  reset(layout, frame);
  return frame;
}

void Interpreter::reset(const Layout& layout, Frame* frame) {
  heap_.step(layout.loads.size());
  for (const Load& load : layout.loads) {
    Value& variable = frame->variables[load.index];
    if (load.from == Load::From::kContext)
      variable = resolve(load.name);
    else if (load.from == Load::From::kNothing)
      variable = {};
    else if (load.from == Load::From::kOuter) {
      const Frame* outer = frame;
      for (uint32_t up = load.outer.up; up > 0; --up) outer = outer->outer;
      variable = outer->variables[load.outer.index];
    }
  }
}

Value Interpreter::resolve(std::string_view name) {
  heap_.step(syntax_.variables.size());
  if (root_ != nullptr)  // a block sees what the template has set so far
    for (const auto& [variable, index] : syntax_.variables)
      if (variable == name && !root_->variables[index].missing()) return root_->variables[index];
  for (const auto& [variable, value] : variables_)
    if (variable == name) return value;
  if (const Builtin* function = functions().find(name))
    return Value::object(heap_.make<Function>(*function, Value::none()));
  return {};
}

void Interpreter::assign(const Expression& target, Frame* frame, const Value& value) {
  heap_.step();
  switch (target.kind) {
    case Expression::Kind::kName: {
      for (uint32_t up = target.slot.up; up > 0; --up) frame = frame->outer;
      frame->variables[target.slot.index] = value;
      return;
    }
    case Expression::Kind::kAttributeOf: {
      const Value owner = evaluate_name(target, frame);
      auto* space = owner.is(Kind::kObject) ? dynamic_cast<Namespace*>(&owner.object()) : nullptr;
      if (space == nullptr) raise("cannot assign attribute on non-namespace object");
      return space->set(heap_, target.constant, value);
    }
    default:
      break;
  }
  Iterator* values = iterate(*this, value);
  Value one;
  for (size_t i = 0; i < target.parts.size(); ++i) {
    if (!values->next(*this, one))
      raise("not enough values to unpack (expected {}, got {})", target.parts.size(), i);
    assign(*target.parts[i], frame, one);
  }
  if (values->next(*this, one)) raise("too many values to unpack (expected {})", target.parts.size());
}

// --- statements ----------------------------------------------------------------------------------------

Interpreter::Flow Interpreter::execute(const Body& body, Frame* frame) {
  for (const Statement* statement : body)
    if (const Flow flow = execute(*statement, frame); flow != Flow::kOn) return flow;
  return Flow::kOn;
}

Interpreter::Flow Interpreter::execute(const Statement& statement, Frame* frame) {
  const Deeper deeper(*this);
  heap_.step();
  place_ = statement.place;
  switch (statement.kind) {
    case Statement::Kind::kText:
      out_->add(static_cast<const Text&>(statement).text);
      break;
    case Statement::Kind::kPrint:
      print(*this, *out_, evaluate(*static_cast<const Print&>(statement).value, frame));
      break;
    case Statement::Kind::kIf:
      return execute_if(static_cast<const If&>(statement), frame);
    case Statement::Kind::kFor: {
      const auto& loop = static_cast<const ForLoop&>(statement);
      const Value source = evaluate(*loop.source, frame);
      if (!loop.recursive) return execute_loop(loop, frame, source, 0);
      out_->add(call_loop(loop, frame, source, 0).bytes());
      break;
    }
    case Statement::Kind::kSet:
      execute_set(static_cast<const Set&>(statement), frame);
      break;
    case Statement::Kind::kSetBlock:
      execute_set_block(static_cast<const SetBlock&>(statement), frame);
      break;
    case Statement::Kind::kMacro: {
      const auto& macro = static_cast<const Macro&>(statement);
      frame->variables[macro.slot.index] = Value::object(heap_.make<MacroObject>(macro, frame));
      break;
    }
    case Statement::Kind::kCallBlock:
      execute_call_block(static_cast<const CallBlock&>(statement), frame);
      break;
    case Statement::Kind::kFilterBlock:
      execute_filter_block(static_cast<const FilterBlock&>(statement), frame);
      break;
    case Statement::Kind::kWith:
      return execute_with(static_cast<const With&>(statement), frame);
    case Statement::Kind::kBlock: {
      const auto& block = static_cast<const Block&>(statement);
      execute(block.body, enter(block.layout, nullptr));
      break;
    }
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kOn;
}

Interpreter::Flow Interpreter::execute_if(const If& choice, Frame* frame) {
  if (truth(evaluate(*choice.test, frame))) return execute(choice.body, frame);
  for (const If* other : choice.elifs)
    if (truth(evaluate(*other->test, frame))) return execute(other->body, frame);
  return execute(choice.otherwise, frame);
}

Interpreter::Flow Interpreter::execute_loop(const ForLoop& loop, Frame* frame, const Value& source,
                                            int64_t depth) {
  const int32_t message_before = message_;
  const bool marks = loop.target->kind == Expression::Kind::kName;
  Iterator* values = iterate(*this, source);
  if (loop.test != nullptr)
    values = heap_.make<FilteredIterator>(loop, values, enter(loop.test_layout, frame));
  Frame* inner = enter(loop.layout, frame);
  Loop* state = heap_.make<Loop>(loop.test != nullptr ? Value::object(values) : source, values, depth);
  if (loop.recursive) state->recursive = &loop, state->frame = frame;
  bool complete = false;  // an iteration ran to its end
  while (state->advance(*this)) {
    heap_.step();
    reset(loop.layout, inner);
    if (loop.names_loop) inner->variables[loop.loop_index] = Value::object(state);
    assign(*loop.target, inner, state->current);
    if (marks && state->current.is(Kind::kDict) && state->current.dict().message >= 0)
      note(state->current.dict().message);
    const Flow flow = execute(loop.body, inner);
    if (flow == Flow::kBreak) break;
    complete |= flow == Flow::kOn;
  }
  Flow flow = Flow::kOn;
  if (!complete && !loop.otherwise.empty())
    flow = execute(loop.otherwise, enter(loop.otherwise_layout, frame));
  if (marks) note(message_before);
  return flow;
}

Value Interpreter::call_loop(const ForLoop& loop, Frame* frame, const Value& source, int64_t depth) {
  const Deeper deeper(*this);
  Capture capture(*this);
  execute_loop(loop, frame, source, depth);
  return capture.take();
}

void Interpreter::note(int32_t message) {
  message_ = message;
  if (!marks_.empty() && marks_.back().offset == main_.size()) {
    marks_.back().message = message;
    return;
  }
  heap_.charge(3 * sizeof(Mark));  // with what the vector has to spare
  marks_.push_back({main_.size(), message});
}

void Interpreter::check_namespaces(const Expression& target, Frame* frame) {
  if (target.kind == Expression::Kind::kAttributeOf) {
    const Value owner = evaluate_name(target, frame);
    if (!owner.is(Kind::kObject) || dynamic_cast<Namespace*>(&owner.object()) == nullptr)
      raise("cannot assign attribute on non-namespace object");
  }
  for (const Expression* part : target.parts) check_namespaces(*part, frame);
}

void Interpreter::execute_set(const Set& set, Frame* frame) {
  check_namespaces(*set.target, frame);
  const Value value = evaluate(*set.value, frame);
  place_ = set.place;
  assign(*set.target, frame, value);
}

void Interpreter::execute_set_block(const SetBlock& set, Frame* frame) {
  Frame* inner = enter(set.layout, frame);
  Value text;
  {
    Capture capture(*this);
    execute(set.body, inner);
    text = capture.take();
  }
  if (set.filter != nullptr) {
    block_text_ = text;
    text = evaluate(*set.filter, inner);
  }
  assign(*set.target, frame, text);
}

void Interpreter::execute_filter_block(const FilterBlock& block, Frame* frame) {
  Frame* inner = enter(block.layout, frame);
  {
    Capture capture(*this);
    execute(block.body, inner);
    block_text_ = capture.take();
  }
  write(evaluate(*block.filter, inner));
}

void Interpreter::execute_call_block(const CallBlock& block, Frame* frame) {
  const Value caller = Value::object(heap_.make<MacroObject>(*block.caller, frame));
  if (block.call != nullptr) {
    write(evaluate_call(*block.call, frame, &caller));
    return;
  }
  const Value text = call(caller, {});
  heap_.charge(3 * sizeof(Generation));
  generation_.push_back({main_.size(), text.bytes().size()});
  out_->add(text.bytes());
}

void Interpreter::write(const Value& value) {
  if (!value.is(Kind::kText)) raise("sequence item 0: expected str instance, {} found", type_name(value));
  out_->add(value.bytes());
}

Interpreter::Flow Interpreter::execute_with(const With& with, Frame* frame) {
  Frame* inner = enter(with.layout, frame);
  for (size_t i = 0; i < with.targets.size(); ++i)
    assign(*with.targets[i], inner, evaluate(*with.values[i], frame));
  return execute(with.body, inner);
}

// --- macros --------------------------------------------------------------------------------------------

Value Interpreter::call_macro(const MacroObject& macro, const Arguments& given) {
  const Deeper deeper(*this);
  const Macro& syntax = macro.syntax;
  Frame* frame = enter(syntax.layout, macro.frame);
  bind(macro, given, frame);
  const size_t required = syntax.parameters.size() - syntax.defaults.size();
  for (size_t i = 0; i < syntax.parameters.size(); ++i) {
    Value& variable = frame->variables[syntax.indices[i]];
    if (!empty(variable)) continue;
    variable = i >= required ? evaluate(*syntax.defaults[i - required], frame)
                             : Value::undefined(heap_.copy(fmt::format(
                                   "parameter {} was not provided", in_quotes(syntax.parameters[i]->name))));
  }
  Capture capture(*this);
  execute(syntax.body, frame);
  return capture.take();
}

// As Macro.__call__ of jinja2: arguments by place, by name, then what is left.
void Interpreter::bind(const MacroObject& macro, const Arguments& given, Frame* frame) {
  const Macro& syntax = macro.syntax;
  const size_t count = syntax.parameters.size();
  const size_t placed = std::min(count, given.positional.size());
  std::vector<bool> used(given.named.size(), false);
  const auto take = [&](std::string_view name) -> Value {
    heap_.step(given.named.size());
    for (size_t i = 0; i < given.named.size(); ++i)
      if (given.named[i].name == name && !used[i]) {
        used[i] = true;
        return given.named[i].value;
      }
    return {};
  };
  bool explicit_caller = false;
  for (size_t i = 0; i < count; ++i) {
    const std::string_view name = syntax.parameters[i]->name;
    explicit_caller |= name == "caller";
    frame->variables[syntax.indices[i]] = i < placed ? given.positional[i] : take(name);
  }
  if (syntax.names_caller && !explicit_caller) {
    const Value caller = take("caller");
    frame->variables[syntax.caller_index] =
        empty(caller) || caller.is(Kind::kNone) ? Value::undefined("No caller defined") : caller;
  }
  Dict* rest = syntax.names_kwargs ? heap_.make<Dict>(heap_, given.named.size()) : nullptr;
  for (size_t i = 0; i < given.named.size(); ++i) {
    if (used[i]) continue;
    if (rest == nullptr)
      raise("macro {} takes no keyword argument {}", syntax.name.empty() ? "None" : in_quotes(syntax.name),
            in_quotes(given.named[i].name));
    rest->set(heap_, Value::text(given.named[i].name), given.named[i].value);
  }
  if (rest != nullptr) frame->variables[syntax.kwargs_index] = Value::dict(rest);
  if (syntax.names_varargs)
    frame->variables[syntax.varargs_index] = Value::tuple(given.positional.subspan(placed));
  else if (given.positional.size() > count)
    raise("macro {} takes not more than {} argument(s)",
          syntax.name.empty() ? "None" : in_quotes(syntax.name), count);
}

}  // namespace retort::data::jinja
