// A library that another version has built.
extern "C" const char* retort_cuda_stamp() { return "retort 0.0.9 (12345678)"; }
