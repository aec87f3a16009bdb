// Messages over a SOCK_SEQPACKET unix socket, with descriptors beside them.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

inline constexpr size_t kMaxPacketBytes = 128 << 10;
inline constexpr size_t kMaxPacketFds = 32;

struct Packet {
  std::string data;
  std::vector<Fd> fds;
};

// Sends one packet. MSG_NOSIGNAL; Unavailable when the peer is gone, ResourceExhausted on EAGAIN.
absl::Status SendPacket(int socket, absl::string_view data, const std::vector<int>& fds = {});
// Receives one packet. OutOfRange at end of stream, ResourceExhausted on EAGAIN (nothing there
// now), InvalidArgument for a truncated one. Received descriptors are CLOEXEC.
absl::StatusOr<Packet> ReceivePacket(int socket);
// Uid of the process at the other end (SO_PEERCRED).
absl::StatusOr<uid_t> PeerUid(int socket);

// Binds / connects a SEQPACKET socket named `name` in a directory, through /proc/self/fd, because
// sun_path holds 107 bytes only (unix(7)). The listener has mode 0600 and replaces an old socket.
// ResourceExhausted: the listener's queue is full and it accepts nobody within `limit` (> 0).
inline constexpr std::chrono::milliseconds kConnectLimit{1000};
absl::StatusOr<Fd> ListenPacket(int dir_fd, const std::string& name);
absl::StatusOr<Fd> ConnectPacket(int dir_fd, const std::string& name,
                                 std::chrono::milliseconds limit = kConnectLimit);

}  // namespace jenkins_agent
