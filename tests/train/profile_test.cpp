#include "train/profile.h"

#include <ATen/record_function.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <torch/library.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <sstream>

#include "core/error.h"
#include "formats/json.h"
#include "kernels/attention.h"
#include "kernels/norm.h"
#include "kernels/product.h"
#include "tests/testing.h"
#include "tests/train/tiny_model.h"
#include "train/objective.h"
#include "train/step.h"

namespace retort::train {
namespace {

using ::testing::HasSubstr;

const ProfileRow& row(const std::vector<ProfileRow>& rows, const std::string& name) {
  for (const ProfileRow& one : rows)
    if (one.name == name) return one;
  throw InternalError("no row " + name);
}

// Two products inside a named operation, and one outside.
void work(const at::Tensor& a, const at::Tensor& b) {
  {
    RECORD_USER_SCOPE("two");
    a.mm(b);
    a.mm(b);
  }
  at::bmm(a.expand({3, 8, 16}), b.expand({3, 16, 4}));
}

TEST(Profile, CountsProductsOfOurOwn) {
  const at::Tensor a = at::ones({8, 16}, at::kBFloat16), b = at::ones({16, 4}, at::kBFloat16);
  at::Tensor out = at::empty({8, 4}, at::kBFloat16);
  Profile profile(at::kCPU);
  kernels::products::in_f32_out(out, a, b);
  profile.stop();
  EXPECT_EQ(row(profile.rows(), "retort::bf16_product").flops, 2 * 8 * 16 * 4);
}

TEST(Profile, CountsCallsFlopsAndBytes) {
  const at::Tensor a = at::ones({8, 16}), b = at::ones({16, 4});
  Profile profile(at::kCPU);
  work(a, b);
  profile.stop();
  work(a, b);  // is not seen
  const std::vector<ProfileRow> rows = profile.rows();
  EXPECT_EQ(row(rows, "aten::mm").calls, 2);
  EXPECT_EQ(row(rows, "aten::mm").flops, 2 * 2 * 8 * 16 * 4);
  EXPECT_EQ(row(rows, "aten::mm").bytes, 2 * 4 * (8 * 16 + 16 * 4 + 8 * 4));
  EXPECT_EQ(row(rows, "aten::bmm").flops, 3 * 2 * 8 * 16 * 4);
  EXPECT_EQ(row(rows, "two").calls, 1);
  EXPECT_EQ(row(rows, "two").flops, 0) << "what is inside it is not its own";
  EXPECT_EQ(rows.back().name, "between operations");
}

// Times by themselves add up to the whole: nothing is counted twice, nothing is lost.
TEST(Profile, TimesAddUp) {
  const at::Tensor a = at::ones({256, 256});
  Profile profile(at::kCPU);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 20; ++i) work(a.narrow(0, 0, 8).narrow(1, 0, 16), a.narrow(0, 0, 16).narrow(1, 0, 4));
  const double at_least = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  profile.stop();
  double sum = 0;
  for (const ProfileRow& one : profile.rows()) {
    EXPECT_GE(one.seconds, 0) << one.name;
    sum += one.seconds;
  }
  EXPECT_GE(sum, at_least * (1 - 1e-9));
  const std::string table = profile.table(20);
  for (const char* text : {"| operation", "aten::mm", "two", "between operations", "| all"})
    EXPECT_THAT(table, HasSubstr(text));
}

// Times by themselves are the step's, FLOPs those that plans count (plan/flops.h), and each byte is an operation's that moves it.
class ProfiledStep : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  static constexpr int64_t kTokens = 64, kRows = 2, kMicroBatches = 2;
  static models::DecoderSpec spec() {
    models::DecoderSpec spec = tiny_spec();
    spec.width = 64, spec.heads = 4, spec.kv_heads = 2, spec.head_dim = 16, spec.ffn_width = 96;
    return spec;
  }
  void SetUp() override {
    const testing::Threads one_thread(1);
    models::Decoder model(spec());
    models::IdentityMap map;
    models::initialise(model.parameters(), "gpt2", 0.1, 5);
    models::bind_working(model.parameters(), map, GetParam());
    const auto objective = make_cross_entropy();
    const auto optimizer = make_optimizer({}, model.parameters());
    const auto comm = comm::make_self_comm();
    TrainStep step({model, map, *objective, *optimizer, *comm}, kMicroBatches, 1.0);
    step.run(0, batches(0), 1e-3);
    Profile profile(at::kCPU);
    const auto start = std::chrono::steady_clock::now();
    step.run(1, batches(1), 1e-3);
    at_least_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    profile.stop();
    at_most_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    rows_ = profile.rows();
    planned_ = model.flops_per_token(kTokens) * kMicroBatches * kRows * kTokens;
    parameters_ = 0;
    for (const models::Parameter& p : model.parameters().unique())
      parameters_ += static_cast<double>(p.numel());
  }
  static std::vector<data::Batch> batches(int64_t step) {
    std::vector<data::Batch> out;
    for (int64_t g = 0; g < kMicroBatches; ++g)  // those of a multiple of five have all labels
      out.push_back(tiny_batch(5 * (kMicroBatches * step + g), kRows, kTokens));
    return out;
  }
  double sum(double ProfileRow::*of) const {
    double total = 0;
    for (const ProfileRow& one : rows_) total += one.*of;
    return total;
  }
  std::vector<ProfileRow> rows_;
  double at_least_ = 0, at_most_ = 0, planned_ = 0, parameters_ = 0;
};

TEST_P(ProfiledStep, TimesAddUpToIt) {
  EXPECT_GE(sum(&ProfileRow::seconds), at_least_ * (1 - 1e-9));
  EXPECT_LE(sum(&ProfileRow::seconds), 1.01 * at_most_ + 1e-4);
}

TEST_P(ProfiledStep, ItsFlopsAreThePlans) {
  EXPECT_NEAR(sum(&ProfileRow::flops), planned_, 0.01 * planned_);
  for (const ProfileRow& one : rows_) {
    if (one.name != "retort::linear_cross_entropy" && one.name != "aten::linear") continue;
    EXPECT_EQ(one.flops, 0) << one.name << ": its products are operations inside it";
  }
}

TEST_P(ProfiledStep, BytesAreOfWhatMovesThem) {
  static const std::set<std::string> kNone = {"aten::t",
                                              "aten::view",
                                              "aten::slice",
                                              "aten::transpose",
                                              "aten::narrow",
                                              "aten::detach",
                                              "aten::reshape",
                                              "aten::select",
                                              "aten::expand",
                                              "aten::alias",
                                              "aten::as_strided",
                                              "aten::empty",
                                              "aten::empty_like",
                                              "aten::unbind",
                                              "aten::split",
                                              "aten::empty_strided",
                                              "aten::flatten",
                                              "aten::to",
                                              "aten::_to_copy",
                                              "aten::linear",
                                              "aten::clone",
                                              "aten::contiguous",
                                              "aten::zeros",
                                              "aten::matmul",
                                              "aten::unsqueeze",
                                              "aten::_unsafe_view",
                                              "retort::linear_cross_entropy"};
  int64_t found = 0;
  for (const ProfileRow& one : rows_) {
    if (!kNone.contains(one.name)) continue;
    ++found;
    EXPECT_EQ(one.bytes, 0) << one.name;
  }
  EXPECT_GE(found, 8);
  const char* const product =
      std::ranges::any_of(rows_, [](const ProfileRow& one) { return one.name == "retort::bf16_product"; })
          ? "retort::bf16_product"
          : "aten::mm";
  for (const char* some :
       {product, "retort::rope", "retort::rope_backward", "retort::swiglu", "retort::gate_backward",
        "retort::attention", "retort::attention_backward", "retort::row_losses", "retort::gradient_norm"}) {
    EXPECT_GT(row(rows_, some).bytes, 0) << some;
  }
  EXPECT_EQ(row(rows_, "retort::adamw").bytes, 7 * 4 * parameters_) << "four are read, three written";
}

// The table's line of a row.
std::string line_of(const std::string& table, const std::string& name) {
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("| " + name + " ")) return line;
  return "no line " + name;
}

TEST(Profile, EveryRowHasItsOwnCeiling) {
  const at::Tensor a = at::ones({64, 64}), w = at::ones({64});
  Profile profile(at::kCPU);
  a.mm(a);
  kernels::rms_norm(a, w, 1e-5);
  a.view({-1});
  profile.stop();
  const std::vector<ProfileRow> rows = profile.rows();
  const std::string table = profile.table(1, {1e9, 1e8});
  const ProfileRow &mm = row(rows, "aten::mm"), &norm = row(rows, "retort::rms_norm");
  EXPECT_THAT(table, HasSubstr("of the ceiling"));
  EXPECT_THAT(line_of(table, "aten::mm"),
              HasSubstr(fmt::format(" {:.1f} % of products", 100 * mm.flops / mm.seconds / 1e9)));
  EXPECT_THAT(line_of(table, "retort::rms_norm"),
              HasSubstr(fmt::format(" {:.1f} % of a copy", 100 * norm.bytes / norm.seconds / 1e8)));
  for (const char* none : {"% of products", "% of a copy"}) {
    EXPECT_THAT(line_of(table, "aten::view"), ::testing::Not(HasSubstr(none)));
    EXPECT_THAT(profile.table(1), ::testing::Not(HasSubstr(none))) << "of ceilings that are not known";
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ProfiledStep, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

// By the convention of plans: the full square, and twice that for the gradients.
TEST(Profile, CountsAttention) {
  const at::Tensor q = at::ones({2, 16, 4, 8}).requires_grad_(), k = at::ones({2, 16, 2, 8}),
                   v = at::ones({2, 16, 2, 8});
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {  // ours, and LibTorch's
    SCOPED_TRACE(c10::toString(dtype));
    const auto of = [&](const at::Tensor& x) { return x.to(dtype); };
    Profile profile(at::kCPU);
    kernels::attention(of(q), of(k), of(v), {}, 0.5).sum().backward();
    profile.stop();
    double flops = 0;
    for (const ProfileRow& one : profile.rows()) flops += one.flops;
    EXPECT_EQ(flops, 3 * 4.0 * 2 * 4 * 16 * 16 * 8);
  }
}

// In the place of a device's operator: as many results as it has.
void nothing(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  torch::jit::drop(*stack, op.schema().arguments().size());
  for (const c10::Argument& result : op.schema().returns())
    stack->push_back(result.type()->isSubtypeOf(*c10::TensorType::get()) ? c10::IValue(at::empty({0}))
                                                                         : c10::IValue(int64_t{0}));
}

// LibTorch's of a device, which have other layouts: rows [B, T, H, K] or [B, H, T, K], or documents [N, H, K] whose longest counts.
TEST(Profile, CountsADevicesAttention) {
  const at::AutoDispatchBelowAutograd below;
  torch::Library there(torch::Library::IMPL, "aten", c10::DispatchKey::CPU, __FILE__, __LINE__);
  for (const char* name :
       {"_flash_attention_forward", "_flash_attention_backward", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention", "_efficient_attention_forward"})
    there.impl(name, torch::CppFunction::makeFromBoxedFunction<&nothing>());
  const at::Tensor q = at::ones({2, 16, 4, 8}), k = at::ones({2, 16, 2, 8}), packed = at::ones({32, 4, 8}),
                   lengths = at::zeros({4}, at::kInt), x = at::ones({1});
  const at::Tensor heads_q = q.transpose(1, 2), heads_k = k.transpose(1, 2);
  const double once = 4.0 * 2 * 4 * 16 * 16 * 8;
  const auto flops_of = [&](const char* name, const std::function<void()>& work) {
    Profile profile(at::kCPU);
    work();
    profile.stop();
    return row(profile.rows(), name).flops;
  };
  EXPECT_EQ(flops_of("aten::_flash_attention_forward",
                     [&] { at::_flash_attention_forward(q, k, k, {}, {}, 16, 16, 0.0, true, false); }),
            once);
  EXPECT_EQ(flops_of("aten::_flash_attention_forward",
                     [&] {
                       at::_flash_attention_forward(packed, packed, packed, lengths, lengths, 10, 10, 0.0,
                                                    true, false);
                     }),
            4.0 * 32 * 4 * 8 * 10);
  EXPECT_EQ(flops_of("aten::_flash_attention_backward",
                     [&] {
                       at::_flash_attention_backward(q, q, k, k, q, x, lengths, lengths, 16, 16, 0.0, true, x,
                                                     x);
                     }),
            2 * once);
  EXPECT_EQ(flops_of("aten::_scaled_dot_product_flash_attention",
                     [&] { at::_scaled_dot_product_flash_attention(heads_q, heads_k, heads_k, 0.0, true); }),
            once);
  EXPECT_EQ(
      flops_of("aten::_scaled_dot_product_efficient_attention",
               [&] { at::_scaled_dot_product_efficient_attention(heads_q, heads_k, heads_k, {}, true); }),
      once);
}

// What is read and what is made; views of it are neither.
TEST(Profile, OursMoveWhatTheyNameAndMake) {
  const at::Tensor x = at::ones({32, 64}), w = at::ones({64});
  Profile profile(at::kCPU);
  const at::Tensor y = kernels::rms_norm(x.view({4, 8, 64}).view({32, 64}), w, 1e-5);
  profile.stop();
  const double rows = 2 * 4.0 * 32 * 64,
               rest = 4.0 * (64 + 64 + 32);  // the weight, perhaps a copy of it, the row's factors
  EXPECT_GE(row(profile.rows(), "retort::rms_norm").bytes, rows);
  EXPECT_LE(row(profile.rows(), "retort::rms_norm").bytes, rows + rest);
  EXPECT_EQ(row(profile.rows(), "aten::view").bytes, 0);
}

TEST(Profile, CopiesAndLookUpsMoveWhatTheyReadAndWrite) {
  const at::Tensor table = at::ones({1000, 4}), ids = at::arange(3), from = at::ones({8, 4});
  at::Tensor to = at::zeros({8, 4}), product = at::empty({8, 8});
  Profile profile(at::kCPU);
  to.copy_(from);
  at::zeros({8, 4});
  table.index_select(0, ids);
  at::mm_out(product, from, to.t());
  profile.stop();
  const std::vector<ProfileRow> rows = profile.rows();
  EXPECT_EQ(row(rows, "aten::copy_").bytes, 2 * 4 * 32);
  EXPECT_EQ(row(rows, "aten::zeros").bytes, 0);
  EXPECT_EQ(row(rows, "aten::zero_").bytes, 4 * 32);
  EXPECT_EQ(row(rows, "aten::index_select").bytes, 2 * 4 * 12 + 8 * 3);
  EXPECT_EQ(row(rows, "aten::mm").bytes, 4 * (32 + 32 + 64)) << "what is written is not read";
  EXPECT_EQ(row(rows, "aten::t").bytes, 0);
}

TEST(Profile, ACopyHasARate) { EXPECT_GT(measured_copy_rate(at::kCPU), 1e6); }

TEST(Profile, ItsTraceIsOfCompleteEvents) {
  Profile profile(at::kCPU);
  work(at::ones({8, 16}), at::ones({16, 4}));
  profile.stop();
  const formats::Json trace = formats::parse_json(profile.trace(), "trace");
  int products = 0;
  for (const formats::Json& event : trace.at("traceEvents")) {
    EXPECT_EQ(event.at("ph"), "X");
    EXPECT_GE(event.at("dur").get<double>(), 0.0);
    if (event.at("name") != "aten::mm") continue;
    ++products;
    EXPECT_EQ(event.at("args").at("flops"), 2.0 * 8 * 16 * 4);
  }
  EXPECT_EQ(products, 2);
}

TEST(Profile, ThereIsOneAtATime) {
  {
    Profile first(at::kCPU);
    EXPECT_THROW(Profile second(at::kCPU), InternalError);
  }
  EXPECT_NO_THROW(Profile third(at::kCPU));
}

}  // namespace
}  // namespace retort::train
