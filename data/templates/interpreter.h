// Runs a template's tree: what jinja2 compiles to Python and Python then does. Frames hold variables; a macro
// keeps the frame it was made in. Nothing is evaluated that the template does not reach. Beside the text it
// notes where each message of the conversation is printed, and what {% generation %} holds.
// One rendering, one thread. Throws Raised.
#pragma once

#include <ctime>
#include <string_view>
#include <utility>
#include <vector>

#include "data/templates/syntax.h"

namespace retort::data::jinja {

struct Frame {
  Frame* outer;
  Value* variables;
};

// From `offset` of the output on, message `message` (or none, -1) is being printed.
struct Mark {
  size_t offset;
  int32_t message;
};

class Interpreter {
 public:
  using Variables = std::vector<std::pair<std::string_view, Value>>;
  struct Generation {
    size_t begin, bytes;
  };

  // Counts how deep the rendering is within itself, while it lives.
  class Deeper {
   public:
    explicit Deeper(Interpreter& at) : at_(at) {
      if (++at_.depth_ > at_.heap_.limits().depth) at_.too_deep();
    }
    ~Deeper() { --at_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;

   private:
    Interpreter& at_;
  };

  Interpreter(const Syntax& syntax, Heap& heap, const Variables& variables, const std::tm* clock);
  void run();
  std::string_view output() const { return main_.view(); }
  const std::vector<Mark>& marks() const { return marks_; }
  const std::vector<Generation>& generation() const { return generation_; }
  Place place() const { return place_; }  // where it is, or failed

  // For what the language brings along:
  Heap& heap() { return heap_; }
  const std::tm& clock() const;  // raises without one
  Value call(const Value& callee, const Arguments& arguments);
  Value call_macro(const MacroObject& macro, const Arguments& arguments);
  Value call_loop(const ForLoop& loop, Frame* frame, const Value& source, int64_t depth);
  bool test(const Expression& condition, Frame* frame) { return truth(evaluate(condition, frame)); }
  void assign(const Expression& target, Frame* frame, const Value& value);
  Frame* enter(const Layout& layout, Frame* outer);

 private:
  enum class Flow { kOn, kBreak, kContinue };
  class Capture;

  [[noreturn]] void too_deep();
  Flow execute(const Body& body, Frame* frame);
  Flow execute(const Statement& statement, Frame* frame);
  Flow execute_if(const If& choice, Frame* frame);
  Flow execute_loop(const ForLoop& loop, Frame* frame, const Value& source, int64_t depth);
  void execute_set(const Set& set, Frame* frame);
  void execute_set_block(const SetBlock& set, Frame* frame);
  void execute_filter_block(const FilterBlock& block, Frame* frame);
  void execute_call_block(const CallBlock& block, Frame* frame);
  Flow execute_with(const With& with, Frame* frame);
  void check_namespaces(const Expression& target, Frame* frame);
  void bind(const MacroObject& macro, const Arguments& arguments, Frame* frame);
  void reset(const Layout& layout, Frame* frame);
  Value resolve(std::string_view name);
  void write(const Value& value);  // of a block, which jinja2 does not turn into text
  void note(int32_t message);

  Value evaluate(const Expression& expression, Frame* frame);
  Value evaluate_name(const Expression& name, Frame* frame);
  Value evaluate_items(const Expression& expression, Frame* frame);
  Value evaluate_dict(const Expression& expression, Frame* frame);
  Value evaluate_slice(const Expression& expression, Frame* frame);
  Value evaluate_call(const Expression& call, Frame* frame, const Value* caller);
  Value evaluate_filter(const Expression& filter, Frame* frame);
  Value evaluate_comparison(const Expression& expression, Frame* frame);
  Value evaluate_concat(const Expression& expression, Frame* frame);
  Arguments arguments(const Expression& call, Frame* frame, const Value* caller);

  const Syntax& syntax_;
  Heap& heap_;
  const Variables& variables_;
  const std::tm* clock_;
  Buffer main_;
  Buffer* out_ = &main_;
  Frame* root_ = nullptr;
  Place place_;
  size_t depth_ = 0;
  Value block_text_;  // what a block's filter works on
  int32_t message_ = -1;
  std::vector<Mark> marks_;
  std::vector<Generation> generation_;
};

}  // namespace retort::data::jinja
