#include "driver/base/fd.h"

#include <fcntl.h>

#include "driver/base/status.h"

namespace jenkins_agent {

absl::StatusOr<Pipe> MakePipe(int flags) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC | flags) != 0) return ErrnoStatus("pipe2");
  return Pipe{Fd(fds[0]), Fd(fds[1])};
}

absl::StatusOr<SocketPair> MakeSocketPair(int type, int flags) {
  int fds[2];
  if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC | flags, 0, fds) != 0) {
    return ErrnoStatus("socketpair");
  }
  return SocketPair{Fd(fds[0]), Fd(fds[1])};
}

absl::StatusOr<Fd> Duplicate(int fd) {
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) return ErrnoStatus("dup");
  return Fd(copy);
}

}  // namespace jenkins_agent
