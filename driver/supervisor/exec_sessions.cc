#include "driver/supervisor/exec_sessions.h"

#include <signal.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

// As docker does: without it no program uses the terminal as one.
constexpr char kTerminalType[] = "TERM=xterm";

pb::ProgramSpec ProgramOf(const pb::ControlRequest::Exec& exec, const pb::ProgramSpec& task) {
  pb::ProgramSpec program;
  *program.mutable_argv() = exec.argv();
  *program.mutable_env() = task.env();
  program.set_work_dir(task.work_dir());
  bool has_type = false;
  for (const std::string& variable : program.env()) has_type |= absl::StartsWith(variable, "TERM=");
  if (exec.tty() && !has_type) program.add_env(kTerminalType);
  return program;
}

pb::ControlReply ReplyOf(uint64_t sequence, const absl::Status& status) {
  pb::ControlReply reply;
  reply.set_sequence(sequence);
  reply.set_error(std::string(status.message()));
  reply.set_error_code(static_cast<int>(status.code()));
  return reply;
}

}  // namespace

std::map<uint32_t, ExecSessions::Session>::iterator ExecSessions::Find(uint64_t connection) {
  return std::find_if(sessions_.begin(), sessions_.end(), [connection](const auto& session) {
    return session.second.connection == connection;
  });
}

void ExecSessions::Refuse(uint64_t connection, const pb::ControlRequest& request,
                          const absl::Status& error) {
  server_->Send(connection, ReplyOf(request.sequence(), error));
}

void ExecSessions::Start(uint64_t connection, const pb::ControlRequest& request,
                         const pb::ProgramSpec& task) {
  if (const absl::Status room = CheckRoom(connection); !room.ok()) {
    return Refuse(connection, request, room);
  }
  const uint32_t id = next_id_++;
  Session& session = sessions_[id];
  session.connection = connection;
  session.sequence = request.sequence();
  session.timer = loop_->After(kStartTimeout, [this, id] {
    Answer(id,
           absl::DeadlineExceededError(
               absl::StrCat("exec did not happen within ", kStartTimeout.count(), " s")),
           {});
    OnGone(id);
  });
  server_->NotifyWhenGone(connection, [this, id] { OnGone(id); });
  const pb::ControlRequest::Exec& exec = request.exec();
  entrances_->Bear([this, id, tty = exec.tty(), merge_stderr = exec.merge_stderr(),
                    program = ProgramOf(exec, task)](Entrant entrant) {
    if (!sessions_.contains(id)) return;  // its client went away meanwhile
    InitRequest start;
    start.kind = InitRequest::Kind::kStartSession;
    start.tty = tty;
    start.merge_stderr = merge_stderr;
    start.session = id;
    start.program = program;
    start.entrant = std::move(entrant);
    Ask(start);
  });
}

absl::Status ExecSessions::CheckRoom(uint64_t connection) {
  if (Find(connection) != sessions_.end()) {
    return absl::FailedPreconditionError("exec: one session for each connection");
  }
  if (sessions_.size() >= kMaxSessions) {
    return absl::ResourceExhaustedError(
        absl::StrCat("exec: the task has ", kMaxSessions, " sessions already"));
  }
  return absl::OkStatus();
}

void ExecSessions::Ask(const InitRequest& start) {
  const absl::Status sent = Annotate(SendRequest(init_socket_, start), "exec");
  if (sent.ok()) return;
  Answer(start.session, sent, {});
  sessions_.erase(start.session);
}

void ExecSessions::Release(uint64_t connection, const pb::ControlRequest& request) {
  if (const auto it = Find(connection); it != sessions_.end()) {
    loop_->Cancel(it->second.timer);
    Tell(InitRequest::Kind::kReleaseSession, it->first);
    sessions_.erase(it);
  }
  server_->Send(connection, ReplyOf(request.sequence(), absl::OkStatus()));
}

void ExecSessions::OnReport(InitReport report) {
  if (!sessions_.contains(report.session)) return;  // its client went away meanwhile
  switch (report.kind) {
    case InitReport::Kind::kSessionStarted:
      sessions_.at(report.session).leader = static_cast<pid_t>(report.number);
      return Answer(report.session, absl::OkStatus(), std::move(report.stdio));
    case InitReport::Kind::kSessionFailed:
      Answer(report.session, report.error, {});
      sessions_.erase(report.session);
      return;
    case InitReport::Kind::kSessionExited:
      return TellExit(report.session, static_cast<int>(report.number));
    default:
      return;
  }
}

void ExecSessions::Answer(uint32_t id, const absl::Status& status, std::vector<Fd> stdio) {
  Session& session = sessions_.at(id);
  loop_->Cancel(session.timer);
  // Sending may end the connection, and with it the session.
  server_->Send(session.connection, ReplyOf(std::exchange(session.sequence, 0), status),
                std::move(stdio));
}

void ExecSessions::TellExit(uint32_t id, int wait_status) {
  Session& session = sessions_.at(id);
  session.ended = true;
  pb::ControlReply news;
  news.mutable_exec_exit()->set_wait_status(wait_status);
  server_->Send(session.connection, news);
}

void ExecSessions::OnGone(uint32_t id) {
  const auto it = sessions_.find(id);
  if (it == sessions_.end()) return;
  loop_->Cancel(it->second.timer);
  sessions_.erase(it);
  Tell(InitRequest::Kind::kKillSession, id);
}

// pid 1 always reads, so one that cannot be told is dead, with every session.
void ExecSessions::Tell(InitRequest::Kind kind, uint32_t id) {
  InitRequest request;
  request.kind = kind;
  request.session = id;
  SendRequest(init_socket_, request).IgnoreError();
}

std::vector<pid_t> ExecSessions::SessionIds() const {
  std::vector<pid_t> ids;
  for (const auto& [id, session] : sessions_) {
    if (session.leader != 0) ids.push_back(session.leader);
  }
  return ids;
}

void ExecSessions::OnTaskEnded() {
  std::vector<uint32_t> ids;
  for (const auto& [id, session] : sessions_) ids.push_back(id);
  for (const uint32_t id : ids) {
    const auto it = sessions_.find(id);
    if (it == sessions_.end()) continue;
    if (it->second.sequence != 0) {
      Answer(id, absl::FailedPreconditionError("the task has ended"), {});
    } else if (!it->second.ended) {
      TellExit(id, SIGKILL);
    }
  }
  sessions_.clear();
}

}  // namespace jenkins_agent
