#include "driver/task/socket_diag.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr size_t kReplyBytes = 32 << 10;  // what the kernel fills at most for one read
constexpr int kMaxReplies = 4096;         // of one dump: a bound, not a size
constexpr uint8_t kKeepAliveTimer = 2;    // inet_diag(7): idiag_timer
// include/net/tcp_states.h, which has no copy for programs beside netinet/tcp.h, whose tcp_info is
// an older one than the kernel's.
enum : uint8_t {
  kEstablished = 1,
  kFinWait1 = 4,
  kFinWait2 = 5,
  kCloseWait = 8,
  kLastAck = 9,
  kClosing = 11
};
constexpr uint32_t kStates = 1u << kEstablished | 1u << kFinWait1 | 1u << kFinWait2 |
                             1u << kCloseWait | 1u << kLastAck | 1u << kClosing;

struct Request {
  nlmsghdr header;
  inet_diag_req_v2 body;
};

Request MakeRequest(uint16_t flags, uint32_t sequence, uint8_t family) {
  Request request = {};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  request.header.nlmsg_seq = sequence;
  request.body.sdiag_family = family;
  request.body.sdiag_protocol = IPPROTO_TCP;
  return request;
}

absl::StatusOr<Fd> OpenHere() {
  Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG));
  if (!socket) return ErrnoStatus("sock_diag socket");
  return socket;
}

// A socket stays in the namespace of its making; only a thread of its own may go there.
absl::StatusOr<Fd> OpenThere(const std::string& network_namespace) {
  ASSIGN_OR_RETURN(const Fd there, OpenFile(network_namespace, O_RDONLY));
  absl::StatusOr<Fd> opened = absl::InternalError("not opened");
  std::thread([&] {
    opened = ::setns(there.get(), CLONE_NEWNET) == 0
                 ? OpenHere()
                 : ErrnoStatus(absl::StrCat("setns ", network_namespace));
  }).join();
  return opened;
}

using OnMessage = std::function<void(const nlmsghdr&)>;

// The answers are there when the request has been sent: the kernel makes them as they are read.
absl::Status ReadAnswers(int socket, uint32_t sequence, bool until_done,
                         const OnMessage& on_message) {
  alignas(nlmsghdr) std::array<char, kReplyBytes> buffer;
  for (int reply = 0; reply < kMaxReplies; ++reply) {
    const ssize_t size = ::recv(socket, buffer.data(), buffer.size(), 0);
    if (size < 0) return ErrnoStatus("sock_diag");
    auto left = static_cast<unsigned>(size);
    for (const auto* message = reinterpret_cast<const nlmsghdr*>(buffer.data());
         NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
      if (message->nlmsg_seq != sequence) continue;
      if (message->nlmsg_type == NLMSG_DONE) return absl::OkStatus();
      if (message->nlmsg_type == NLMSG_ERROR) {
        const int error = -static_cast<const nlmsgerr*>(NLMSG_DATA(message))->error;
        if (error == ENOENT) return absl::NotFoundError("the socket is gone");
        return ErrnoStatus("sock_diag", error);
      }
      on_message(*message);
      if (!until_done) return absl::OkStatus();
    }
  }
  return absl::ResourceExhaustedError("sock_diag: endless answers");
}

absl::Status Send(int socket, const Request& request) {
  if (::send(socket, &request, sizeof(request), 0) < 0) return ErrnoStatus("sock_diag");
  return absl::OkStatus();
}

TcpFigures FiguresOf(const nlmsghdr& message) {
  const auto* body = static_cast<const inet_diag_msg*>(NLMSG_DATA(&message));
  TcpFigures figures;
  figures.state = body->idiag_state;
  figures.unread_bytes = body->idiag_rqueue;
  auto left = static_cast<unsigned>(message.nlmsg_len - NLMSG_LENGTH(sizeof(*body)));
  for (const auto* attribute = reinterpret_cast<const rtattr*>(body + 1); RTA_OK(attribute, left);
       attribute = RTA_NEXT(attribute, left)) {
    if (attribute->rta_type != INET_DIAG_INFO) continue;
    tcp_info info = {};
    ::memcpy(&info, RTA_DATA(attribute), std::min<size_t>(sizeof(info), RTA_PAYLOAD(attribute)));
    figures.since_received = std::chrono::milliseconds(info.tcpi_last_data_recv);
    figures.since_sent = std::chrono::milliseconds(info.tcpi_last_data_sent);
    // What has come, but for what still waits; since Linux 4.1.
    figures.read_bytes = info.tcpi_bytes_received - figures.unread_bytes;
  }
  return figures;
}

}  // namespace

absl::StatusOr<SocketDiag> SocketDiag::Open(const std::string& network_namespace) {
  ASSIGN_OR_RETURN(Fd socket,
                   network_namespace.empty() ? OpenHere() : OpenThere(network_namespace));
  return SocketDiag(std::move(socket));
}

absl::StatusOr<std::vector<TcpSocket>> SocketDiag::Find(const std::set<uint32_t>& inodes) {
  std::vector<TcpSocket> found;
  if (inodes.empty()) return found;
  RETURN_IF_ERROR(Dump(AF_INET6, inodes, found));  // Java's, also those over IPv4
  RETURN_IF_ERROR(Dump(AF_INET, inodes, found));
  return found;
}

absl::Status SocketDiag::Dump(uint8_t family, const std::set<uint32_t>& inodes,
                              std::vector<TcpSocket>& found) {
  Request request = MakeRequest(NLM_F_DUMP, ++sequence_, family);
  request.body.idiag_states = kStates;
  RETURN_IF_ERROR(Send(socket_.get(), request));
  return ReadAnswers(socket_.get(), sequence_, /*until_done=*/true, [&](const nlmsghdr& message) {
    const auto* body = static_cast<const inet_diag_msg*>(NLMSG_DATA(&message));
    if (!inodes.contains(body->idiag_inode)) return;
    found.push_back({.family = body->idiag_family,
                     .id = body->id,
                     .inode = body->idiag_inode,
                     .state = body->idiag_state,
                     .keep_alive = body->idiag_timer == kKeepAliveTimer});
  });
}

absl::StatusOr<TcpFigures> SocketDiag::Look(const TcpSocket& socket) {
  Request request = MakeRequest(0, ++sequence_, socket.family);
  request.body.idiag_states = kStates;
  request.body.idiag_ext = 1u << (INET_DIAG_INFO - 1);
  request.body.id = socket.id;
  RETURN_IF_ERROR(Send(socket_.get(), request));
  TcpFigures figures;
  uint32_t inode = 0;
  RETURN_IF_ERROR(
      ReadAnswers(socket_.get(), sequence_, /*until_done=*/false, [&](const nlmsghdr& message) {
        figures = FiguresOf(message);
        inode = static_cast<const inet_diag_msg*>(NLMSG_DATA(&message))->idiag_inode;
      }));
  // Without one its owner has closed it, and the kernel still says good-bye.
  if (inode != socket.inode) return absl::NotFoundError("the socket is gone");
  return figures;
}

absl::StatusOr<std::set<uint32_t>> SocketsOf(pid_t pid) {
  const std::string path = absl::StrCat("/proc/", pid, "/fd");
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(path.c_str()), ::closedir);
  if (dir == nullptr) return ErrnoStatus(path);
  std::set<uint32_t> inodes;
  size_t seen = 0;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (++seen > SocketDiag::kMaxSockets) {
      return absl::ResourceExhaustedError(absl::StrCat(path, ": too many to look at"));
    }
    std::array<char, 64> target;
    const ssize_t size =
        ::readlinkat(::dirfd(dir.get()), entry->d_name, target.data(), target.size());
    if (size < 0) continue;
    absl::string_view text(target.data(), static_cast<size_t>(size));
    uint32_t inode;
    if (absl::ConsumePrefix(&text, "socket:[") && absl::ConsumeSuffix(&text, "]") &&
        absl::SimpleAtoi(text, &inode)) {
      inodes.insert(inode);
    }
  }
  return inodes;
}

}  // namespace jenkins_agent
