// Reads the tar streams of image layers: ustar, PAX (POSIX.1-2001) and GNU's long names, base-256
// numbers and extended attributes. Our own, because libarchive 3.6 hands out entries of an unknown
// type as plain files and cuts a PAX path at a NUL, where a layer must be refused.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/image/byte_source.h"

namespace jenkins_agent {

inline constexpr size_t kMaxTarPathBytes = 4096;
inline constexpr int64_t kMaxTarExtensionBytes = 1 << 20;  // one PAX header or long name
inline constexpr int kMaxTarExtensions = 8;                // of one entry
inline constexpr size_t kMaxTarXattrBytes = 64 << 10;      // names and values of one entry

enum class TarType { kFile, kHardLink, kSymlink, kCharDevice, kBlockDevice, kDirectory, kFifo };

struct TarEntry {
  TarType type = TarType::kFile;
  std::string path;   // as written: may be absolute, hold "..", end in '/'
  std::string link;   // target of links
  uint32_t mode = 0;  // permission bits, with set-id and sticky
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t size = 0;  // bytes of content that follow; 0 for everything but files
  int64_t mtime_s = 0;
  int64_t mtime_ns = 0;
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::vector<std::pair<std::string, std::string>> xattrs;
};

// One thread. All errors are InvalidArgument, but those of the source.
class TarReader {
 public:
  // `source` must outlive the reader, which reads ahead of what it hands out.
  explicit TarReader(ByteSource& source);

  // The next entry, behind what is left of the last one's content; false at the archive's end.
  absl::StatusOr<bool> Next(TarEntry& entry);
  // Where the entry's content begins, in bytes of the source. Before the first Content() only.
  int64_t content_offset() const { return filled_ - static_cast<int64_t>(end_ - begin_); }
  // The next piece of the entry's content, valid until the next call; empty at its end.
  absl::StatusOr<absl::string_view> Content();

 private:
  struct Extensions;

  // Reads more behind what is there; false at the stream's end.
  absl::StatusOr<bool> Fill();
  // The next 512 bytes; empty when the stream ends in front of them.
  absl::StatusOr<absl::string_view> Block();
  absl::StatusOr<std::string> ReadExtension(int64_t size);
  absl::StatusOr<bool> ReadEntry(absl::string_view header, int64_t size, Extensions& extensions,
                                 TarEntry& entry);
  absl::Status Skip();

  ByteSource& source_;
  std::vector<char> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  int64_t filled_ = 0;  // bytes that came from the source
  int64_t content_left_ = 0;
  int64_t padding_left_ = 0;
};

}  // namespace jenkins_agent
