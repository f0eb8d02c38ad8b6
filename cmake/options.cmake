# Options that a user of the build sets, and the flags that follow from them.
set(RETORT_CUDA AUTO CACHE STRING "CUDA kernels: AUTO, ON or OFF")
set(RETORT_NCCL AUTO CACHE STRING "NCCL communication (needs CUDA): AUTO, ON or OFF")
set(RETORT_MPI AUTO CACHE STRING "MPI communication: AUTO, ON or OFF")
set(RETORT_PARQUET AUTO CACHE STRING "Parquet files, by Arrow's library: AUTO, ON or OFF")
foreach(option RETORT_CUDA RETORT_NCCL RETORT_MPI RETORT_PARQUET)
  set_property(CACHE ${option} PROPERTY STRINGS AUTO ON OFF)
  if(NOT ${option} MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "${option} must be AUTO, ON or OFF, got \"${${option}}\"")
  endif()
endforeach()
set(RETORT_CUDA_ARCHITECTURES "80;90" CACHE STRING "sm_ architectures of the CUDA kernels; later ones compile the PTX")
set(RETORT_SANITIZE "" CACHE STRING "Sanitizers, comma separated: address,undefined or thread")
set(RETORT_PLAIN "" CACHE PATH "A build whose libraries serve for the rooms that read no foreign bytes: the fuzzer's")
set(RETORT_DEPS ${CMAKE_SOURCE_DIR}/.deps CACHE PATH "Where scripts/setup.sh unpacks LibTorch")
option(RETORT_BUILD_TESTS "Build the tests" ON)
option(RETORT_BUILD_BENCH "Build the benchmarks" ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
# Assertions stay on in a release: a training run is long, a check is cheap.
set(CMAKE_CXX_FLAGS_RELEASE "-O2")

add_library(retort_flags INTERFACE)
target_include_directories(retort_flags INTERFACE ${CMAKE_SOURCE_DIR})
# clang, which makes the fuzzers, warns of other things.
target_compile_options(retort_flags INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wall -Wextra -Werror>)
if(RETORT_SANITIZE)
  # What g++ says of uninitialized values is wrong there (of std::regex, in 12).
  target_compile_options(retort_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${RETORT_SANITIZE} -fno-omit-frame-pointer>
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-maybe-uninitialized>)
  target_link_options(retort_flags INTERFACE -fsanitize=${RETORT_SANITIZE})
endif()

find_program(RETORT_CCACHE ccache)
if(RETORT_CCACHE)
  # The precompiled header needs both sloppiness flags; base_dir lets two checkouts share results.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
    CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 CCACHE_PCH_EXTSUM=1 ${RETORT_CCACHE})
endif()
# Not mold: 1.10 has started PT_GNU_RELRO below its segment, so that the loader refused the binary, and has hung.
find_program(RETORT_LLD ld.lld)
if(RETORT_LLD)
  target_link_options(retort_flags INTERFACE -fuse-ld=lld)
endif()
