#include "driver/base/packet.h"

#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

// Address of `name` in the directory: short whatever the directory's real path is.
absl::StatusOr<sockaddr_un> Address(int dir_fd, const std::string& name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string path = absl::StrCat("/proc/self/fd/", dir_fd, "/", name);
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("socket name too long: ", name));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

absl::StatusOr<Fd> MakeSocket() {
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket) return ErrnoStatus("socket");
  return socket;
}

// Also of connect(2) (unix_stream_connect, net/unix/af_unix.c); 0: waits without limit.
absl::Status SetSendTimeout(int socket, std::chrono::milliseconds limit) {
  const timeval timeout = {.tv_sec = limit.count() / 1000, .tv_usec = limit.count() % 1000 * 1000};
  if (::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) != 0) {
    return ErrnoStatus("SO_SNDTIMEO");
  }
  return absl::OkStatus();
}

// A peer that closed with unread packets of ours in its queue leaves ECONNRESET here, once, and
// before the packets that it sent (unix_release_sock and __skb_try_recv_datagram, Linux 6.1): its
// last words are still to be read.
ssize_t ReceiveOnce(int socket, msghdr* message, int flags) {
  ssize_t received;
  do {
    received = ::recvmsg(socket, message, flags | MSG_CMSG_CLOEXEC);
  } while (received < 0 && (errno == EINTR || errno == ECONNRESET));
  return received;
}

// The kernel looks for a packet first and for the peer's close afterwards (unix_dgram_recvmsg,
// Linux 6.1 to 6.18): the last packet and the close may both come in between, and are told as the
// end. After the close nothing comes any more, so a second look is the last.
ssize_t Receive(int socket, msghdr* message) {
  const size_t control_size = message->msg_controllen;
  const ssize_t received = ReceiveOnce(socket, message, 0);
  if (received != 0 || message->msg_controllen != 0) return received;
  message->msg_controllen = control_size;
  const ssize_t last = ReceiveOnce(socket, message, MSG_DONTWAIT);
  if (last < 0) message->msg_controllen = 0;
  return std::max(last, ssize_t{0});
}

}  // namespace

absl::Status SendPacket(int socket, absl::string_view data, const std::vector<int>& fds) {
  if (data.size() > kMaxPacketBytes || fds.size() > kMaxPacketFds) {
    return absl::InvalidArgumentError(absl::StrCat("packet too large: ", data.size(), " bytes"));
  }
  iovec part = {const_cast<char*>(data.data()), data.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxPacketFds)] = {};
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
  }
  ssize_t sent;
  do {
    sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return absl::OkStatus();
  if (errno == EAGAIN) return absl::ResourceExhaustedError("send: the peer does not read");
  if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN) {
    return absl::UnavailableError("send: the peer is gone");
  }
  return ErrnoStatus("send");
}

absl::StatusOr<Packet> ReceivePacket(int socket) {
  // On the stack, where only what a packet fills costs memory: a buffer for the largest one would
  // stay in the heap of every supervisor and every pid 1.
  char buffer[kMaxPacketBytes];
  iovec part = {buffer, sizeof(buffer)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxPacketFds)];
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t received = Receive(socket, &message);
  if (received < 0 && errno == EAGAIN) return absl::ResourceExhaustedError("nothing to receive");
  if (received < 0) return ErrnoStatus("receive");
  Packet packet;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      packet.fds.emplace_back(fd);
    }
  }
  if (received == 0 && packet.fds.empty()) return absl::OutOfRangeError("end of stream");
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return absl::InvalidArgumentError("packet is truncated");
  }
  packet.data.assign(buffer, static_cast<size_t>(received));
  return packet;
}

absl::StatusOr<uid_t> PeerUid(int socket) {
  ucred credentials = {};
  socklen_t size = sizeof(credentials);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return ErrnoStatus("SO_PEERCRED");
  }
  return credentials.uid;
}

absl::StatusOr<Fd> ListenPacket(int dir_fd, const std::string& name) {
  ASSIGN_OR_RETURN(const sockaddr_un address, Address(dir_fd, name));
  ASSIGN_OR_RETURN(Fd socket, MakeSocket());
  if (::unlinkat(dir_fd, name.c_str(), 0) != 0 && errno != ENOENT) {
    return ErrnoStatus(absl::StrCat("unlink ", name));
  }
  const mode_t old_mask = ::umask(0177);
  const int bound =
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  const int bind_errno = errno;
  ::umask(old_mask);
  if (bound != 0) return ErrnoStatus(absl::StrCat("bind ", name), bind_errno);
  if (::listen(socket.get(), 16) != 0) return ErrnoStatus(absl::StrCat("listen ", name));
  return socket;
}

absl::StatusOr<Fd> ConnectPacket(int dir_fd, const std::string& name,
                                 std::chrono::milliseconds limit) {
  ASSIGN_OR_RETURN(const sockaddr_un address, Address(dir_fd, name));
  ASSIGN_OR_RETURN(Fd socket, MakeSocket());
  RETURN_IF_ERROR(SetSendTimeout(socket.get(), limit));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    if (errno != EAGAIN) return ErrnoStatus(absl::StrCat("connect ", name));
    return absl::ResourceExhaustedError(
        absl::StrCat("connect ", name, ": too many others wait there for an answer"));
  }
  RETURN_IF_ERROR(SetSendTimeout(socket.get(), std::chrono::milliseconds(0)));
  return socket;
}

}  // namespace jenkins_agent
