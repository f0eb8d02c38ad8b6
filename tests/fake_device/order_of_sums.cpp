#include "tests/fake_device/order_of_sums.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <set>
#include <string>

#include "tests/fake_device/host_operator.h"

namespace retort::testing {
namespace {

const std::set<std::string> kNone = {"aten::scatter_add",
                                     "aten::scatter_reduce",
                                     "aten::index_add",
                                     "aten::index_reduce",
                                     "aten::put",
                                     "aten::histc",
                                     "aten::bincount",
                                     "aten::segment_reduce",
                                     "aten::_embedding_bag",
                                     "aten::_embedding_bag_backward",
                                     "aten::_ctc_loss_backward"};
// In one order where there are several rows.
const std::set<std::string> kNoneOfOneRow = {"aten::cumsum", "aten::cumprod", "aten::logcumsumexp",
                                             "aten::_logcumsumexp"};

// Places that differ get one term each, which has one order: so the gradient of index_select() by rows that differ.
bool adds_once(const std::string& name, const c10::IValue* arguments) {
  return name == "aten::index_add" && std::get<0>(at::_unique(on_host(arguments[2].toTensor()))).numel() ==
                                          arguments[2].toTensor().numel();
}

}  // namespace

void refuse_without_order(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  std::string name = schema.name();
  while (name.ends_with('_')) name.pop_back();
  const c10::IValue* const arguments = stack.data() + (stack.size() - schema.arguments().size());
  if (schema.arguments().empty() || !arguments[0].isTensor()) return;
  const at::Tensor& x = arguments[0].toTensor();
  if (!x.is_floating_point()) return;
  TORCH_CHECK(!kNone.contains(name) || adds_once(name, arguments), "fake device: sums of ", name,
              " have no order on a GPU");
  if (!kNoneOfOneRow.contains(name) || x.dim() == 0) return;
  TORCH_CHECK(x.numel() != x.size(arguments[1].toInt()) || x.numel() <= 1, "fake device: sums of ", name,
              " of a single row have no order on a GPU");
}

}  // namespace retort::testing
