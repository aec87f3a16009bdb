#include "driver/supervisor/init_sessions.h"

#include <dirent.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "driver/base/packet.h"
#include "driver/base/pidfd.h"
#include "driver/base/status.h"
#include "driver/supervisor/entrant.h"
#include "driver/supervisor/session_stdio.h"

namespace jenkins_agent {
namespace {

constexpr int kMaxKillRounds = 8;  // each finds what the last one forked

[[noreturn]] void RunLeader(const LaunchContext& context, const InitRequest& request, bool inside,
                            int channel) {
  const auto connect = [&] {
    return ConnectSessionStdio(channel, request.tty, request.merge_stderr);
  };
  EndWithLaunchError(BecomeProgram(context, request.program, inside, connect, channel), channel);
}

// ---- the end of a session ----

// The pidfd is opened first: should the number change hands before getsid, it signals nobody.
bool KillIfMember(pid_t pid, pid_t session) {
  const absl::StatusOr<Fd> pidfd = OpenPidfd(pid);
  if (!pidfd.ok() || ::getsid(pid) != session) return false;
  if (AwaitPidfd(pidfd->get(), std::chrono::milliseconds(0))) return false;  // a zombie
  return SignalPidfd(pidfd->get(), SIGKILL).ok();
}

bool KillNewMembers(pid_t session, std::set<pid_t>* killed) {
  const std::unique_ptr<DIR, int (*)(DIR*)> processes(::opendir("/proc"), ::closedir);
  if (processes == nullptr) return false;
  bool found = false;
  while (const dirent* entry = ::readdir(processes.get())) {
    pid_t pid;
    if (!absl::SimpleAtoi(entry->d_name, &pid) || pid <= 1 || killed->contains(pid)) continue;
    if (!KillIfMember(pid, session)) continue;
    killed->insert(pid);
    found = true;
  }
  return found;
}

}  // namespace

void InitSessions::Start(InitRequest request) {
  absl::StatusOr<Session> session = StartLeader(request);
  if (session.ok()) {
    sessions_[request.session] = *std::move(session);
    return;
  }
  InitReport failed;
  failed.kind = InitReport::Kind::kSessionFailed;
  failed.session = request.session;
  failed.error = session.status();
  report_(std::move(failed));
}

absl::StatusOr<InitSessions::Session> InitSessions::StartLeader(InitRequest& request) const {
  if (request.program.argv().empty()) return absl::InvalidArgumentError("no program to start");
  Session session;
  if (request.entrant.pid != 0) {
    const absl::Status ordered = OrderEntrant(context_, request);
    if (ordered.ok()) {
      session.leader = request.entrant.pid;
      session.channel = std::move(request.entrant.channel);
      return session;
    }
    if (!absl::IsUnavailable(ordered)) return ordered;
  }
  ASSIGN_OR_RETURN(SocketPair channel, MakeSocketPair(SOCK_SEQPACKET, SOCK_NONBLOCK));
  ASSIGN_OR_RETURN(const cgroups::Cgroup::Forked forked, context_.cgroup.Fork());
  if (forked.pid == 0) RunLeader(context_, request, forked.inside, channel.second.get());
  session.leader = forked.pid;
  session.channel = std::move(channel.first);
  return session;
}

void InitSessions::AddTo(std::vector<pollfd>* fds) const {
  for (const auto& [id, session] : sessions_) {
    if (session.channel) fds->push_back({session.channel.get(), POLLIN, 0});
  }
}

void InitSessions::OnReadable(int fd) {
  for (const auto& [id, session] : sessions_) {
    if (session.channel.get() == fd) return ReadChannel(id);
  }
}

void InitSessions::ReadChannel(uint32_t id) {
  Session& session = sessions_.at(id);
  for (;;) {
    absl::StatusOr<Packet> packet = ReceivePacket(session.channel.get());
    if (absl::IsResourceExhausted(packet.status())) return;
    if (!packet.ok()) return FinishStart(id);  // end of file: exec, or death
    if (packet->fds.empty()) {
      session.error = ParseLaunchError(packet->data);
    } else {
      session.stdio = std::move(packet->fds);
    }
  }
}

void InitSessions::FinishStart(uint32_t id) {
  Session& session = sessions_.at(id);
  session.channel.Reset();
  InitReport report;
  report.session = id;
  report.error = session.error;
  if (report.error.ok() && session.stdio.empty()) {
    report.error = absl::AbortedError("the process died before its exec");
  }
  report.kind =
      report.error.ok() ? InitReport::Kind::kSessionStarted : InitReport::Kind::kSessionFailed;
  report.number = static_cast<uint32_t>(session.leader);
  report.stdio = std::move(session.stdio);
  const bool forgotten = session.forgotten;
  if (!report.error.ok()) sessions_.erase(id);  // its leader is reaped like any orphan
  if (!forgotten) report_(std::move(report));
}

void InitSessions::OnReaped(pid_t pid, int wait_status) {
  for (const auto& [id, session] : sessions_) {
    if (session.leader != pid || session.ended) continue;
    const uint32_t ended = id;
    // The child's end of the channel is closed now: the supervisor hears of the start first.
    if (session.channel) ReadChannel(ended);
    const auto it = sessions_.find(ended);
    if (it == sessions_.end()) return;
    it->second.ended = true;
    if (it->second.forgotten) {
      sessions_.erase(it);
      return;
    }
    InitReport exited;
    exited.kind = InitReport::Kind::kSessionExited;
    exited.session = ended;
    exited.number = static_cast<uint32_t>(wait_status);
    return report_(std::move(exited));
  }
}

void InitSessions::Kill(uint32_t session) {
  const auto it = sessions_.find(session);
  if (it == sessions_.end()) return;
  const pid_t leader = it->second.leader;
  // The kernel gives a number out again only when it names neither process, group nor session. So
  // if it names a process after the leader was reaped, all of the session has ended before.
  const bool reused = it->second.ended && ::kill(leader, 0) == 0;
  if (!it->second.ended) ::kill(leader, SIGKILL);  // also before its setsid
  std::set<pid_t> killed;
  int rounds = reused ? 0 : kMaxKillRounds;
  while (rounds > 0 && KillNewMembers(leader, &killed)) --rounds;
  Release(session);
}

void InitSessions::Release(uint32_t session) {
  const auto it = sessions_.find(session);
  if (it == sessions_.end()) return;
  it->second.forgotten = true;
  if (it->second.ended) sessions_.erase(it);
}

}  // namespace jenkins_agent
