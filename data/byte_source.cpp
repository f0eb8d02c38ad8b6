#include "data/byte_source.h"

#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/input_file.h"

namespace retort::data {
namespace {

constexpr size_t kWindow = size_t{1} << 20;

class PlainSource final : public ByteSource {
 public:
  explicit PlainSource(InputFile file) : file_(std::move(file)) {}
  size_t read(std::span<char> out) override {
    const size_t count = file_.read(at_, std::as_writable_bytes(out));
    at_ += count;
    return count;
  }
  uint64_t consumed() const override { return at_; }

 private:
  InputFile file_;
  uint64_t at_ = 0;
};

// What the three have in common: packed bytes in, and errors that say where.
class PackedSource : public ByteSource {
 public:
  uint64_t consumed() const override { return at_; }

 protected:
  PackedSource(InputFile file, const char* format) : file_(std::move(file)), format_(format) {}
  std::span<const char> rest() {  // of the window; empty only at the end
    if (used_ == held_) {
      held_ = file_.read(at_, std::as_writable_bytes(std::span(window_)));
      used_ = 0;
    }
    return std::span(window_).subspan(used_, held_ - used_);
  }
  bool at_end() { return rest().empty(); }
  uint64_t size() const { return file_.size(); }
  void take(size_t bytes) {
    used_ += bytes;
    at_ += bytes;
  }
  [[noreturn]] void damaged(const char* why) const {
    fail<DataError>("{}: its {} data must be whole and intact, got {} at byte {} of {}", file_.path(),
                    format_, why, at_, file_.size());
  }
  [[noreturn]] void truncated() const { damaged("the end of the file inside it,"); }

 private:
  InputFile file_;
  const char* format_;
  std::vector<char> window_ = std::vector<char>(kWindow);
  size_t used_ = 0, held_ = 0;  // of the window
  uint64_t at_ = 0;
};

class GzipSource final : public PackedSource {
 public:
  explicit GzipSource(InputFile file) : PackedSource(std::move(file), "gzip") {
    RETORT_ASSERT(inflateInit2(&state_, 16 + MAX_WBITS) == Z_OK);  // 16: gzip, with its checksum
  }
  ~GzipSource() override { inflateEnd(&state_); }
  size_t read(std::span<char> out) override {
    while (true) {
      if (between_) {
        if (at_end()) return 0;
        inflateReset(&state_);
        between_ = false;
      }
      const auto in = rest();
      state_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
      state_.avail_in = static_cast<uInt>(in.size());
      state_.next_out = reinterpret_cast<Bytef*>(out.data());
      state_.avail_out = static_cast<uInt>(std::min(out.size(), kWindow));
      const uInt room = state_.avail_out;
      const int code = inflate(&state_, Z_NO_FLUSH);
      take(in.size() - state_.avail_in);
      if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
        damaged(state_.msg != nullptr ? state_.msg : "an error");
      between_ = code == Z_STREAM_END;
      if (state_.avail_out < room) return room - state_.avail_out;
      if (!between_ && at_end()) truncated();
    }
  }

 private:
  z_stream state_{};
  bool between_ = false;  // members
};

class ZstdSource final : public PackedSource {
 public:
  explicit ZstdSource(InputFile file)
      : PackedSource(std::move(file), "zstd"), state_(ZSTD_createDStream(), ZSTD_freeDStream) {
    // A frame may ask for a window of 128 MiB, as `zstd -22` does; not in a file of a few KB.
    constexpr uint64_t kSmall = uint64_t{1} << 20;
    const int window = size() < kSmall ? 26 : 27;  // the library's own
    RETORT_ASSERT(ZSTD_isError(ZSTD_DCtx_setParameter(state_.get(), ZSTD_d_windowLogMax, window)) == 0);
  }
  size_t read(std::span<char> out) override {
    while (true) {
      const auto in = rest();
      if (in.empty() && between_) return 0;
      ZSTD_inBuffer from{in.data(), in.size(), 0};
      ZSTD_outBuffer to{out.data(), out.size(), 0};
      const size_t code = ZSTD_decompressStream(state_.get(), &to, &from);
      take(from.pos);
      if (ZSTD_isError(code) != 0) damaged(ZSTD_getErrorName(code));
      between_ = code == 0;
      if (to.pos > 0) return to.pos;
      if (in.empty()) truncated();
    }
  }

 private:
  std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> state_;
  bool between_ = true;  // frames
};

class XzSource final : public PackedSource {
 public:
  explicit XzSource(InputFile file) : PackedSource(std::move(file), "xz") {
    constexpr uint64_t kMemory = uint64_t{1} << 30;  // `xz -9` wants 65 MiB
    RETORT_ASSERT(lzma_stream_decoder(&state_, kMemory, LZMA_CONCATENATED) == LZMA_OK);
  }
  ~XzSource() override { lzma_end(&state_); }
  size_t read(std::span<char> out) override {
    while (!ended_) {
      const auto in = rest();
      state_.next_in = reinterpret_cast<const uint8_t*>(in.data());
      state_.avail_in = in.size();
      state_.next_out = reinterpret_cast<uint8_t*>(out.data());
      state_.avail_out = out.size();
      const lzma_ret code = lzma_code(&state_, in.empty() ? LZMA_FINISH : LZMA_RUN);
      take(in.size() - state_.avail_in);
      if (code == LZMA_BUF_ERROR && in.empty()) truncated();
      if (code == LZMA_MEMLIMIT_ERROR) damaged("a dictionary above 1 GiB");
      if (code != LZMA_OK && code != LZMA_STREAM_END && code != LZMA_BUF_ERROR) damaged("damaged data");
      ended_ = code == LZMA_STREAM_END;
      if (state_.avail_out < out.size()) return out.size() - state_.avail_out;
    }
    return 0;
  }

 private:
  lzma_stream state_ = LZMA_STREAM_INIT;
  bool ended_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> open_bytes(const Path& path) {
  InputFile file(path);
  char start[6];
  const std::string_view head(start, file.read(0, std::as_writable_bytes(std::span(start))));
  if (head.starts_with("\x1f\x8b")) return std::make_unique<GzipSource>(std::move(file));
  if (head.starts_with("\x28\xb5\x2f\xfd")) return std::make_unique<ZstdSource>(std::move(file));
  if (head == std::string_view("\xfd"
                               "7zXZ\0",
                               6))
    return std::make_unique<XzSource>(std::move(file));
  return std::make_unique<PlainSource>(std::move(file));
}

std::unique_ptr<ByteSource> open_packed_bytes(const Path& path) {
  return std::make_unique<PlainSource>(InputFile(path));
}

LineReader::LineReader(const Path& path) : path_(path.string()), source_(open_bytes(path)) {}

std::string LineReader::where() const { return fmt::format("{}:{}", path_, number_); }

bool LineReader::fill() {
  buffer_.erase(0, at_);
  at_ = 0;
  const size_t held = buffer_.size();
  buffer_.resize(held + kWindow);
  buffer_.resize(held + source_->read({buffer_.data() + held, kWindow}));
  return buffer_.size() > held;
}

bool LineReader::next(std::string& line) {
  size_t end = buffer_.find('\n', at_);
  while (end == std::string::npos) {
    const size_t seen = buffer_.size() - at_;
    check<DataError>(seen <= kLongest, "{}:{}: a line must be at most {} bytes, got a longer one", path_,
                     number_ + 1, kLongest);
    if (!fill()) break;
    end = buffer_.find('\n', at_ + seen);
  }
  if (end == std::string::npos && at_ == buffer_.size()) return false;
  const size_t stop = std::min(end, buffer_.size());
  line.assign(buffer_, at_, stop - at_);
  if (end != std::string::npos && line.ends_with('\r')) line.pop_back();
  at_ = std::min(stop + 1, buffer_.size());
  ++number_;
  return true;
}

}  // namespace retort::data
