#include "tests/fuzz/reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace retort::fuzz {

// One a file; its corpus is corpus/NAME.
void chat_template(Bytes input);
void csv(Bytes input);
void gguf(Bytes input);
void gpt2_pair(Bytes input);
void hf_config(Bytes input);
void hf_index(Bytes input);
void json_lines(Bytes input);
void llama2c(Bytes input);
void manifest(Bytes input);
void packed_text(Bytes input);
void recipe(Bytes input);
void safetensors(Bytes input);
void sentencepiece(Bytes input);
void teacher_cache(Bytes input);
void tiktoken(Bytes input);
void token_shard(Bytes input);
void tokenizer_json(Bytes input);

const Registry<Reader>& readers() {
  static const Registry<Reader> table("reader", {{"chat_template", chat_template},
                                                 {"csv", csv},
                                                 {"gguf", gguf},
                                                 {"gpt2_pair", gpt2_pair},
                                                 {"hf_config", hf_config},
                                                 {"hf_index", hf_index},
                                                 {"json_lines", json_lines},
                                                 {"llama2c", llama2c},
                                                 {"manifest", manifest},
                                                 {"packed_text", packed_text},
                                                 {"recipe", recipe},
                                                 {"safetensors", safetensors},
                                                 {"sentencepiece", sentencepiece},
                                                 {"teacher_cache", teacher_cache},
                                                 {"tiktoken", tiktoken},
                                                 {"token_shard", token_shard},
                                                 {"tokenizer_json", tokenizer_json}});
  return table;
}

namespace {

// A fresh directory that goes with the process; a forked child's copy leaves it alone.
struct Root {
  Root() {
    std::string form = (std::filesystem::temp_directory_path() / "retort-fuzz-XXXXXX").string();
    check<IoError>(::mkdtemp(form.data()) != nullptr, "{}: cannot be made", form);
    path = form;
  }
  ~Root() {
    std::error_code ignored;
    if (::getpid() == owner) std::filesystem::remove_all(path, ignored);
  }
  Path path;
  pid_t owner = ::getpid();
};

}  // namespace

Path folder(const std::string& name) {
  static const Root root;
  const Path path = root.path / name;
  ::mkdir(path.c_str(), 0755);  // it may be there
  return path;
}

Path put(const Path& file, Bytes bytes) {
  const int descriptor = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  const bool written =
      descriptor >= 0 && ::write(descriptor, bytes.data(), bytes.size()) == std::ssize(bytes);
  if (descriptor >= 0) ::close(descriptor);
  check<InternalError>(written, "{}: cannot be written", file.string());
  return file;
}

void unnamed(const std::string& where, const char* said) {
  std::fprintf(stderr, "an error must name %s: %s\n", where.c_str(), said);
  std::abort();
}

}  // namespace retort::fuzz
