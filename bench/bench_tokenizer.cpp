// How fast a tokenizer encodes a text on one core, after checking that decoding gives the text back.
//   bench_tokenizer TOKENIZER TEXT [PASSES]     one line a pass: milliseconds of CPU time, MiB/s; then their
//                                               median
// bench/tokenizer_peers.py runs it beside Hugging Face's tokenizers and tiktoken.
#include <cstdio>
#include <cstdlib>

#include "bench/paired.h"
#include "core/error.h"
#include "data/tokenizers/tokenizer.h"

namespace {

using namespace retort;

double encode_ms(const data::Tokenizer& tokenizer, const std::string& text, size_t& tokens) {
  return bench::time_once([&] { tokens = tokenizer.encode(text).size(); }).cpu_ms;
}

int run(int argc, char** argv) {
  check<ConfigError>(argc >= 3, "usage: bench_tokenizer TOKENIZER TEXT [PASSES]");
  const int passes = argc > 3 ? std::atoi(argv[3]) : 11;
  const auto tokenizer = data::make_tokenizer(argv[1]);
  const std::string text = read_text(argv[2]);
  check<DataError>(tokenizer->decode(tokenizer->encode(text)) == text,
                   "{}: decoding does not give the text back", argv[2]);
  const double mebibytes = static_cast<double>(text.size()) / (1 << 20);
  std::vector<double> times;
  size_t tokens = 0;
  for (int i = 0; i < passes; ++i) {
    times.push_back(encode_ms(*tokenizer, text, tokens));
    std::printf("pass %d: %.1f ms, %.1f MiB/s\n", i + 1, times.back(), 1e3 * mebibytes / times.back());
  }
  const bench::Quartiles q = bench::quartiles(times);
  std::printf("median %.1f MiB/s (quartiles %.1f to %.1f), %zu tokens of %.2f MiB\n",
              1e3 * mebibytes / q.median, 1e3 * mebibytes / q.high, 1e3 * mebibytes / q.low, tokens,
              mebibytes);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const retort::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.code());
  }
}
