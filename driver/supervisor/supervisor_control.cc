// What the supervisor answers on its control socket, in every state.
#include <signal.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "driver/agent/command.h"
#include "driver/base/idle_memory.h"
#include "driver/base/pidfd.h"
#include "driver/base/status.h"
#include "driver/supervisor/protocol.h"
#include "driver/supervisor/supervisor.h"

namespace jenkins_agent {

pb::ControlReply Supervisor::Handle(const pb::ControlRequest& request) {
  pb::ControlReply reply;
  absl::Status status;
  switch (request.kind_case()) {
    case pb::ControlRequest::kHello:
      // The start is over with the plugin's first; of it the specification takes most.
      if (!taken_) loop_->Post(ReleaseIdleMemory);
      taken_ |= !request.hello().look_only();
      *reply.mutable_status() = Status();
      break;
    case pb::ControlRequest::kJarReady:
      status = OnJarReady(request.jar_ready().jar());
      break;
    case pb::ControlRequest::kSignal:
      status = OnSignal(request.signal().signal());
      break;
    case pb::ControlRequest::kStop:
      status = OnStop(request.stop());
      break;
    case pb::ControlRequest::kNote:
      status = OnNote(request.note().waiting_for());
      break;
    case pb::ControlRequest::kVerdict:
      status = OnVerdict(request.verdict());
      break;
    case pb::ControlRequest::kThreadDump:
      status = OnThreadDump();
      break;
    case pb::ControlRequest::kDone:
      status = OnDone(request.done());
      break;
    case pb::ControlRequest::kExec:
    case pb::ControlRequest::kExecRelease:  // HandleLate has taken these
    case pb::ControlRequest::KIND_NOT_SET:
      status = absl::UnimplementedError(
          "this task's supervisor is older than the plugin and does not know the request");
      break;
  }
  reply.set_error(std::string(status.message()));
  reply.set_error_code(static_cast<int>(status.code()));
  return reply;
}

bool Supervisor::HandleLate(uint64_t connection, const pb::ControlRequest& request) {
  if (request.has_exec_release()) {
    sessions_->Release(connection, request);
    return true;
  }
  if (!request.has_exec()) return false;
  if (state_ == State::kSettingUp) {
    sessions_->Refuse(connection, request, absl::FailedPreconditionError("the task is starting"));
  } else if (state_ == State::kEnding || state_ == State::kEnded) {
    sessions_->Refuse(connection, request, absl::FailedPreconditionError("the task has ended"));
  } else {
    sessions_->Start(connection, request, spec_.program());
  }
  return true;
}

absl::Status Supervisor::OnJarReady(const pb::JarInfo& jar) {
  if (unrecognised_ && state_ == State::kRunning) {
    OnRecognised();
    return absl::OkStatus();
  }
  if (state_ != State::kWaitingForJar) {
    return absl::FailedPreconditionError("agent.jar is not waited for");
  }
  absl::StatusOr<AgentCommand> command = BuildAgentCommand(spec_.agent(), jar);
  if (!command.ok()) {
    Outcome outcome;
    outcome.exit_code = 1;
    outcome.message = std::string(command.status().message());
    End(std::move(outcome));
    return command.status();
  }
  pb::ProgramSpec& program = *spec_.mutable_program();
  program.clear_argv();
  for (std::string& argument : command->argv) program.add_argv(std::move(argument));
  program.set_arguments_file(std::move(command->arguments_file));
  java_home_ = command->java_home;
  bool has_java_home = false;
  for (const std::string& variable : program.env()) {
    has_java_home |= absl::StartsWith(variable, "JAVA_HOME=");
  }
  if (!has_java_home) program.add_env(absl::StrCat("JAVA_HOME=", java_home_));
  spec_.mutable_agent()->clear_secret();  // from here on it lives in the arguments file only
  timings_.set_jar_ms(ElapsedMs());
  waiting_for_.clear();
  Launch();
  return absl::OkStatus();
}

// What it has said before is not told again, only where that has led.
void Supervisor::OnRecognised() {
  unrecognised_ = false;
  OnPhase({tracker_.phase(), tracker_.detail(), tracker_.refusal(), tracker_.unreachable()});
}

absl::Status Supervisor::OnSignal(int signal) {
  if (signal <= 0 || signal >= NSIG) {
    return absl::InvalidArgumentError(absl::StrCat("no such signal: ", signal));
  }
  if (!payload_) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no process to signal", waiting_for_.empty() ? "" : ": waiting for ", waiting_for_));
  }
  return SignalPidfd(payload_.get(), signal);
}

absl::Status Supervisor::OnStop(const pb::ControlRequest::Stop& stop) {
  if (stop.signal() < 0 || stop.signal() >= NSIG) {
    return absl::InvalidArgumentError(absl::StrCat("no such signal: ", stop.signal()));
  }
  if (state_ == State::kEnding || state_ == State::kEnded) return absl::OkStatus();
  if (!stop.because().empty()) {
    Outcome failed;
    failed.exit_code = 1;
    failed.message = stop.because();
    End(std::move(failed));
    return absl::OkStatus();
  }
  decided_.reset();  // asked for by the operator: the exit is what it is, without a story
  StopPayload(stop.signal() == 0 ? SIGTERM : stop.signal(),
              std::chrono::milliseconds(stop.timeout_ms()));
  return absl::OkStatus();
}

absl::Status Supervisor::OnNote(const std::string& waiting_for) {
  if (state_ != State::kWaitingForJar) {
    return absl::FailedPreconditionError("nothing is waited for");
  }
  if (waiting_for_ == waiting_for) return absl::OkStatus();
  waiting_for_ = waiting_for;
  Publish(waiting_for);
  return absl::OkStatus();
}

pb::TaskStatus Supervisor::Status() const {
  pb::TaskStatus status;
  status.set_version(kSpecVersion);
  status.set_state(PublicState());
  if (!unrecognised_) status.set_phase(tracker_.phase());
  status.set_phase_detail(waiting_for_.empty() ? tracker_.detail() : waiting_for_);
  status.set_supervisor_pid(::getpid());
  status.set_init_pid(init_gone_ ? 0 : init_.pid);
  status.set_payload_pid(payload_pid_);
  status.set_payload_start_time(payload_start_time_);
  status.set_launches(launches_);
  status.set_restarts(static_cast<uint32_t>(policy_->restarts()));
  status.set_phase_since_ns(phase_since_ns_);
  status.set_started_at_ns(started_at_ns_);
  *status.mutable_timings() = timings_;
  for (const std::string& dir : cgroup_->dirs()) status.add_cgroup_dirs(dir);
  status.set_java_home(java_home_);
  if (last_event_.has_value()) *status.mutable_last_event() = *last_event_;
  if (unrecognised_) status.set_jar_path(spec_.agent().jar());
  if (!has_agent()) return status;
  const pb::AgentSpec& agent = spec_.agent();
  *status.mutable_health() = agent.health();
  status.set_one_shot(agent.one_shot());
  status.set_max_age_ms(agent.max_age_ms());
  if (agent.urls_size() > 0) status.set_agent_url(agent.urls(0));
  *status.mutable_agent_urls() = agent.urls();
  status.set_agent_direct(agent.direct());
  status.set_agent_name(agent.name());
  status.set_web_socket(agent.web_socket());
  status.set_agent_ca_file(agent.ca_file());
  if (state_ == State::kWaitingForJar) {
    status.set_jar_path(agent.jar());
  }
  return status;
}

pb::RunState Supervisor::PublicState() const {
  if (stopping() && state_ != State::kEnded) return pb::STOPPING;
  switch (state_) {
    case State::kSettingUp:
      return pb::RUN_STATE_UNKNOWN;
    case State::kWaitingForJar:
      return pb::WAITING_FOR_JAR;
    case State::kLaunching:
    case State::kRunning:
      return pb::RUNNING;
    case State::kBackingOff:
      return pb::BACKING_OFF;
    case State::kEnding:
      return pb::STOPPING;
    case State::kEnded:
      return pb::EXITED;
  }
  return pb::RUN_STATE_UNKNOWN;
}

}  // namespace jenkins_agent
