// An agent's JVM that hangs or has died is restarted in place: same sandbox, same workspace, same
// name, so that durable builds go on and the controller takes it up again.
//
//   verdict -> thread dump -> SIGTERM -> SIGKILL, by pid only -> leftovers -> back-off -> launch
#include <signal.h>

#include <algorithm>
#include <utility>

#include "driver/base/pidfd.h"
#include "driver/base/process.h"
#include "driver/base/status.h"
#include "driver/supervisor/supervisor.h"

namespace jenkins_agent {

absl::Status Supervisor::OnVerdict(const pb::ControlRequest::Verdict& verdict) {
  RETURN_IF_ERROR(CheckRunning(verdict.launches()));
  Act(verdict.aged() ? policy_->OnAged(verdict.cause())
                     : policy_->OnVerdict(verdict.cause(), EventLoop::Clock::now()));
  return absl::OkStatus();
}

absl::Status Supervisor::OnDone(const pb::ControlRequest::Done& done) {
  RETURN_IF_ERROR(CheckRunning(done.launches()));
  if (!spec_.agent().one_shot()) return absl::FailedPreconditionError("no one-shot agent");
  if (tracker_.phase() == pb::PHASE_CONNECTED) {
    return absl::FailedPreconditionError("the agent is connected again");
  }
  Act(policy_->OnDone());
  return absl::OkStatus();
}

absl::Status Supervisor::CheckRunning(uint32_t launches) const {
  if (!has_agent() || state_ != State::kRunning || !payload_ || stopping()) {
    return absl::FailedPreconditionError("no agent runs that could be restarted");
  }
  if (launches != launches_) {
    return absl::FailedPreconditionError("the agent was restarted meanwhile");
  }
  return absl::OkStatus();
}

// What the policy wants of a JVM that runs.
void Supervisor::Act(Decision decision) {
  if (stopping() || !payload_) return;
  if (decision.kind == Decision::kRestart) return RestartAgent(decision);
  if (decision.kind != Decision::kEnd) return;
  Outcome outcome;
  outcome.exit_code = decision.exit_code;
  outcome.message = std::move(decision.message);
  decided_ = std::move(outcome);
  StopPayload(SIGTERM, kRefusedAgentStopTimeout);
}

// By the JVM's pid only: a kill of its process group or cgroup would end the builds that survive.
void Supervisor::RestartAgent(const Decision& decision) {
  Log(decision.message);  // the event comes with the JVM's end
  if (decision.aged) return EndJvm();
  SignalPayload(SIGCONT);  // a stopped process acts on nothing but SIGKILL
  AskForThreadDump();
  restart_timer_ = loop_->After(kThreadDumpTime, [this] { EndJvm(); });
}

void Supervisor::EndJvm() {
  SignalPayload(SIGTERM);
  restart_timer_ = loop_->After(kWedgedAgentStopTimeout, [this] { SignalPayload(SIGKILL); });
}

// Asked for by the operator, who gets an answer instead of a dump that never comes.
absl::Status Supervisor::OnThreadDump() {
  if (!has_agent()) {
    return absl::FailedPreconditionError(
        "the task's program is no agent of the driver's; of a Java program a dump is asked for "
        "with `nomad alloc signal -s SIGQUIT`");
  }
  if (state_ != State::kRunning || !payload_) {
    return absl::FailedPreconditionError("no JVM of the agent runs at the moment");
  }
  if (ProcessStopped(payload_pid_)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the agent's JVM (pid ", payload_pid_,
                     ") is stopped and writes nothing; continue it with `kill -CONT ", payload_pid_,
                     "` and ask again"));
  }
  if (out_->stalled()) {
    return absl::FailedPreconditionError(
        "nobody reads the task's log: a JVM that writes its dump there would stand still");
  }
  return SignalPidfd(payload_.get(), SIGQUIT);
}

// The JVM writes it at a safepoint: with a full pipe that nobody empties all its threads would
// stand still until the end.
void Supervisor::AskForThreadDump() {
  if (out_->stalled()) return Log("no thread dump: the log is not read");
  SignalPayload(SIGQUIT);
}

void Supervisor::ClearLeftovers(const Decision& decision) {
  const auto due = EventLoop::Clock::now() + decision.delay;
  const auto launch_when_due = [this, due] { timer_ = loop_->At(due, [this] { Launch(); }); };
  const pb::HealthSpec& health = spec_.agent().health();
  if (health.leftovers() == pb::HealthSpec::KEEP) return launch_when_due();
  Clearing::Rule rule;
  rule.spare_durable = health.leftovers() == pb::HealthSpec::DURABLE;
  rule.spared_sessions = sessions_->SessionIds();
  auto clearing = Clearing::Start(loop_.get(), *cgroup_, rule,
                                  [this, launch_when_due](const absl::StatusOr<size_t>& ended) {
                                    if (!ended.ok()) Log(ended.status().message());
                                    if (ended.value_or(0) > 0)
                                      Log(absl::StrCat(*ended, " processes of lost builds ended"));
                                    launch_when_due();
                                  });
  if (clearing.ok()) {
    clearing_ = *std::move(clearing);
    return;
  }
  // A host without room for a process: the JVM comes first.
  Log(clearing.status().message());
  launch_when_due();
}

}  // namespace jenkins_agent
