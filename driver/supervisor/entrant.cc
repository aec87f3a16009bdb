#include "driver/supervisor/entrant.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/pidfd.h"
#include "driver/base/status.h"
#include "driver/sandbox/privileges.h"
#include "driver/supervisor/protocol.h"
#include "driver/supervisor/session_stdio.h"

namespace jenkins_agent {
namespace {

// What ParseLaunchError takes for OK; the entrant's number follows.
constexpr absl::string_view kBorn("\0", 1);

// The pid namespace comes by birth.
constexpr int kNamespaces =
    CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

// With it: a memfd with a LaunchSpec of sandbox, user and program; the payload's stdout and stderr;
// the user namespace if there is one.
struct OrderHeader {
  char kind;
  bool tty;
  bool merge_stderr;
};
constexpr size_t kLeastFds = 3;

constexpr uid_t kUnusedUid = 0xFFFFFFFE;        // the last one; 0xFFFFFFFF is no id
constexpr std::chrono::seconds kBirthLimit{1};  // it takes less than a millisecond

// ---- the entrant ----

absl::Status ObeyPid1(const cgroups::Cgroup& cgroup, int channel) {
  ASSIGN_OR_RETURN(const Packet packet, ReceivePacket(channel));
  OrderHeader header;
  if (packet.data.size() != sizeof(header) || packet.fds.size() < kLeastFds) {
    return absl::InternalError("order is garbled");
  }
  std::memcpy(&header, packet.data.data(), sizeof(header));
  ASSIGN_OR_RETURN(const std::string bytes, ReadAll(packet.fds[0].get(), kMaxSpecBytes));
  pb::LaunchSpec spec;
  if (!spec.ParseFromString(bytes)) return absl::InternalError("order is garbled");
  LaunchContext context{spec.sandbox(), spec.user(), cgroup, packet.fds[1].get(),
                        packet.fds[2].get()};
  if (packet.fds.size() > kLeastFds) context.user_namespace = packet.fds[kLeastFds].get();
  const auto connect = [&] {
    return header.kind == static_cast<char>(InitRequest::Kind::kStartSession)
               ? ConnectSessionStdio(channel, header.tty, header.merge_stderr)
               : ConnectPayloadStdio(context);
  };
  RETURN_IF_ERROR(BecomeTaskProcess(context, connect, channel));
  return ExecuteProgram(spec.program());
}

[[noreturn]] void RunEntrant(const cgroups::Cgroup& cgroup, int channel) {
  absl::Status status = BecomeEntrant();
  if (status.ok()) status = ObeyPid1(cgroup, channel);
  EndWithLaunchError(status, channel);
}

// ---- the usher ----

// Everything of the host's is closed before the first process of ours is there to stay.
absl::Status EnterSandbox(int init_pidfd, int channel) {
  if (::setns(init_pidfd, kNamespaces) != 0) return ErrnoStatus("join the sandbox's namespaces");
  return CloseAllBut(channel);
}

absl::Status Usher(const cgroups::Cgroup& cgroup, bool inside, int init_pidfd, int channel) {
  if (!inside) return absl::UnavailableError("nobody can be born in the cgroup");
  RETURN_IF_ERROR(EnterSandbox(init_pidfd, channel));
  const pid_t entrant = ::fork();
  if (entrant < 0) return ErrnoStatus("fork");
  if (entrant == 0) RunEntrant(cgroup, channel);
  return SendPacket(channel, absl::StrCat(kBorn, entrant));
}

// ---- the midwife ----

// With a real and a saved id that no process has: the job's processes may stop those who have
// theirs (kill(2)), and root's those of root. What root may do hangs on the effective one.
absl::Status PrepareBirth(int init_pidfd) {
  if (::setresuid(kUnusedUid, 0, kUnusedUid) != 0) return ErrnoStatus("setresuid");
  // Of the caller it changes only where children are born (setns(2)).
  if (::setns(init_pidfd, CLONE_NEWPID) == 0) return absl::OkStatus();
  return ErrnoStatus("join the sandbox's pid namespace");
}

// The cgroup may be frozen. No word of it: the usher may have sent its own, and be late to end
// only.
void SeeToItsEnd(pid_t usher) {
  const absl::StatusOr<Fd> pidfd = OpenPidfd(usher);
  const bool ended = pidfd.ok() && AwaitPidfd(pidfd->get(), kBirthLimit);
  if (!ended) ::kill(usher, SIGKILL);  // not reaped yet
  ::waitpid(usher, nullptr, 0);
}

[[noreturn]] void RunMidwife(const cgroups::Cgroup& cgroup, int init_pidfd, int channel) {
  if (const absl::Status ready = PrepareBirth(init_pidfd); !ready.ok()) {
    EndWithLaunchError(ready, channel);
  }
  const absl::StatusOr<cgroups::Cgroup::Forked> usher = cgroup.Fork();
  if (!usher.ok()) EndWithLaunchError(usher.status(), channel);
  if (usher->pid == 0) {
    const absl::Status status = Usher(cgroup, usher->inside, init_pidfd, channel);
    if (!status.ok()) EndWithLaunchError(status, channel);
    ::_exit(0);
  }
  SeeToItsEnd(usher->pid);
  ::_exit(0);
}

}  // namespace

absl::StatusOr<Birth> BearEntrant(const cgroups::Cgroup& cgroup, int init_pidfd) {
  ASSIGN_OR_RETURN(SocketPair channel, MakeSocketPair(SOCK_SEQPACKET));
  if (::fcntl(channel.first.get(), F_SETFL, O_NONBLOCK) != 0) return ErrnoStatus("O_NONBLOCK");
  const pid_t midwife = ::fork();
  if (midwife < 0) return ErrnoStatus("fork");
  if (midwife == 0) {
    channel.first.Reset();
    RunMidwife(cgroup, init_pidfd, channel.second.get());
  }
  Birth birth;
  birth.channel = std::move(channel.first);
  absl::StatusOr<Fd> pidfd = OpenPidfd(midwife);
  if (!pidfd.ok()) {
    ::kill(midwife, SIGKILL);  // ours and not reaped yet
    ::waitpid(midwife, nullptr, 0);
    return pidfd.status();
  }
  birth.midwife = *std::move(pidfd);
  return birth;
}

absl::StatusOr<Entrant> ReadEntrant(Fd channel) {
  const absl::StatusOr<Packet> word = ReceivePacket(channel.get());
  if (!word.ok()) return absl::AbortedError("held up or killed on its way into the sandbox");
  RETURN_IF_ERROR(ParseLaunchError(word->data));
  Entrant entrant;
  if (!absl::SimpleAtoi(absl::string_view(word->data).substr(kBorn.size()), &entrant.pid)) {
    return absl::InternalError("word of the entrant is garbled");
  }
  entrant.channel = std::move(channel);
  return entrant;
}

absl::Status OrderEntrant(const LaunchContext& context, const InitRequest& request) {
  pb::LaunchSpec spec;
  *spec.mutable_sandbox() = context.sandbox;
  *spec.mutable_user() = context.user;
  *spec.mutable_program() = request.program;
  ASSIGN_OR_RETURN(const Fd memfd, MakeSealedMemfd("order", spec.SerializeAsString()));
  const OrderHeader header = {static_cast<char>(request.kind), request.tty, request.merge_stderr};
  std::vector<int> fds = {memfd.get(), context.stdout_fd, context.stderr_fd};
  if (context.user_namespace >= 0) fds.push_back(context.user_namespace);
  return SendPacket(request.entrant.channel.get(),
                    {reinterpret_cast<const char*>(&header), sizeof(header)}, fds);
}

absl::StatusOr<StartingPayload> LaunchEntrant(const LaunchContext& context, InitRequest& request) {
  RETURN_IF_ERROR(OrderEntrant(context, request));
  StartingPayload payload;
  payload.pid = request.entrant.pid;
  absl::StatusOr<Fd> pidfd = OpenPidfd(payload.pid);
  if (!pidfd.ok()) {
    ::kill(payload.pid, SIGKILL);  // it would execute, and nobody would follow it
    return pidfd.status();
  }
  payload.pidfd = *std::move(pidfd);
  payload.error = std::move(request.entrant.channel);
  return payload;
}

}  // namespace jenkins_agent
