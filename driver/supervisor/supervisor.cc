// Launches, exits and the end of a task.
#include "driver/supervisor/supervisor.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "driver/agent/exit.h"
#include "driver/base/clock.h"
#include "driver/base/fault.h"
#include "driver/base/file.h"
#include "driver/base/idle_memory.h"
#include "driver/base/pidfd.h"
#include "driver/base/process.h"
#include "driver/base/status.h"
#include "driver/supervisor/exit_record.h"
#include "driver/supervisor/protocol.h"

namespace jenkins_agent {
namespace {

constexpr int kExitCannotLaunch = 126;  // what a shell says of a program that cannot be executed

RestartBudget BudgetOf(const pb::HealthSpec& health) {
  RestartBudget budget;
  if (health.disabled()) budget.attempts = 0;
  if (health.disabled() || !health.has_restart()) return budget;
  budget.attempts = static_cast<int>(health.restart().attempts());
  budget.interval = std::chrono::milliseconds(health.restart().interval_ms());
  budget.delay = std::chrono::milliseconds(health.restart().delay_ms());
  budget.max_delay = std::chrono::milliseconds(health.restart().max_delay_ms());
  return budget;
}

}  // namespace

Supervisor::Supervisor(pb::LaunchSpec spec, const cgroups::Hierarchy& hierarchy, InitProcess init,
                       Fd connection, Fd spawner, int64_t received_ns, int64_t ordered_ns)
    : spec_(std::move(spec)),
      hierarchy_(hierarchy),
      connection_(std::move(connection)),
      spawner_(std::move(spawner)),
      received_ns_(received_ns),
      started_at_ns_(RealtimeNs()),
      init_(std::move(init)),
      unrecognised_(spec_.agent().own_command() && !spec_.agent().jar().empty()),
      policy_(std::make_unique<RestartPolicy>(
          spec_.agent().name(), BudgetOf(spec_.agent().health()), spec_.agent().one_shot())) {
  timings_.set_ordered_ms(ElapsedMsAt(ordered_ns));
}

double Supervisor::ElapsedMs() const { return ElapsedMsAt(MonotonicNs()); }

double Supervisor::ElapsedMsAt(int64_t monotonic_ns) const {
  return static_cast<double>(monotonic_ns - received_ns_) / 1e6;
}

void Supervisor::Log(absl::string_view line) {
  log_bytes_ += line.size() + 1;
  if (log_bytes_ > kMaxLogBytes) return;
  WriteAll(STDERR_FILENO, absl::StrCat(line, "\n")).IgnoreError();  // nowhere else to say it
}

void Supervisor::Publish(const std::string& message) {
  pb::Event event;
  event.set_message(message);
  event.set_phase(tracker_.phase());
  Publish(std::move(event));
}

// Not about the agent's phase, whose events on the way to a connection are for the log only.
void Supervisor::PublishNews(const std::string& message, const Details& details) {
  pb::Event event;
  event.set_message(message);
  event.mutable_details()->insert(details.begin(), details.end());
  Publish(std::move(event));
}

void Supervisor::Publish(pb::Event event) {
  event.set_time_ns(RealtimeNs());
  server_->Publish(event);
  last_event_ = std::move(event);
}

void Supervisor::PublishRestart(const std::string& message, absl::string_view reason) {
  pb::Event event;
  event.set_message(message);
  (*event.mutable_details())[kRestartReason] = std::string(reason);
  event.set_restarts(static_cast<uint32_t>(policy_->restarts()));
  Publish(std::move(event));
}

void Supervisor::PublishDropped(absl::string_view stream, uint64_t bytes) {
  PublishNews(absl::StrCat(bytes, " bytes of ", stream,
                           " dropped: the log is not read, or cannot be written"),
              {{kDroppedLogBytes, absl::StrCat(bytes)}});
}

// ---- launches and exits ----

void Supervisor::OnReports() {
  for (;;) {
    absl::StatusOr<InitReport> report = ReceiveReport(init_.socket.get());
    if (absl::IsResourceExhausted(report.status())) return;
    if (!report.ok()) return loop_->Unwatch(init_.socket.get());  // its pidfd tells the rest
    OnReport(*std::move(report));
  }
}

void Supervisor::OnReport(InitReport report) {
  if (report.session != 0) return sessions_->OnReport(std::move(report));
  if (state_ == State::kEnding || state_ == State::kEnded) return;
  switch (report.kind) {
    case InitReport::Kind::kReady:
      return OnReady(report);
    case InitReport::Kind::kSetupFailed:
      return FailStart(Annotate(report.error, "sandbox"));
    case InitReport::Kind::kLaunched:
      return OnLaunched(std::move(report.payload));
    case InitReport::Kind::kLaunchFailed:
      return OnLaunchFailed(report.error);
    case InitReport::Kind::kExited:
      return OnPayloadExit(static_cast<int>(report.number));
    default:
      return;  // of a session that nobody waits for
  }
}

// What the payload says waits until pid 1 has told of it: "connected" comes after "launched".
void Supervisor::HoldBackOutput(bool held_back) {
  out_->HoldBack(held_back);
  err_->HoldBack(held_back);
}

// Of an agent; what needs no agent.jar is asked for the first time before the sandbox stands.
void Supervisor::Launch() {
  AwaitLaunch();
  const auto ask = [this](Entrant entrant) {
    if (state_ != State::kLaunching) return;  // the task has been ended meanwhile
    const absl::Status asked = AskForLaunch(std::move(entrant));
    if (!asked.ok()) OnLaunchFailed(asked);
  };
  // The first launch has a process that waits for it (first_child.h).
  if (launches_ == 0) return ask(Entrant());
  entrances_->Bear(ask);
}

absl::Status Supervisor::AskForLaunch(Entrant entrant) {
  if (spec_.has_agent()) {
    tracker_.OnLaunch();
    phase_since_ns_ = RealtimeNs();
    policy_->OnLaunch();
  }
  oom_->OnLaunching();
  HoldBackOutput(true);
  return SendLaunch(init_.socket.get(), spec_.program(), std::move(entrant));
}

void Supervisor::AwaitLaunch() {
  state_ = State::kLaunching;
  // Processes of the payload's user can hold the child back before its exec, for ever.
  timer_ = loop_->After(kLaunchTimeout, [this] {
    OnLaunchFailed(absl::DeadlineExceededError(
        absl::StrCat("exec did not happen within ", kLaunchTimeout.count(), " s")));
  });
}

void Supervisor::OnLaunched(Fd payload) {
  loop_->Cancel(timer_);
  FaultPoint("supervisor.start.launched");
  state_ = State::kRunning;
  payload_ = std::move(payload);
  payload_pid_ = PidOfPidfd(payload_.get());
  payload_start_time_ = ProcessStartTime(payload_pid_).value_or(0);
  oom_->OnLaunched(payload_pid_);
  if (++launches_ == 1) timings_.set_launched_ms(ElapsedMs());
  if (!spec_
           .has_agent()) {  // never launched again; environment and work directory are for sessions
    spec_.mutable_program()->clear_argv();
    spec_.mutable_program()->clear_arguments_file();
    spec_.mutable_program()->clear_make_dirs();
  }
  if (!start_answered_) {
    AnswerStart();
  } else {
    loop_->Post(ReleaseIdleMemory);
  }
  if (stopping()) SignalPayload(stop_signal_);
  HoldBackOutput(false);
}

void Supervisor::OnLaunchFailed(const absl::Status& error) {
  loop_->Cancel(timer_);
  if (!start_answered_) return FailStart(error);
  Outcome outcome;
  outcome.exit_code = kExitCannotLaunch;
  outcome.message = std::string(error.message());
  End(std::move(outcome));
}

void Supervisor::OnOutput(int stream, absl::string_view bytes) {
  if (!spec_.has_agent()) return;
  const std::vector<PhaseChange> changes = tracker_.Feed(stream, bytes);
  if (unrecognised_) return;
  for (const PhaseChange& change : changes) OnPhase(change);
}

void Supervisor::OnPhase(const PhaseChange& change) {
  waiting_for_.clear();
  phase_since_ns_ = RealtimeNs();
  if (change.phase == pb::PHASE_CONNECTED && timings_.connected_ms() == 0) {
    timings_.set_connected_ms(ElapsedMs());
  }
  // Its own phase: of lines that came together the tracker knows the last one's by now.
  pb::Event event;
  event.set_phase(change.phase);
  event.set_message(change.detail.empty()
                        ? std::string(PhaseName(change.phase))
                        : absl::StrCat(PhaseName(change.phase), ": ", change.detail));
  Publish(std::move(event));
  Act(policy_->OnPhase(change, EventLoop::Clock::now()));
}

void Supervisor::OnPayloadExit(int wait_status) {
  FaultPoint("supervisor.exit.seen");
  out_->Drain();
  err_->Drain();
  loop_->Cancel(restart_timer_);
  Outcome exit = ExitOf(wait_status);
  payload_.Reset();
  payload_pid_ = 0;
  payload_start_time_ = 0;
  if (stopping()) return End(decided_ ? *std::move(decided_) : std::move(exit));
  if (has_agent()) return AfterAgentExit(wait_status, std::move(exit));
  End(std::move(exit));
}

Supervisor::Outcome Supervisor::ExitOf(int wait_status) {
  Outcome exit;
  exit.exit_code = ExitCodeOf(wait_status);
  exit.signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
  const OomWatcher::PayloadEnd oom = oom_->PayloadEnded(exit.signal == SIGKILL);
  // 137 is also what a shell says of a child that was killed.
  const bool child_was_killed =
      exit.signal == 0 && exit.exit_code == 128 + SIGKILL && oom.others > 0;
  exit.oom_killed = oom.killed || child_was_killed;
  if (oom.killed) {
    const OomProcess payload = {payload_pid_,
                                has_agent() ? "the agent's JVM" : "the task's program"};
    exit.message = DescribeOom(1, {payload}, MemoryFigures());
  } else if (child_was_killed) {
    exit.message = absl::StrCat(DescribeOom(oom.others, oom.known, MemoryFigures()),
                                "; after it the task's program exited with code ", exit.exit_code);
  }
  return exit;
}

// The payload lives on: an event, and no end.
void Supervisor::OnOomKills(uint64_t killed, const std::vector<OomProcess>& known) {
  if (state_ == State::kEnding || state_ == State::kEnded) return;
  PublishNews(absl::StrCat(DescribeOom(killed, known, MemoryFigures()), "; the ",
                           has_agent() ? "agent" : "task", " goes on"),
              {{kOomKills, absl::StrCat(killed)}});
}

OomFigures Supervisor::MemoryFigures() const {
  OomFigures figures;
  figures.limit_bytes = spec_.cgroup().memory_bytes();
  if (const absl::StatusOr<cgroups::Usage> usage = cgroup_->ReadUsage(); usage.ok()) {
    figures.peak_bytes = usage->memory_peak_bytes;
  }
  return figures;
}

void Supervisor::AfterAgentExit(int wait_status, Outcome exit) {
  for (const PhaseChange& change : tracker_.Finish()) OnPhase(change);
  Decision decision =
      policy_->OnExit(MakeExitFacts(tracker_, wait_status), EventLoop::Clock::now());
  if (exit.oom_killed) {
    decision.message = absl::StrCat(exit.message, "; ", decision.message);
    decision.reason = RestartReason::kOutOfMemory;
  }
  if (decision.kind == Decision::kRelaunch) return BackOff(decision);
  if (exit.exit_code != decision.exit_code) {
    exit.exit_code = decision.exit_code;
    exit.signal = 0;
  }
  exit.message = std::move(decision.message);
  End(std::move(exit));
}

void Supervisor::BackOff(const Decision& decision) {
  state_ = State::kBackingOff;
  phase_since_ns_ = RealtimeNs();
  waiting_for_ = decision.message;
  if (decision.counted) {
    PublishRestart(absl::StrCat(decision.message, "; restarting it in place"),
                   RestartReasonName(decision.reason));
    return ClearLeftovers(decision);
  }
  if (decision.aged) {
    PublishNews(absl::StrCat(decision.message, "; replacing it"),
                {{kRestartReason, std::string(RestartReasonName(decision.reason))}});
  } else {
    Publish(decision.message);
  }
  timer_ = loop_->After(decision.delay, [this] { Launch(); });
}

void Supervisor::OnInitEnded() {
  OnReports();  // its last words may still be in the socket
  loop_->Unwatch(init_.pidfd.get());
  const std::string how = ReapInit(init_);
  init_gone_ = true;
  sessions_->OnTaskEnded();
  if (state_ == State::kEnding) return FinishWhenQuiet();
  const std::string message = absl::StrCat("pid 1 of the sandbox ended: ", how);
  if (!start_answered_) return FailStart(absl::InternalError(absl::StrCat("sandbox: ", message)));
  Outcome outcome;
  outcome.exit_code = 128 + SIGKILL;
  outcome.signal = SIGKILL;
  outcome.message = message;
  End(std::move(outcome));
}

// ---- the end ----

void Supervisor::StopPayload(int signal, std::chrono::milliseconds timeout) {
  stop_signal_ = signal;
  Outcome stopped;
  stopped.exit_code = 128 + signal;
  stopped.signal = signal;
  if (state_ != State::kRunning && state_ != State::kLaunching) return End(std::move(stopped));
  if (payload_) SignalPayload(signal);  // else as soon as it is launched
  loop_->Cancel(stop_timer_);
  stop_timer_ = loop_->After(timeout, [this] {
    Outcome killed;
    killed.exit_code = 128 + SIGKILL;
    killed.signal = SIGKILL;
    End(decided_ ? *std::move(decided_) : std::move(killed));
  });
}

void Supervisor::SignalPayload(int signal) {
  if (const absl::Status sent = SignalPidfd(payload_.get(), signal); !sent.ok())
    Log(sent.message());
}

void Supervisor::End(Outcome outcome) {
  if (state_ == State::kEnding || state_ == State::kEnded) return;
  if (state_ == State::kSettingUp || state_ == State::kLaunching) HoldBackOutput(false);
  state_ = State::kEnding;
  outcome_ = std::move(outcome);
  if (!start_answered_ && outcome_.start_error.ok()) {
    outcome_.start_error = absl::CancelledError("stopped during the start");
  }
  loop_->Cancel(timer_);
  loop_->Cancel(stop_timer_);
  loop_->Cancel(restart_timer_);
  clearing_.reset();
  KillSandbox(init_);
  FaultPoint("supervisor.exit.sandbox_killed");
  timer_ = loop_->After(kInitDeathTimeout, [this] {
    Log("pid 1 did not end after SIGKILL");
    init_gone_ = true;
    Finish();
  });
  FinishWhenQuiet();
}

// All writers are dead with pid 1, so the outputs end by themselves unless nobody reads them.
void Supervisor::FinishWhenQuiet() {
  if (state_ != State::kEnding || !init_gone_) return;
  const bool started = out_ != nullptr && err_ != nullptr && outcome_.start_error.ok();
  if (!started || (out_->ended() && err_->ended())) return Finish();
  loop_->Cancel(timer_);
  timer_ = loop_->After(kFlushTimeout, [this] { Finish(); });
}

void Supervisor::Finish() {
  if (state_ == State::kEnded) return;
  state_ = State::kEnded;
  loop_->Cancel(timer_);
  payload_.Reset();
  payload_pid_ = 0;
  payload_start_time_ = 0;
  if (!outcome_.start_error.ok()) {
    RemoveCgroup();
    server_->StopListening(task_dir_.get());
    pb::ControlReply reply;
    reply.set_error(std::string(outcome_.start_error.message()));
    reply.set_error_code(static_cast<int>(outcome_.start_error.code()));
    server_->Send(starter_, reply);
    return Linger();
  }
  FaultPoint("supervisor.exit.sandbox_gone");
  const pb::ExitRecord record = MakeExitRecord();
  if (const absl::Status written = WriteExitRecord(task_dir_.get(), record); !written.ok()) {
    Log(absl::StrCat("exit record: ", written.message()));
  }
  FaultPoint("supervisor.exit.recorded");
  RemoveCgroup();
  FaultPoint("supervisor.exit.cgroup_removed");
  server_->StopListening(task_dir_.get());
  server_->PublishExit(record);
  FaultPoint("supervisor.exit.told");
  Linger();
}

void Supervisor::RemoveCgroup() {
  oom_.reset();
  const absl::Status killed = cgroup_->KillAll(kKillAllTimeout);
  if (!killed.ok()) Log(killed.message());
  if (const absl::Status removed = cgroup_->Remove(); !removed.ok()) Log(removed.message());
}

pb::ExitRecord Supervisor::MakeExitRecord() {
  pb::ExitRecord record;
  record.set_version(kSpecVersion);
  record.set_task_id(spec_.task_id());
  record.set_exit_code(outcome_.exit_code);
  record.set_signal(outcome_.signal);
  record.set_oom_killed(outcome_.oom_killed);
  record.set_message(outcome_.message);
  record.set_started_at_ns(started_at_ns_);
  record.set_finished_at_ns(RealtimeNs());
  record.set_launches(launches_);
  record.set_restarts(static_cast<uint32_t>(policy_->restarts()));
  for (const std::string& dir : cgroup_->dirs()) record.add_cgroup_dirs(dir);
  return record;
}

// A peer that asks late still gets the record; it acknowledges by closing.
void Supervisor::Linger() {
  timer_ = loop_->After(kLingerTimeout, [this] { loop_->Quit(); });
  server_->NotifyWhenAlone([this] { loop_->Quit(); });
}

}  // namespace jenkins_agent
