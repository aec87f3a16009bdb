#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "tests/helpers/escape.h"

namespace jenkins_agent::escape {
namespace {

constexpr int kConnectMs = 3000;

std::string Socket(int family, int type, int protocol) {
  return Answer(::socket(family, type | SOCK_CLOEXEC, protocol));
}

std::string Connect(const char* address, int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in peer = {};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<uint16_t>(port));
  ::inet_pton(AF_INET, address, &peer.sin_addr);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&peer), sizeof(peer)) == 0) return "done";
  if (errno != EINPROGRESS) return ErrnoName(errno);
  pollfd wait = {fd, POLLOUT, 0};
  if (::poll(&wait, 1, kConnectMs) == 0) return "ETIMEDOUT";
  int error = 0;
  socklen_t size = sizeof(error);
  ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error == 0 ? "done" : ErrnoName(error);
}

std::string ConnectAbstract() {
  const std::string name = Told("ESCAPE_ABSTRACT");
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un peer = {};
  peer.sun_family = AF_UNIX;
  if (name.empty() || name.size() + 1 > sizeof(peer.sun_path)) return "unknown";
  std::memcpy(peer.sun_path + 1, name.data(), name.size());
  const size_t size = offsetof(sockaddr_un, sun_path) + 1 + name.size();
  return Answer(::connect(fd, reinterpret_cast<sockaddr*>(&peer), static_cast<socklen_t>(size)));
}

std::string BindLowPort() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in own = {};
  own.sin_family = AF_INET;
  own.sin_port = htons(1);
  return Answer(::bind(fd, reinterpret_cast<sockaddr*>(&own), sizeof(own)));
}

std::string ForceBuffer() {
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const int bytes = 1 << 20;
  return Answer(::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)));
}

std::string SeeHostSockets() {
  FILE* file = ::fopen("/proc/net/unix", "re");
  if (file == nullptr) return ErrnoName(errno);
  const std::string name = Told("ESCAPE_ABSTRACT");
  char line[512];
  while (::fgets(line, sizeof(line), file) != nullptr) {
    if (std::strstr(line, name.c_str()) != nullptr) return "seen";
  }
  return "hidden";
}

// One more loopback address.
std::string AddAddress() {
  const int fd = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) return ErrnoName(errno);
  struct {
    nlmsghdr head = {};
    ifaddrmsg message = {};
    rtattr attribute = {};
    in_addr address = {};
  } request;
  request.head.nlmsg_len = sizeof(request);
  request.head.nlmsg_type = RTM_NEWADDR;
  request.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
  request.message.ifa_family = AF_INET;
  request.message.ifa_prefixlen = 32;
  request.message.ifa_index = 1;  // lo
  request.attribute = {sizeof(rtattr) + sizeof(in_addr), IFA_LOCAL};
  ::inet_pton(AF_INET, "127.99.99.99", &request.address);
  if (::send(fd, &request, sizeof(request), 0) < 0) return ErrnoName(errno);
  struct {
    nlmsghdr head;
    nlmsgerr error;
    char rest[512];
  } reply = {};
  if (::recv(fd, &reply, sizeof(reply), 0) < 0) return ErrnoName(errno);
  return reply.error.error == 0 ? "done" : ErrnoName(-reply.error.error);
}

}  // namespace

Attempts NetworkAttempts() {
  return {
      {"SocketPacket", [] { return Socket(AF_PACKET, SOCK_RAW, 0); }},
      {"SocketRaw", [] { return Socket(AF_INET, SOCK_RAW, IPPROTO_ICMP); }},
      {"SocketRaw6", [] { return Socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6); }},
      {"SocketAlg", [] { return Socket(AF_ALG, SOCK_SEQPACKET, 0); }},
      {"SocketVsock", [] { return Socket(AF_VSOCK, SOCK_STREAM, 0); }},
      {"SocketTipc", [] { return Socket(AF_TIPC, SOCK_STREAM, 0); }},
      {"SocketRds", [] { return Socket(AF_RDS, SOCK_SEQPACKET, 0); }},
      {"SocketKey", [] { return Socket(AF_KEY, SOCK_RAW, 2); }},
      {"SocketXdp", [] { return Socket(AF_XDP, SOCK_RAW, 0); }},
      {"SocketBluetooth", [] { return Socket(AF_BLUETOOTH, SOCK_RAW, 1); }},
      {"AddAddress", AddAddress},
      {"BindLowPort", BindLowPort},
      {"ForceBuffer", ForceBuffer},
      {"ConnectHostLoopback",
       [] { return Connect("127.0.0.1", ::atoi(Told("ESCAPE_PORT").c_str())); }},
      {"ConnectHostAbstract", ConnectAbstract},
      {"ConnectMetadata", [] { return Connect("169.254.169.254", 80); }},
      {"SeeHostSockets", SeeHostSockets},
  };
}

}  // namespace jenkins_agent::escape
