#include "driver/image/byte_source.h"

#include <unistd.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr size_t kDrainBytes = 64 << 10;

}  // namespace

absl::StatusOr<size_t> FileSource::Read(char* buffer, size_t size) {
  for (;;) {
    const ssize_t count = ::pread(fd_, buffer, size, position_);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus("read");
    position_ += count;
    return static_cast<size_t>(count);
  }
}

absl::StatusOr<size_t> TextSource::Read(char* buffer, size_t size) {
  const size_t count = text_.copy(buffer, size, position_);
  position_ += count;
  return count;
}

absl::StatusOr<size_t> HashingSource::Read(char* buffer, size_t size) {
  // One byte more than allowed tells a longer stream from one that ends there.
  const auto left = static_cast<uint64_t>(limit_ - bytes_) + 1;
  ASSIGN_OR_RETURN(const size_t count,
                   from_.Read(buffer, static_cast<size_t>(std::min<uint64_t>(size, left))));
  bytes_ += static_cast<int64_t>(count);
  if (bytes_ > limit_)
    return absl::OutOfRangeError(absl::StrCat("is longer than ", limit_, " bytes"));
  hash_.Add({buffer, count});
  return count;
}

absl::Status Drain(ByteSource& source) {
  std::vector<char> buffer(kDrainBytes);
  for (;;) {
    ASSIGN_OR_RETURN(const size_t count, source.Read(buffer.data(), buffer.size()));
    if (count == 0) return absl::OkStatus();
  }
}

}  // namespace jenkins_agent
