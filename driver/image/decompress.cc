#include "driver/image/decompress.h"

#include <dlfcn.h>
#include <isa-l/igzip_lib.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr size_t kInputBytes = 128 << 10;
constexpr size_t kMagicBytes = 4;
constexpr absl::string_view kGzipMagic("\x1f\x8b", 2);
constexpr absl::string_view kZstdMagic("\x28\xb5\x2f\xfd", 4);
// Skippable frames, 0x184D2A50 to 5F: zstd:chunked begins with one in some writers.
constexpr absl::string_view kZstdSkippableMagic("\x2a\x4d\x18", 3);

// The packed bytes that were read and not yet used.
class Input {
 public:
  explicit Input(ByteSource& source) : source_(source), buffer_(kInputBytes) {}

  absl::string_view rest() const { return {buffer_.data() + begin_, end_ - begin_}; }
  void Use(size_t count) { begin_ += count; }
  int64_t total() const { return total_; }

  // Makes rest() longer, to `wanted` bytes if there are so many.
  absl::Status Fill(size_t wanted) {
    if (begin_ > 0) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    while (end_ < wanted) {
      ASSIGN_OR_RETURN(const size_t count,
                       source_.Read(buffer_.data() + end_, buffer_.size() - end_));
      if (count == 0) break;
      end_ += count;
      total_ += static_cast<int64_t>(count);
    }
    return absl::OkStatus();
  }

 private:
  ByteSource& source_;
  std::vector<char> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  int64_t total_ = 0;
};

// What one call of a decoder did.
struct Step {
  size_t used = 0;
  size_t made = 0;
  bool ended = false;  // a member or frame is complete; the next input begins a new one
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual absl::StatusOr<Step> Decode(absl::string_view input, char* output, size_t size) = 0;
};

absl::Status Damaged(absl::string_view format) {
  return absl::InvalidArgumentError(absl::StrCat("its ", format, " data are damaged"));
}

class ZlibDecoder : public Decoder {
 public:
  ZlibDecoder() { ::inflateInit2(&stream_, kGzipOnly); }
  ~ZlibDecoder() override { ::inflateEnd(&stream_); }

  absl::StatusOr<Step> Decode(absl::string_view input, char* output, size_t size) override {
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(input.data()));
    stream_.avail_in = static_cast<uInt>(input.size());
    stream_.next_out = reinterpret_cast<Bytef*>(output);
    stream_.avail_out = static_cast<uInt>(size);
    const int result = ::inflate(&stream_, Z_NO_FLUSH);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) return Damaged("gzip");
    const Step step = {.used = input.size() - stream_.avail_in,
                       .made = size - stream_.avail_out,
                       .ended = result == Z_STREAM_END};
    if (step.ended) ::inflateReset(&stream_);
    return step;
  }

 private:
  static constexpr int kGzipOnly = 15 + 16;  // the largest window, and a gzip header
  z_stream stream_ = {};
};

// The functions of libisal.so.2 that are used.
struct Isal {
  decltype(&::isal_inflate_init) init = nullptr;
  decltype(&::isal_inflate) inflate = nullptr;

  bool usable() const { return init != nullptr && inflate != nullptr; }
};

Isal LoadIsal() {
  Isal isal;
  // Never closed: it is used until the process ends.
  void* const library = ::dlopen("libisal.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return isal;
  isal.init = reinterpret_cast<decltype(isal.init)>(::dlsym(library, "isal_inflate_init"));
  isal.inflate = reinterpret_cast<decltype(isal.inflate)>(::dlsym(library, "isal_inflate"));
  return isal;
}

class IsalDecoder : public Decoder {
 public:
  explicit IsalDecoder(const Isal& isal) : isal_(isal), state_(std::make_unique<inflate_state>()) {
    Begin();
  }

  absl::StatusOr<Step> Decode(absl::string_view input, char* output, size_t size) override {
    state_->next_in = reinterpret_cast<uint8_t*>(const_cast<char*>(input.data()));
    state_->avail_in = static_cast<uint32_t>(input.size());
    state_->next_out = reinterpret_cast<uint8_t*>(output);
    state_->avail_out = static_cast<uint32_t>(size);
    if (isal_.inflate(state_.get()) < ISAL_DECOMP_OK) return Damaged("gzip");
    const Step step = {.used = input.size() - state_->avail_in,
                       .made = size - state_->avail_out,
                       .ended = state_->block_state == ISAL_BLOCK_FINISH};
    if (step.ended) Begin();
    return step;
  }

 private:
  void Begin() {
    isal_.init(state_.get());
    state_->crc_flag = ISAL_GZIP;  // reads the header, checks the sum
  }

  const Isal isal_;
  const std::unique_ptr<inflate_state> state_;  // 100 KiB
};

class ZstdDecoder : public Decoder {
 public:
  ZstdDecoder() : context_(::ZSTD_createDCtx()) {
    ::ZSTD_DCtx_setParameter(context_, ZSTD_d_windowLogMax, kMaxZstdWindowLog);
  }
  ~ZstdDecoder() override { ::ZSTD_freeDCtx(context_); }

  absl::StatusOr<Step> Decode(absl::string_view input, char* output, size_t size) override {
    ZSTD_inBuffer in = {input.data(), input.size(), 0};
    ZSTD_outBuffer out = {output, size, 0};
    const size_t result = ::ZSTD_decompressStream(context_, &out, &in);
    if (::ZSTD_isError(result)) {
      return absl::InvalidArgumentError(
          absl::StrCat("its zstd data are damaged: ", ::ZSTD_getErrorName(result)));
    }
    return Step{.used = in.pos, .made = out.pos, .ended = result == 0};
  }

 private:
  ZSTD_DCtx* const context_;
};

class DecodedSource : public ByteSource {
 public:
  DecodedSource(Input input, std::unique_ptr<Decoder> decoder, bool gzip)
      : input_(std::move(input)), decoder_(std::move(decoder)), gzip_(gzip) {}

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    while (!done_) {
      if (input_.rest().empty()) RETURN_IF_ERROR(input_.Fill(1));
      if (between_members_) {
        ASSIGN_OR_RETURN(done_, AtEnd());
        if (done_) break;
      }
      // Also without input: a decoder may hold back output.
      const bool starved = input_.rest().empty();
      ASSIGN_OR_RETURN(const Step step, decoder_->Decode(input_.rest(), buffer, size));
      input_.Use(step.used);
      between_members_ = step.ended;
      made_ += static_cast<int64_t>(step.made);
      RETURN_IF_ERROR(CheckRatio());
      if (step.made > 0) return step.made;
      if (starved && !step.ended) {
        return absl::InvalidArgumentError("its compressed data end too early");
      }
    }
    return 0;
  }

 private:
  // Between two members: is there no further one? Some writers of gzip pad with NULs.
  absl::StatusOr<bool> AtEnd() {
    for (;;) {
      if (input_.rest().empty()) RETURN_IF_ERROR(input_.Fill(1));
      if (input_.rest().empty()) return true;
      if (!gzip_ || input_.rest()[0] != '\0') return false;
      input_.Use(1);
    }
  }

  absl::Status CheckRatio() const {
    if (made_ > kRatioFreeBytes && made_ / kMaxRatio > input_.total()) {
      return absl::OutOfRangeError(absl::StrCat("unpacks to more than ", kMaxRatio,
                                                " times its size, which only a bomb does"));
    }
    return absl::OkStatus();
  }

  Input input_;
  const std::unique_ptr<Decoder> decoder_;
  const bool gzip_;
  int64_t made_ = 0;
  bool between_members_ = false;
  bool done_ = false;
};

// Not compressed: what was read for the sniffing, then the rest.
class PlainSource : public ByteSource {
 public:
  PlainSource(Input input, ByteSource& source) : input_(std::move(input)), source_(source) {}

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    const absl::string_view rest = input_.rest();
    if (rest.empty()) return source_.Read(buffer, size);
    const size_t count = std::min(size, rest.size());
    std::memcpy(buffer, rest.data(), count);
    input_.Use(count);
    return count;
  }

 private:
  Input input_;
  ByteSource& source_;
};

enum class Format { kPlain, kGzip, kZstd };

Format Sniff(absl::string_view start) {
  if (absl::StartsWith(start, kGzipMagic)) return Format::kGzip;
  const bool skippable =
      start.size() >= kMagicBytes && start.substr(1, kMagicBytes - 1) == kZstdSkippableMagic;
  return absl::StartsWith(start, kZstdMagic) || skippable ? Format::kZstd : Format::kPlain;
}

std::unique_ptr<Decoder> MakeGzipDecoder(GzipLibrary library) {
  const Isal isal = library == GzipLibrary::kBest ? LoadIsal() : Isal{};
  if (isal.usable()) return std::make_unique<IsalDecoder>(isal);
  return std::make_unique<ZlibDecoder>();
}

}  // namespace

void LoadGzipLibrary() { (void)LoadIsal(); }

absl::StatusOr<std::unique_ptr<ByteSource>> Decompress(ByteSource& packed, GzipLibrary library) {
  Input input(packed);
  RETURN_IF_ERROR(input.Fill(kMagicBytes));
  const Format format = Sniff(input.rest());
  std::unique_ptr<ByteSource> result;
  if (format == Format::kGzip) {
    result = std::make_unique<DecodedSource>(std::move(input), MakeGzipDecoder(library), true);
  } else if (format == Format::kZstd) {
    result =
        std::make_unique<DecodedSource>(std::move(input), std::make_unique<ZstdDecoder>(), false);
  } else {
    result = std::make_unique<PlainSource>(std::move(input), packed);
  }
  return result;
}

absl::StatusOr<bool> IsCompressed(ByteSource& stream) {
  Input input(stream);
  RETURN_IF_ERROR(input.Fill(kMagicBytes));
  return Sniff(input.rest()) != Format::kPlain;
}

}  // namespace jenkins_agent
