// A layer's blob: decompressed and read as a tar stream. The first byte says how long the pieces
// are in which it comes.
#include <algorithm>
#include <cstring>

#include "driver/image/decompress.h"
#include "driver/image/layer_dir.h"
#include "driver/image/tar.h"
#include "tests/fuzz/fuzz.h"

namespace jenkins_agent {
namespace {

class Pieces : public ByteSource {
 public:
  Pieces(absl::string_view bytes, size_t piece) : left_(bytes), piece_(piece) {}
  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    const size_t count = std::min({size, piece_, left_.size()});
    std::memcpy(buffer, left_.data(), count);
    left_.remove_prefix(count);
    return count;
  }

 private:
  absl::string_view left_;
  const size_t piece_;
};

void ReadLayer(ByteSource& blob) {
  const auto stream = Decompress(blob);
  if (!stream.ok()) return;
  HashingSource limited(**stream, 64 << 20);
  TarReader tar(limited);
  TarEntry entry;
  for (;;) {
    const absl::StatusOr<bool> more = tar.Next(entry);
    if (!more.ok() || !*more) return;
    Require(entry.path.find('\0') == std::string::npos &&
            entry.link.find('\0') == std::string::npos);
    Require(entry.path.size() <= kMaxTarPathBytes && entry.mode <= 07777);
    for (const std::string& part : CleanPath(entry.path)) Require(part != ".." && !part.empty());
    int64_t bytes = 0;
    for (;;) {
      const absl::StatusOr<absl::string_view> piece = tar.Content();
      if (!piece.ok()) return;
      if (piece->empty()) break;
      bytes += static_cast<int64_t>(piece->size());
    }
    Require(bytes == entry.size);
  }
}

}  // namespace
}  // namespace jenkins_agent

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  jenkins_agent::Pieces blob({reinterpret_cast<const char*>(data + 1), size - 1}, data[0] * 16 + 1);
  jenkins_agent::ReadLayer(blob);
  return 0;
}
