#include "driver/sandbox/network.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

// netdevice(7). The kernel gives the interface its addresses when it comes up.
absl::Status RaiseLoopback() {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return ErrnoStatus("open socket");
  ifreq request = {};
  std::strcpy(request.ifr_name, "lo");
  if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0) return ErrnoStatus("look at lo");
  if ((request.ifr_flags & IFF_UP) != 0) return absl::OkStatus();
  request.ifr_flags |= IFF_UP;
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) return ErrnoStatus("bring lo up");
  return absl::OkStatus();
}

}  // namespace

absl::Status JoinNetworkNamespace(const std::string& path) {
  if (path.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Fd fd, OpenFile(path, O_RDONLY | O_NONBLOCK), "join network namespace");
  if (::setns(fd.get(), CLONE_NEWNET) != 0) {
    if (errno == EINVAL || errno == EBADF) {
      return absl::InvalidArgumentError(
          absl::StrCat("join network namespace ", path, ": it is no network namespace"));
    }
    return ErrnoStatus(absl::StrCat("join network namespace ", path));
  }
  return absl::OkStatus();
}

absl::Status EnterNetwork(const pb::SandboxSpec& spec) {
  if (spec.network_namespace().empty() && !spec.own_network()) return absl::OkStatus();
  RETURN_IF_ERROR(JoinNetworkNamespace(spec.network_namespace()));
  if (spec.own_network() && ::unshare(CLONE_NEWNET) != 0) {
    return ErrnoStatus("make a network namespace");
  }
  return Annotate(RaiseLoopback(), "network namespace");
}

}  // namespace jenkins_agent
