#include "quantize/scheme.h"

namespace retort::quantize {

QuantizeOptions Scheme::grids() const {
  QuantizeOptions options;
  options.weights.grid = grid;
  options.embedding.grid = options.head.grid = embedding;
  return options;
}

const Registry<Scheme>& schemes() {
  static const Registry<Scheme> table("scheme", {
                                                    {"rtn-q8_0", "rtn", "q8_0", "q8_0"},
                                                    {"rtn-q6_k", "rtn", "q6_k", "q8_0"},
                                                    {"rtn-q4_k", "rtn", "q4_k", "q8_0"},
                                                    {"rtn-q4_0", "rtn", "q4_0", "q8_0"},
                                                    {"rtn-q4_1", "rtn", "q4_1", "q8_0"},
                                                    {"rtn-mxfp4", "rtn", "mxfp4", "q8_0"},
                                                    {"rtn-ternary", "rtn", "ternary", "q8_0"},
                                                    {"rtn-ternary_row", "rtn", "ternary_row", "q8_0"},
                                                    {"imatrix-q6_k", "imatrix", "q6_k", "q8_0"},
                                                    {"imatrix-q4_k", "imatrix", "q4_k", "q8_0"},
                                                    {"imatrix-q4_0", "imatrix", "q4_0", "q8_0"},
                                                    {"gptq-q8_0", "gptq", "q8_0", "q8_0"},
                                                    {"gptq-q6_k", "gptq", "q6_k", "q8_0"},
                                                    {"gptq-q4_k", "gptq", "q4_k", "q8_0"},
                                                    {"gptq-q4_0", "gptq", "q4_0", "q8_0"},
                                                    {"gptq-mxfp4", "gptq", "mxfp4", "q8_0"},
                                                    {"awq-q4_k", "awq", "q4_k", "q8_0"},
                                                    {"awq-q4_0", "awq", "q4_0", "q8_0"},
                                                    {"rtn-w8a16", "rtn", "int8_row", "none"},
                                                    {"rtn-w4a16", "rtn", "int4_g128", "none"},
                                                    {"rtn-w4a16-g32", "rtn", "int4_g32", "none"},
                                                    {"rtn-w8a8", "rtn", "int8_row", "none", true},
                                                    {"rtn-fp8", "rtn", "fp8", "none", true},
                                                    {"rtn-nvfp4a16", "rtn", "nvfp4", "none"},
                                                    {"gptq-w8a16", "gptq", "int8_row", "none"},
                                                    {"gptq-w4a16", "gptq", "int4_g128", "none"},
                                                    {"gptq-w4a16-g32", "gptq", "int4_g32", "none"},
                                                    {"gptq-w8a8", "gptq", "int8_row", "none", true},
                                                    {"gptq-fp8", "gptq", "fp8", "none", true},
                                                    {"gptq-nvfp4a16", "gptq", "nvfp4", "none"},
                                                    {"awq-w4a16", "awq", "int4_g128", "none"},
                                                    {"awq-w4a16-g32", "awq", "int4_g32", "none"},
                                                });
  return table;
}

}  // namespace retort::quantize
