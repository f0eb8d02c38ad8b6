#include "train/profile.h"

#include <ATen/record_function.h>
#include <gmock/gmock.h>

#include "core/error.h"
#include "formats/json.h"
#include "kernels/product.h"

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
