#include "data/templates/json_value.h"

#include "data/templates/raised.h"

namespace retort::data::jinja {
namespace {

using formats::Json;

Value convert(Heap& heap, const Json& json, size_t depth);

Value convert_list(Heap& heap, const Json& json, size_t depth, bool messages) {
  Value* items = heap.array<Value>(json.size());
  for (size_t i = 0; i < json.size(); ++i) {
    items[i] = convert(heap, json[i], depth + 1);
    if (messages && items[i].is(Kind::kDict))
      const_cast<Dict&>(items[i].dict()).message = static_cast<int32_t>(i);
  }
  return Value::list({items, json.size()});
}

Value convert_object(Heap& heap, const Json& json, size_t depth) {
  Dict* dict = heap.make<Dict>(heap, json.size());
  for (const auto& [key, value] : json.items())
    dict->set(heap, Value::text(key), convert(heap, value, depth + 1));
  return Value::dict(dict);
}

Value convert(Heap& heap, const Json& json, size_t depth) {
  heap.step();
  if (depth > heap.limits().data_depth)
    raise("is given values nested deeper than {}, the limit", heap.limits().data_depth);
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      return Value::integer(heap, Integer{json.get<uint64_t>()});
    case Json::value_t::number_float:
      return Value::real(json.get<double>());
    case Json::value_t::string:
      return Value::text(json.get_ref<const std::string&>());
    case Json::value_t::array:
      return convert_list(heap, json, depth, false);
    case Json::value_t::object:
      return convert_object(heap, json, depth);
    default:
      return Value::none();
  }
}

}  // namespace

Value from_json(Heap& heap, const Json& json, bool messages) {
  if (messages && json.is_array()) return convert_list(heap, json, 0, true);
  return convert(heap, json, 0);
}

}  // namespace retort::data::jinja
