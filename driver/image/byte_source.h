// A stream of bytes that is read once, front to back: a blob from the network or a file, or what
// one of these unpacks to. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "driver/image/digest.h"

namespace jenkins_agent {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // At most `size` bytes, at least one; 0: the end, which stays the end.
  virtual absl::StatusOr<size_t> Read(char* buffer, size_t size) = 0;
};

// A file, read from its beginning whatever the descriptor's position. `fd` stays the caller's.
class FileSource : public ByteSource {
 public:
  explicit FileSource(int fd) : fd_(fd) {}
  absl::StatusOr<size_t> Read(char* buffer, size_t size) override;

 private:
  const int fd_;
  off_t position_ = 0;
};

class TextSource : public ByteSource {
 public:
  explicit TextSource(std::string text) : text_(std::move(text)) {}
  absl::StatusOr<size_t> Read(char* buffer, size_t size) override;

 private:
  const std::string text_;
  size_t position_ = 0;
};

// Passes `from` on, which must outlive it: hashed, counted, and ended with OutOfRange (of an image:
// hostile or damaged) when it is longer than `limit` bytes.
class HashingSource : public ByteSource {
 public:
  HashingSource(ByteSource& from, int64_t limit) : from_(from), limit_(limit) {}
  absl::StatusOr<size_t> Read(char* buffer, size_t size) override;

  int64_t bytes() const { return bytes_; }
  // Of everything read so far; nothing can be read afterwards.
  Digest Finish() { return hash_.Finish(); }

 private:
  ByteSource& from_;
  const int64_t limit_;
  int64_t bytes_ = 0;
  Sha256 hash_;
};

// Reads to the end and forgets.
absl::Status Drain(ByteSource& source);

}  // namespace jenkins_agent
