// Owners of file descriptors. Every descriptor of this project is CLOEXEC and held by an Fd.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "absl/status/statusor.h"

namespace jenkins_agent {

// Move-only owner of one descriptor; closes it in the destructor. Not thread-safe.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) Reset(other.Release());
    return *this;
  }
  ~Fd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  explicit operator bool() const { return valid(); }
  int Release() { return std::exchange(fd_, -1); }
  void Reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

struct Pipe {
  Fd read;
  Fd write;
};

struct SocketPair {
  Fd first;
  Fd second;
};

// pipe2(O_CLOEXEC | flags).
absl::StatusOr<Pipe> MakePipe(int flags = 0);
// AF_UNIX pair of `type` (SOCK_SEQPACKET, SOCK_STREAM), CLOEXEC.
absl::StatusOr<SocketPair> MakeSocketPair(int type, int flags = 0);
// A second descriptor of the same open file, CLOEXEC.
absl::StatusOr<Fd> Duplicate(int fd);

}  // namespace jenkins_agent
