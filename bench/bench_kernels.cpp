// The CPU kernels beside LibTorch's eager operations, forward and backward: checks the value and every
// gradient against fp64, then times both interleaved. Ratios are ours / peer: lower is better.
//   bench_kernels [--case PREFIX] [--pairs N] [--threads N] [--memory | --flat]
// --memory reports peak resident memory instead, with malloc giving pages back; elsewhere both keep freed
// pages. --flat: how it grows from 2048 to 32768 tokens in the loss layer of distillation, ours alone.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <optional>

#include "bench/paired.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/kept_pages.h"
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/cpu_tuning.h"
#include "kernels/linear_loss.h"
#include "kernels/norm.h"
#include "kernels/reference.h"
#include "kernels/rope.h"
#include "kernels/row_losses.h"
#include "tests/process_memory.h"

namespace {

using namespace retort;
using Tensors = std::vector<at::Tensor>;
using Operation = std::function<at::Tensor(const Tensors&)>;

struct Case {
  std::string name, shape;
  Tensors inputs;               // leaves
  Operation ours, peer, exact;  // exact: in the dtype of its inputs
  int64_t check_rows = 0;  // > 0: the fp64 check takes only these first rows of inputs[0] (and of labels)
  bool memory = false;     // peak memory is part of the story
  at::ScalarType dtype = at::kFloat;
};

at::Tensor leaf(at::IntArrayRef shape, double std = 1.0) {
  return (at::randn(shape, at::kFloat) * std).requires_grad_(true);
}

Tensors value_and_gradients(const Operation& operation, const Tensors& inputs) {
  const at::Tensor value = operation(inputs);
  // The same for every dtype: made in f64, exact in bf16.
  const at::Tensor direction =
      (at::cos(at::arange(value.numel(), at::kDouble)) * 4).round().view(value.sizes()) / 4;
  Tensors out = torch::autograd::grad(
      {value}, inputs, {value.dim() == 0 ? at::ones_like(value) : direction.to(value.scalar_type())});
  out.push_back(value.detach());
  return out;
}

Tensors leaves_as(const Tensors& inputs, at::ScalarType dtype, int64_t rows) {
  Tensors out;
  for (size_t i = 0; i < inputs.size(); ++i) {
    at::Tensor x = inputs[i].detach();
    if (i == 0 && rows > 0) x = x.narrow(0, 0, rows);
    out.push_back(x.to(dtype, false, true).requires_grad_(true));
  }
  return out;
}

// Largest error over value and gradients, each relative to its largest element.
double error(const Tensors& got, const Tensors& exact) {
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double scale = std::max(exact[i].abs().max().item<double>(), 1e-30);
    const double e = (got[i].to(at::kDouble) - exact[i]).abs().max().item<double>() / scale;
    worst = std::isnan(e) ? INFINITY : std::max(worst, e);
  }
  return worst;
}

struct Errors {
  double ours, peer;
};

Errors check_case(const Case& c) {
  const Tensors exact = value_and_gradients(c.exact, leaves_as(c.inputs, at::kDouble, c.check_rows));
  const auto error_of = [&](const Operation& operation) {
    return error(value_and_gradients(operation, leaves_as(c.inputs, c.dtype, c.check_rows)), exact);
  };
  const Errors errors{error_of(c.ours), error_of(c.peer)};
  const double unit = c.dtype == at::kFloat ? 0x1p-23 : 0x1p-8;
  check<InternalError>(errors.ours <= 2 * errors.peer + 4 * unit,
                       "[{} {}] error {:.1e} against fp64; the peer's is {:.1e}", c.name, c.shape,
                       errors.ours, errors.peer);
  return errors;
}

// Times with inputs as they are; the backward pass starts from ones, as cheaply for both.
void forward_backward(const Operation& operation, const Tensors& inputs, const at::Tensor& direction) {
  torch::autograd::grad({operation(inputs)}, inputs, {direction});
}

Case rms_norm_case(int64_t n, int64_t d) {
  return {"cpu_rmsnorm",
          fmt::format("N{} D{}", n, d),
          {leaf({n, d}), leaf({d})},
          [](const Tensors& t) { return kernels::rms_norm(t[0], t[1], 1e-5); },
          [d](const Tensors& t) { return at::rms_norm(t[0], {d}, t[1], 1e-5); },
          [](const Tensors& t) { return kernels::reference::rms_norm(t[0], t[1], 1e-5, false); }};
}

Case layer_norm_case(int64_t n, int64_t d) {
  return {"cpu_layernorm",
          fmt::format("N{} D{}", n, d),
          {leaf({n, d}), leaf({d}), leaf({d})},
          [](const Tensors& t) { return kernels::layer_norm(t[0], t[1], t[2], 1e-5); },
          [d](const Tensors& t) { return at::layer_norm(t[0], {d}, t[1], t[2], 1e-5); },
          [](const Tensors& t) { return kernels::reference::layer_norm(t[0], t[1], t[2], 1e-5); }};
}

Case swiglu_case(int64_t n, int64_t f) {
  return {"cpu_swiglu",
          fmt::format("N{} F{}", n, f),
          {leaf({n, f}), leaf({n, f})},
          [](const Tensors& t) { return kernels::swiglu(t[0], t[1]); },
          [](const Tensors& t) { return at::silu(t[0]) * t[1]; },
          [](const Tensors& t) { return kernels::reference::swiglu(t[0], t[1]); }};
}

Case rope_case(int64_t b, int64_t t, int64_t h, int64_t k) {
  const kernels::RopeTables tables = kernels::rope_tables(kernels::rope_frequencies(k, 10000.0, {}), t);
  const at::Tensor positions = at::arange(t, at::kLong).expand({b, t}).contiguous();
  // The peer has its angles gathered beforehand, as a model without packing may.
  const at::Tensor cos = tables.cos_PK.view({1, t, 1, k / 2}), sin = tables.sin_PK.view({1, t, 1, k / 2});
  return {"cpu_rope",
          fmt::format("B{} T{} H{} K{}", b, t, h, k),
          {leaf({b, t, h, k})},
          [=](const Tensors& x) {
            return kernels::rope(x[0], x[0].narrow(2, 0, 0), tables, positions).first;  // no keys
          },
          [=](const Tensors& x) {
            const at::Tensor a = x[0].narrow(3, 0, k / 2), c = x[0].narrow(3, k / 2, k / 2);
            return at::cat({a * cos - c * sin, c * cos + a * sin}, 3);
          },
          [=](const Tensors& x) { return kernels::reference::rope(x[0], tables, positions); }};
}

Case attention_case(int64_t b, int64_t t, int64_t h, int64_t k) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(k));
  return {"cpu_attn",
          fmt::format("B{} T{} H{} K{}", b, t, h, k),
          {leaf({b, t, h, k}), leaf({b, t, h, k}), leaf({b, t, h, k})},
          [=](const Tensors& x) { return kernels::attention(x[0], x[1], x[2], {}, scale); },
          [=](const Tensors& x) {
            return at::scaled_dot_product_attention(x[0].transpose(1, 2), x[1].transpose(1, 2),
                                                    x[2].transpose(1, 2), {}, 0.0, true, scale)
                .transpose(1, 2);
          },
          [=](const Tensors& x) { return kernels::reference::attention(x[0], x[1], x[2], {}, scale); }};
}

// bf16 logits are widened before a softmax, as everybody does.
at::Tensor wide(const at::Tensor& x) { return x.scalar_type() == at::kBFloat16 ? x.to(at::kFloat) : x; }

at::Tensor some_ignored(int64_t n, int64_t v) {
  at::Tensor labels = at::randint(v, {n}, at::kLong);
  labels.slice(0, 0, n, 97).fill_(kernels::kIgnoredLabel);
  return labels;
}

Case ce_case(int64_t n, int64_t d, int64_t v) {
  const at::Tensor labels = some_ignored(n, v);
  const auto first = [labels](const Tensors& t) { return labels.narrow(0, 0, t[0].size(0)); };
  const auto whole = [first](const Tensors& t) {
    return at::cross_entropy_loss(wide(at::linear(t[0], t[1])), first(t), {}, at::Reduction::Sum,
                                  kernels::kIgnoredLabel);
  };
  return {"cpu_ce",
          fmt::format("N{} D{} V{}", n, d, v),
          {leaf({n, d}), leaf({v, d}, 0.1)},
          [first](const Tensors& t) { return kernels::linear_cross_entropy(t[0], t[1], first(t)); },
          whole,
          whole,
          128,
          true};
}

// A teacher of 1.5 times the width, its hidden states given; its logits are made inside, by both.
Case kl_case(int64_t n, int64_t d, int64_t v) {
  const at::Tensor labels = some_ignored(n, v), hidden = at::randn({n, d + d / 2}),
                   head = at::randn({v, d + d / 2}) * 0.1;
  const auto first = [](const at::Tensor& x, const Tensors& t) { return x.narrow(0, 0, t[0].size(0)); };
  const auto whole = [=](const Tensors& t) {
    const at::ScalarType dtype = t[0].scalar_type();
    const at::Tensor log_q = at::log_softmax(at::linear(t[0], t[1]), -1);
    const at::Tensor log_p = at::log_softmax(at::linear(first(hidden, t).to(dtype), head.to(dtype)), -1);
    const at::Tensor rows = at::kl_div(log_q, log_p, at::Reduction::None, true).sum(-1);
    return (rows * (first(labels, t) != kernels::kIgnoredLabel).to(dtype)).sum();
  };
  return {"cpu_kl",
          fmt::format("N{} D{} V{}", n, d, v),
          {leaf({n, d}), leaf({v, d}, 0.1)},
          [=](const Tensors& t) {
            return kernels::linear_distill(t[0], t[1], {.heads = {{first(hidden, t), head}}},
                                           first(labels, t), {{kernels::forward_kl_rows(1.0), 1.0}})
                .sum;
          },
          whole,
          whole,
          128,
          true};
}

// A distillation step's loss layer: forward KL and cross-entropy on one student's logits, as a recipe has it.
Case kd_case(int64_t n, int64_t d, int64_t v) {
  const at::Tensor labels = some_ignored(n, v), hidden = at::randn({n, d + d / 2}),
                   head = at::randn({v, d + d / 2}) * 0.1;
  const auto first = [](const at::Tensor& x, const Tensors& t) { return x.narrow(0, 0, t[0].size(0)); };
  const auto whole = [=](const Tensors& t) {
    const at::ScalarType dtype = t[0].scalar_type();
    const at::Tensor log_q = at::log_softmax(at::linear(t[0], t[1]), -1);
    const at::Tensor log_p = at::log_softmax(at::linear(first(hidden, t).to(dtype), head.to(dtype)), -1);
    const at::Tensor kl = at::kl_div(log_q, log_p, at::Reduction::None, true).sum(-1);
    const at::Tensor counts = (first(labels, t) != kernels::kIgnoredLabel).to(dtype);
    const at::Tensor ce =
        at::nll_loss(log_q, first(labels, t), {}, at::Reduction::Sum, kernels::kIgnoredLabel);
    return 0.9 * (kl * counts).sum() + 0.1 * ce;
  };
  return {"cpu_kd",
          fmt::format("N{} D{} V{}", n, d, v),
          {leaf({n, d}), leaf({v, d}, 0.1)},
          [=](const Tensors& t) {
            return kernels::linear_distill(
                       t[0], t[1], {.heads = {{first(hidden, t), head}}}, first(labels, t),
                       {{kernels::forward_kl_rows(1.0), 0.9}, {kernels::cross_entropy_rows(), 0.1}})
                .sum;
          },
          whole,
          whole,
          128,
          true};
}

Case in_bf16(Case c) {
  c.dtype = at::kBFloat16;
  c.shape += " bf16";
  c.inputs = leaves_as(c.inputs, at::kBFloat16, 0);
  return c;
}

std::vector<std::function<Case()>> cases() {
  return {
      [] { return rms_norm_case(4096, 256); },       [] { return rms_norm_case(4096, 512); },
      [] { return layer_norm_case(4096, 256); },     [] { return in_bf16(layer_norm_case(4096, 256)); },
      [] { return layer_norm_case(4096, 768); },     [] { return in_bf16(layer_norm_case(4096, 768)); },
      [] { return swiglu_case(4096, 704); },         [] { return swiglu_case(4096, 1408); },
      [] { return rope_case(16, 256, 8, 32); },      [] { return attention_case(16, 256, 8, 32); },
      [] { return attention_case(2, 1024, 8, 64); }, [] { return in_bf16(attention_case(16, 256, 8, 32)); },
      [] { return ce_case(4096, 16, 4096); },  // almost no product: the rows alone
      [] { return ce_case(4096, 256, 4096); },       [] { return in_bf16(ce_case(4096, 256, 4096)); },
      [] { return ce_case(4096, 256, 32000); },      [] { return kl_case(4096, 16, 4096); },
      [] { return kl_case(4096, 256, 4096); },       [] { return kl_case(4096, 256, 32000); },
      [] { return kd_case(2048, 64, 32000); },       [] { return kd_case(2048, 128, 32000); },
      [] { return kd_case(2048, 256, 32000); }};
}

struct Arguments {
  std::string prefix;
  int pairs = 20, threads = 1;
  bool memory = false, flat = false;
};

Arguments parse(int argc, char** argv) {
  Arguments out;
  for (int i = 1; i < argc; ++i) {
    const std::string key = argv[i];
    const auto next = [&]() -> std::string {
      check<ConfigError>(i + 1 < argc, "{} needs a value", key);
      return argv[++i];
    };
    if (key == "--case")
      out.prefix = next();
    else if (key == "--pairs")
      out.pairs = std::atoi(next().c_str());
    else if (key == "--threads")
      out.threads = std::atoi(next().c_str());
    else if (key == "--memory")
      out.memory = true;
    else if (key == "--flat")
      out.flat = true;
    else
      fail<ConfigError>("unknown argument \"{}\"; known: --case, --pairs, --threads, --memory, --flat", key);
  }
  check<ConfigError>(out.pairs > 0 && out.threads > 0, "--pairs and --threads must be positive");
  return out;
}

void report_time(const Case& c, int pairs) {
  const Errors errors = check_case(c);
  const at::Tensor direction = at::ones_like(c.ours(c.inputs)).detach();
  const bench::Paired p = bench::time_pairs([&] { forward_backward(c.ours, c.inputs, direction); },
                                            [&] { forward_backward(c.peer, c.inputs, direction); }, pairs);
  fmt::print(
      "{:13} {:25} {:9.2f} {:9.2f}   {:.2f} [{:.2f}-{:.2f}]   {:.2f} [{:.2f}-{:.2f}]   {:.0e} {:.0e}\n",
      c.name, c.shape, p.ours.wall_ms, p.peer.wall_ms, p.wall.median, p.wall.low, p.wall.high, p.cpu.median,
      p.cpu.low, p.cpu.high, errors.ours, errors.peer);
  std::fflush(stdout);
}

double peak_mib(const std::function<void()>& work) {
  return static_cast<double>(testing::peak_growth(work)) / static_cast<double>(testing::kMiB);
}

void report_memory(const Case& c) {
  const at::Tensor direction = at::ones({});
  const auto peak = [&](const Operation& operation) {
    forward_backward(operation, c.inputs, direction);  // warm up
    return peak_mib([&] { forward_backward(operation, c.inputs, direction); });
  };
  const double ours = peak(c.ours), peer = peak(c.peer);
  fmt::print("{:13} {:25} {:9.0f} {:9.0f}   {:.2f}\n", c.name, c.shape, ours, peer, ours / peer);
  std::fflush(stdout);
}

// Above the inputs and their gradients, whose size is that of the model's own activations.
void report_growth(int64_t d, int64_t v) {
  double first = 0;
  for (const int64_t n : {2048, 32768}) {
    at::manual_seed(1);
    const Case c = kd_case(n, d, v);
    forward_backward(c.ours, leaves_as(c.inputs, at::kFloat, 2048), at::ones({}));  // warm up
    const double gradients = static_cast<double>(c.inputs[0].nbytes() + c.inputs[1].nbytes()) / (1 << 20);
    const double peak = peak_mib([&] { forward_backward(c.ours, c.inputs, at::ones({})); }) - gradients;
    if (first == 0) first = peak;
    fmt::print("{:13} {:25} {:9.1f} MiB   {:+.1f} %\n", c.name, c.shape, peak, 100 * (peak / first - 1));
    std::fflush(stdout);
  }
}

int run(int argc, char** argv) {
  const Arguments arguments = parse(argc, argv);
  at::set_num_threads(arguments.threads);
  if (arguments.flat) {
    for (const int64_t d : {64, 256}) report_growth(d, 32000);
    return 0;
  }
  const char* policy = std::getenv("OMP_WAIT_POLICY");
  fmt::print("{}; {} threads; OMP_WAIT_POLICY {}\n", cpu_features().model, arguments.threads,
             policy ? policy : "unset");
  std::optional<KeptPages> kept;  // as training has it
  if (arguments.memory) {
    fmt::print("{:39} {:>9} {:>9}   ratio\n", "peak MiB above inputs", "ours", "peer");
  } else {
    kept.emplace();
    fmt::print("{}; {} pairs\n{:39} {:>9} {:>9}   ratio [quartiles]  CPU time ratio     error ours, peer\n",
               kernels::tune_cpu().summary(), arguments.pairs, "ms, forward + backward", "ours", "peer");
  }
  for (const auto& make : cases()) {
    at::manual_seed(1);
    const Case c = make();
    if (!c.name.starts_with(arguments.prefix) || (arguments.memory && !c.memory)) continue;
    arguments.memory ? report_memory(c) : report_time(c, arguments.pairs);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_kernels: {}\n", e.what());
    return 1;
  }
}
