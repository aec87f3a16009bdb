// The files of an image that lies on this node, by name: those of a directory, or of a tar that is
// looked through once and then read in place. Whoever wrote them chooses no file outside.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "driver/image/byte_source.h"

namespace jenkins_agent {

inline constexpr size_t kMaxArchiveEntries = 16'384;  // of an archive of images

// Its functions may be called from several threads at once. Names are relative, without "." and
// "..". NotFound: there is no such file.
class ImageFiles {
 public:
  virtual ~ImageFiles() = default;
  // At most `limit` bytes; OutOfRange: it is longer.
  virtual absl::StatusOr<std::string> Text(const std::string& name, size_t limit) = 0;
  virtual absl::StatusOr<std::unique_ptr<ByteSource>> Stream(const std::string& name) = 0;
  virtual absl::StatusOr<int64_t> Size(const std::string& name) = 0;  // bytes
};

// One file as a stream that holds it open.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenFileSource(const std::string& path);

absl::StatusOr<std::unique_ptr<ImageFiles>> OpenDirectoryFiles(const std::string& dir);
// Links within the archive count as the files that they lead to, as in those of docker before 25.
// InvalidArgument: no tar, or a compressed one, which cannot be read in place.
absl::StatusOr<std::unique_ptr<ImageFiles>> OpenArchiveFiles(const std::string& file);

}  // namespace jenkins_agent
