// TCP sockets of a network namespace as the kernel knows them (sock_diag(7)), without a copy of
// their descriptors: to close a copy can wait for as long as its owner has set SO_LINGER
// (net/ipv4/af_inet.c, inet_release), and the owner is the job.
//
// A look at one known socket is a hash lookup of some microseconds; /proc/net/tcp takes
// milliseconds (spike.md 7). Not thread-safe.
#pragma once

#include <linux/inet_diag.h>

#include <chrono>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

struct TcpSocket {
  uint8_t family = 0;
  inet_diag_sockid id = {};  // addresses, ports and the kernel's cookie
  uint32_t inode = 0;
  uint8_t state = 0;        // TCP_ESTABLISHED, TCP_CLOSE_WAIT, ... (netinet/tcp.h)
  bool keep_alive = false;  // it has a keep-alive timer and nothing unacknowledged
};

struct TcpFigures {
  uint8_t state = 0;
  uint32_t unread_bytes = 0;
  uint64_t read_bytes = 0;  // by its owner, since the connection stands
  std::chrono::milliseconds since_received{0};
  std::chrono::milliseconds since_sent{0};
};

class SocketDiag {
 public:
  // More sockets than that of one process are not looked at.
  static constexpr size_t kMaxSockets = 4096;

  // `network_namespace`: a path; "": the caller's.
  static absl::StatusOr<SocketDiag> Open(const std::string& network_namespace);

  // Those of `inodes` that are TCP and connected, or were. Goes through all of the namespace.
  absl::StatusOr<std::vector<TcpSocket>> Find(const std::set<uint32_t>& inodes);
  // NotFound: it is gone.
  absl::StatusOr<TcpFigures> Look(const TcpSocket& socket);

 private:
  explicit SocketDiag(Fd socket) : socket_(std::move(socket)) {}
  absl::Status Dump(uint8_t family, const std::set<uint32_t>& inodes,
                    std::vector<TcpSocket>& found);

  Fd socket_;
  uint32_t sequence_ = 0;
};

// Inodes of a process's sockets. NotFound: it is gone. ResourceExhausted: it has too many
// descriptors to look at.
absl::StatusOr<std::set<uint32_t>> SocketsOf(pid_t pid);

}  // namespace jenkins_agent
