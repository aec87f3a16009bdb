#include "driver/task/task.h"

#include <signal.h>

#include <future>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "driver/agent/phases.h"
#include "driver/agent/restart_policy.h"
#include "driver/base/clock.h"
#include "driver/base/fault.h"
#include "driver/base/log.h"
#include "driver/base/paths.h"
#include "driver/base/status.h"
#include "driver/supervisor/exit_record.h"
#include "driver/supervisor/protocol.h"
#include "driver/task/remains.h"
#include "driver/task/start_phases.h"

namespace jenkins_agent {
namespace {

constexpr std::chrono::hours kWhileItLives{24 * 365};
constexpr std::chrono::seconds kLostLimit{10};  // to end what a dead supervisor left
// Beyond the job's own kill timeout: signal, reap and clean-up of a large process tree.
constexpr std::chrono::seconds kStopGrace{20};
// Kinds of paced events beside the phases.
constexpr int kRestartEvents = -1;
constexpr int kDroppedEvents = -2;
constexpr int kWaitingEvents = -3;  // a controller that starts is away for one reason after another

constexpr absl::string_view kWaiting = "waiting for the controller: ";

double NumberOf(const std::string& text) {
  uint64_t number = 0;
  return absl::SimpleAtoi(text, &number) ? static_cast<double>(number) : 0;
}

}  // namespace

pb::ControlRequest Task::Hello() {
  pb::ControlRequest request;
  request.mutable_hello()->set_version(kSpecVersion);
  request.mutable_hello()->set_watch(true);
  return request;
}

std::shared_ptr<Control> Task::Connect(Fd connection) {
  const std::weak_ptr<Task> weak = weak_from_this();
  Control::Handlers handlers;
  handlers.on_event = [weak](const pb::Event& event) {
    if (const auto self = weak.lock()) self->OnEvent(event);
  };
  handlers.on_exit = [weak](const pb::ExitRecord& exit) {
    if (const auto self = weak.lock()) self->SetExited(exit);
  };
  handlers.on_lost = [weak] {
    if (const auto self = weak.lock()) self->OnLost();
  };
  MutexLock lock(mutex_);
  control_ = Control::Create(shared_.loop, std::move(connection), std::move(handlers));
  return control_;
}

absl::Status Task::Attach(Fd connection) {
  Connect(std::move(connection));
  const absl::StatusOr<pb::ControlReply> reply = Call(Hello());
  if (!reply.ok()) {
    // A lost connection is followed by OnLost() on the loop's thread, which knows how it ended.
    const bool lost = absl::IsUnavailable(reply.status());
    return exited() || (lost && WaitForExit(kLostLimit)) ? absl::OkStatus() : reply.status();
  }
  shared_.loop->Post([self = shared_from_this(), status = reply->status()] {
    self->PublishStarted(status);
    self->OnFirstStatus(status);
  });
  return absl::OkStatus();
}

void Task::Follow(Fd connection) {
  const auto on_reply = [weak = weak_from_this()](const absl::StatusOr<pb::ControlReply>& reply) {
    const auto self = weak.lock();
    if (self == nullptr || !reply.ok()) return;  // OnLost() says what became of it
    self->KeepStatus(reply->status());
    self->OnFirstStatus(reply->status());
  };
  // A supervisor that somebody has stopped answers when it goes on.
  Connect(std::move(connection))->Call(Hello(), on_reply, kWhileItLives);
}

// A task that still has helpers was given up before its exit was known.
Task::~Task() {
  if (helpers_.empty()) return;
  shared_.loop->Post([helpers = std::make_shared<Helpers>(std::move(helpers_))] {});
}

void Task::KeepStatus(const pb::TaskStatus& status) {
  MutexLock lock(mutex_);
  if (!exit_.has_value()) status_ = status;
}

void Task::OnFirstStatus(const pb::TaskStatus& status) {
  if (status.timings().connected_ms() > 0) connected_before_ = true;
  if (status.state() == pb::WAITING_FOR_JAR || !status.jar_path().empty()) GetAgentJar(status);
  if (status.has_health() && !status.health().disabled()) WatchAgent(status);
  if (status.phase() == pb::PHASE_CONNECTED) PreferBuilds(status);
  if (status.phase() > pb::PHASE_NONE && status.phase() < pb::PHASE_CONNECTED) ExpectConnection();
}

void Task::SetExited(const pb::ExitRecord& exit) {
  std::map<uint64_t, Waiter> waiters;
  {
    MutexLock lock(mutex_);
    if (exit_.has_value()) return;
    exit_ = exit;
    status_.set_state(pb::EXITED);
    status_.set_payload_pid(0);
    waiters.swap(waiters_);
    ended_.NotifyAll();
  }
  CountEnd(exit);
  FaultPoint("plugin.exit.heard");
  Log(LogLevel::kInfo, "task ended",
      {{"task_id", record_.task_id()},
       {"exit_code", absl::StrCat(exit.exit_code())},
       {"cause", exit.message()}});
  for (const auto& [id, waiter] : waiters) waiter(exit);
  shared_.loop->Post([self = shared_from_this()] {
    self->helpers_ = {};
    self->shared_.loop->Cancel(self->overdue_);
  });
}

uint64_t Task::Wait(Waiter waiter) {
  std::optional<pb::ExitRecord> exit;
  uint64_t id;
  {
    MutexLock lock(mutex_);
    id = next_waiter_++;
    if (!exit_.has_value()) {
      waiters_.emplace(id, std::move(waiter));
      return id;
    }
    exit = exit_;
  }
  waiter(*exit);
  return id;
}

void Task::StopWaiting(uint64_t id) {
  MutexLock lock(mutex_);
  waiters_.erase(id);
}

bool Task::exited() const {
  MutexLock lock(mutex_);
  return exit_.has_value();
}

std::optional<pb::ExitRecord> Task::exit_record() const {
  MutexLock lock(mutex_);
  return exit_;
}

bool Task::WaitForExit(std::chrono::milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  MutexLock lock(mutex_);
  while (!exit_.has_value()) {
    if (!ended_.WaitUntil(mutex_, deadline)) return exit_.has_value();
  }
  return true;
}

std::shared_ptr<Control> Task::control() const {
  MutexLock lock(mutex_);
  return control_;
}

void Task::Tell(pb::ControlRequest request) {
  control()->Call(
      std::move(request), [](const absl::StatusOr<pb::ControlReply>&) {}, kCallTimeout);
}

absl::StatusOr<pb::ControlReply> Task::Call(pb::ControlRequest request) {
  const std::shared_ptr<Control> control = this->control();
  if (control == nullptr) return absl::FailedPreconditionError("the task has ended");
  auto answer = std::make_shared<std::promise<absl::StatusOr<pb::ControlReply>>>();
  std::future<absl::StatusOr<pb::ControlReply>> future = answer->get_future();
  control->Call(
      std::move(request),
      [this, answer](absl::StatusOr<pb::ControlReply> reply) {
        // Here and not in the caller's thread, where it would undo what came after it, the exit.
        if (reply.ok() && reply->has_status()) KeepStatus(reply->status());
        answer->set_value(std::move(reply));
      },
      kCallTimeout);
  return future.get();
}

absl::StatusOr<pb::TaskStatus> Task::Status() {
  if (!exited()) {
    const absl::Status asked = Call(Hello()).status();
    if (!asked.ok() && !exited()) return asked;
  }
  MutexLock lock(mutex_);
  return status_;
}

absl::Status Task::Signal(int signal) {
  pb::ControlRequest request;
  request.mutable_signal()->set_signal(signal);
  return Call(std::move(request)).status();
}

absl::Status Task::Stop(int signal, std::chrono::milliseconds timeout) {
  if (exited()) return absl::OkStatus();
  {
    MutexLock lock(mutex_);
    stopped_ = true;
  }
  pb::ControlRequest request;
  request.mutable_stop()->set_signal(signal);
  request.mutable_stop()->set_timeout_ms(timeout.count());
  const absl::Status asked = Call(std::move(request)).status();
  if (!asked.ok() && !exited()) {
    Log(LogLevel::kWarn, "stop: the supervisor does not answer",
        {{"task_id", record_.task_id()}, {"error", std::string(asked.message())}});
  }
  if (WaitForExit(timeout + kStopGrace)) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat(
      "the task's supervisor (pid ", record_.supervisor_pid(), ") did not end its sandbox within ",
      std::chrono::ceil<std::chrono::seconds>(timeout + kStopGrace).count(), " s"));
}

absl::Status Task::KillSupervisor() {
  RETURN_IF_ERROR(jenkins_agent::KillSupervisor(record_));
  if (WaitForExit(kLostLimit)) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat("supervisor ", record_.supervisor_pid(),
                                                  " was killed, but its end was not seen"));
}

pb::TaskStatus Task::last_status() const {
  MutexLock lock(mutex_);
  return status_;
}

void Task::Refresh() {
  if (control() == nullptr || exited()) return;
  AskStatus([](Task&, const pb::TaskStatus&) {});
}

// What the supervisor tells in an event's details.
void Task::CountEvent(const pb::Event& event) {
  Metrics& metrics = *shared_.metrics;
  const auto& details = event.details();
  if (const auto kills = details.find(kOomKills); kills != details.end()) {
    metrics.Count(Metric::kOomKills, "build", NumberOf(kills->second));
  }
  if (const auto dropped = details.find(kDroppedLogBytes); dropped != details.end()) {
    metrics.Count(Metric::kDroppedLogBytes, "", NumberOf(dropped->second));
  }
  const auto reason = details.find(kRestartReason);
  // Supervisors of earlier releases give no reason.
  if (reason == details.end() && event.restarts() == 0) return;
  metrics.Count(Metric::kRestarts, reason == details.end() ? "unknown" : reason->second);
  if (reason != details.end() && reason->second == RestartReasonName(RestartReason::kOutOfMemory)) {
    metrics.Count(Metric::kOomKills, "agent");
  }
}

void Task::CountEnd(const pb::ExitRecord& exit) {
  if (exit.oom_killed()) shared_.metrics->Count(Metric::kOomKills, "agent");
  MutexLock lock(mutex_);
  shared_.metrics->Count(Metric::kEnds, lost_                   ? "lost"
                                        : exit.oom_killed()     ? "out_of_memory"
                                        : stopped_              ? "stopped"
                                        : exit.exit_code() == 0 ? "success"
                                                                : "failed");
}

void Task::SetLost(const pb::ExitRecord& exit) {
  {
    MutexLock lock(mutex_);
    lost_ = true;
  }
  SetExited(exit);
}

void Task::OnEvent(const pb::Event& event) {
  CountEvent(event);
  if (event.phase() != pb::PHASE_NONE) {
    MutexLock lock(mutex_);
    status_.set_phase(event.phase());
    status_.set_phase_detail(event.message());
  }
  if (event.phase() != pb::PHASE_NONE && helpers_.watch != nullptr) {
    helpers_.watch->OnPhase(event.phase(), event.message());
  }
  KeepPhaseTime(event);
  switch (event.phase()) {
    case pb::PHASE_CONNECTED:
      return PublishConnected(event);
    // Nomad keeps ten events of a task: steps on the way to a connection are for the log only, and
    // a wedge is told by the restart that follows.
    case pb::PHASE_STARTING:
    case pb::PHASE_LOCATING:
    case pb::PHASE_HANDSHAKING:
      ExpectConnection();
      if (DemandsNewerAgent(event.message())) {
        AskStatus([](Task& task, const pb::TaskStatus& now) { task.GetNewerJar(now); });
      }
      return Log(LogLevel::kDebug, event.message(), {{"task_id", record_.task_id()}});
    case pb::PHASE_WEDGED:
      return Log(LogLevel::kDebug, event.message(), {{"task_id", record_.task_id()}});
    case pb::PHASE_NONE:
      if (event.restarts() > 0) return PublishPaced(kRestartEvents, event);
      if (event.details().contains(kDroppedLogBytes)) return PublishPaced(kDroppedEvents, event);
      if (absl::StartsWith(event.message(), kWaiting)) return PublishPaced(kWaitingEvents, event);
      return Publish(event.message(), {event.details().begin(), event.details().end()},
                     event.time_ns());
    default:
      return PublishPaced(event.phase(), event);
  }
}

void Task::PublishStarted(const pb::TaskStatus& status) {
  const std::vector<StartPhase> phases = PhasesOf(status.timings());
  for (const StartPhase& phase : phases) {
    shared_.metrics->Observe(Metric::kSandboxStart, phase.name, phase.ms / 1000);
  }
  if (phases.empty()) return;
  std::string message = StartMessage(phases);
  if (!image_story_.empty()) message = absl::StrCat(image_story_, "; ", message);
  Publish(std::move(message), StartDetails(phases), /*time_ns=*/0);
}

void Task::PublishPaced(int kind, const pb::Event& event) {
  const std::optional<int> held_back = pace_.Pass(kind, EventLoop::Clock::now());
  if (!held_back.has_value()) {
    return Log(LogLevel::kInfo, event.message(), {{"task_id", record_.task_id()}});
  }
  std::string message = event.message();
  if (event.restarts() > 1) absl::StrAppend(&message, "; restart ", event.restarts());
  if (*held_back > 0) absl::StrAppend(&message, " (", *held_back, " like it not told before)");
  Publish(std::move(message), {event.details().begin(), event.details().end()}, event.time_ns());
}

void Task::Publish(std::string message, std::map<std::string, std::string> details,
                   int64_t time_ns) {
  Log(LogLevel::kInfo, message, {{"task_id", record_.task_id()}});
  TaskEvent event;
  event.task_id = record_.task_id();
  event.alloc_id = record_.alloc_id();
  event.task_name = record_.task_name();
  event.time_ns = time_ns != 0 ? time_ns : RealtimeNs();
  event.message = std::move(message);
  event.details = std::move(details);
  shared_.events->Publish(std::move(event));
}

// The supervisor ends its connection only after it has told the exit. Anything else is its death,
// and with it the sandbox's (PDEATHSIG of pid 1): what is left are files and cgroups. Whoever dies
// slowly in them must not hold up the other tasks' news.
void Task::OnLost() {
  if (exited()) return;
  absl::StatusOr<std::optional<pb::ExitRecord>> written = ReadExitRecord(record_.task_dir());
  if (written.ok() && written->has_value()) {
    SetExited(**written);
    return;
  }
  shared_.cleaner->Post([self = shared_from_this()] { self->SetLost(EndAsLost(self->record_)); });
}

void Task::SendNote(const std::string& waiting_for) {
  const std::string note = absl::StrCat(kWaiting, waiting_for);
  {
    MutexLock lock(mutex_);
    status_.set_phase_detail(note);
  }
  pb::ControlRequest request;
  request.mutable_note()->set_waiting_for(note);
  Tell(std::move(request));
}

void Task::EndBecause(const std::string& message) {
  pb::ControlRequest request;
  request.mutable_stop()->set_signal(SIGKILL);
  request.mutable_stop()->set_because(message);
  Tell(std::move(request));
}

}  // namespace jenkins_agent
