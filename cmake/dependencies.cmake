# Every third-party library, found once. The wheel's TorchConfig.cmake insists on a CUDA toolkit, so
# LibTorch is an imported target of our own.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

# --- LibTorch, from the wheel that scripts/setup.sh unpacked
find_library(TORCH_CPU_LIBRARY torch_cpu PATHS ${RETORT_DEPS}/torch/lib NO_DEFAULT_PATH)
find_library(C10_LIBRARY c10 PATHS ${RETORT_DEPS}/torch/lib NO_DEFAULT_PATH)
if(NOT TORCH_CPU_LIBRARY)
  message(FATAL_ERROR "no LibTorch in ${RETORT_DEPS}/torch: run scripts/setup.sh")
endif()
add_library(retort_torch INTERFACE)
target_include_directories(retort_torch SYSTEM INTERFACE
  ${RETORT_DEPS}/torch/include ${RETORT_DEPS}/torch/include/torch/csrc/api/include)
# The wheel's libraries carry DT_RPATH to nvidia/cu13/lib beside torch/; ours must be found the same
# old way (not RUNPATH), so that one copy of each library serves the process.
target_link_options(retort_torch INTERFACE -Wl,--disable-new-dtags -Wl,--no-as-needed
  -Wl,-rpath,${RETORT_DEPS}/torch/lib -Wl,-rpath,${RETORT_DEPS}/nvidia/cu13/lib
  -Wl,-rpath-link,${RETORT_DEPS}/nvidia/cu13/lib)
# at::parallel_for is a header template that runs serially unless the including file is compiled with
# OpenMP. It must be the wheel's own libgomp: one thread pool a process.
find_library(TORCH_GOMP_LIBRARY NAMES libgomp.so.1 PATHS ${RETORT_DEPS}/torch/lib NO_DEFAULT_PATH REQUIRED)
# clang's OpenMP wants a runtime of its own; what it compiles runs serially.
target_compile_options(retort_torch INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fopenmp>)
target_link_libraries(retort_torch INTERFACE ${TORCH_CPU_LIBRARY} ${C10_LIBRARY} ${TORCH_GOMP_LIBRARY})
# The wheel's include folder brings the headers of its own fmt (12), which would shadow a system one: that is the fmt here,
# compiled in core/fmt.cpp.

pkg_check_modules(HDF5 REQUIRED IMPORTED_TARGET hdf5)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(PACKING REQUIRED IMPORTED_TARGET zlib libzstd liblzma)
pkg_check_modules(TEXT REQUIRED IMPORTED_TARGET libutf8proc libpcre2-8)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)

# --- Arrow and Parquet, from the pyarrow wheel that scripts/setup.sh unpacked. Its libraries carry the number of
# their version in their names and no plain one.
set(RETORT_HAVE_PARQUET OFF)
if(NOT RETORT_PARQUET STREQUAL OFF)
  file(GLOB ARROW_LIBRARY ${RETORT_DEPS}/pyarrow/libarrow.so.*)
  file(GLOB PARQUET_LIBRARY ${RETORT_DEPS}/pyarrow/libparquet.so.*)
  if(ARROW_LIBRARY AND PARQUET_LIBRARY)
    set(RETORT_HAVE_PARQUET ON)
    add_library(retort_parquet INTERFACE)
    target_include_directories(retort_parquet SYSTEM INTERFACE ${RETORT_DEPS}/pyarrow/include)
    target_link_libraries(retort_parquet INTERFACE ${PARQUET_LIBRARY} ${ARROW_LIBRARY})
    target_link_options(retort_parquet INTERFACE -Wl,-rpath,${RETORT_DEPS}/pyarrow)
  elseif(RETORT_PARQUET STREQUAL ON)
    message(FATAL_ERROR "RETORT_PARQUET=ON, but no Arrow in ${RETORT_DEPS}/pyarrow: run scripts/setup.sh")
  endif()
endif()

# --- MPI
set(RETORT_HAVE_MPI OFF)
if(NOT RETORT_MPI STREQUAL OFF)
  find_package(MPI COMPONENTS CXX)
  if(MPI_CXX_FOUND)
    set(RETORT_HAVE_MPI ON)
  elseif(RETORT_MPI STREQUAL ON)
    message(FATAL_ERROR "RETORT_MPI=ON, but no MPI was found (Debian: libopenmpi-dev)")
  endif()
endif()

# --- CUDA: the compiler for kernels/cuda, and the headers of the toolkit
set(RETORT_HAVE_CUDA OFF)
if(NOT RETORT_CUDA STREQUAL OFF)
  include(CheckLanguage)
  if(NOT CMAKE_CUDA_COMPILER AND EXISTS /usr/local/cuda/bin/nvcc)
    set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)
  endif()
  set(CMAKE_CUDA_ARCHITECTURES ${RETORT_CUDA_ARCHITECTURES})
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    find_library(C10_CUDA_LIBRARY c10_cuda PATHS ${RETORT_DEPS}/torch/lib NO_DEFAULT_PATH REQUIRED)
    set(CMAKE_CUDA_STANDARD 17)  # CMake 3.25 knows no CUDA20
    set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # one runtime a process: the one that LibTorch loads
    set(RETORT_HAVE_CUDA ON)
  elseif(RETORT_CUDA STREQUAL ON)
    message(FATAL_ERROR "RETORT_CUDA=ON, but no nvcc was found")
  endif()
endif()

# --- NCCL: the copy that libtorch_cuda loads, compiled against its own header
set(RETORT_HAVE_NCCL OFF)
if(RETORT_HAVE_CUDA AND NOT RETORT_NCCL STREQUAL OFF)
  find_path(NCCL_INCLUDE_DIR nccl.h
    HINTS ${RETORT_DEPS}/nvidia/nccl/include ${CUDAToolkit_INCLUDE_DIRS})
  find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2
    HINTS ${RETORT_DEPS}/nvidia/nccl/lib ${CUDAToolkit_LIBRARY_DIR})
  if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
    set(RETORT_HAVE_NCCL ON)
  endif()
endif()
if(RETORT_NCCL STREQUAL ON AND NOT RETORT_HAVE_NCCL)
  message(FATAL_ERROR "RETORT_NCCL=ON, but NCCL (or CUDA, which it needs) was not found")
endif()
