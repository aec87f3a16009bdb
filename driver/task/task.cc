#include "driver/task/task.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <future>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "driver/agent/command.h"
#include "driver/agent/restart_policy.h"
#include "driver/base/fault.h"
#include "driver/base/log.h"
#include "driver/base/paths.h"
#include "driver/base/sandbox_paths.h"
#include "driver/base/status.h"
#include "driver/jvm/class_data.h"
#include "driver/supervisor/exit_record.h"
#include "driver/supervisor/protocol.h"
#include "driver/task/preflight.h"
#include "driver/task/remains.h"
#include "driver/task/start_phases.h"

namespace jenkins_agent {
namespace {

constexpr std::chrono::seconds kCallTimeout{10};
constexpr std::chrono::hours kWhileItLives{24 * 365};
constexpr std::chrono::seconds kLostLimit{10};  // to end what a dead supervisor left
// Beyond the job's own kill timeout: signal, reap and clean-up of a large process tree.
constexpr std::chrono::seconds kStopGrace{20};
// An agent that is not connected by then is looked after, and again after four times as long.
constexpr std::chrono::seconds kConnectionOverdue{15};
constexpr std::chrono::seconds kLongestOverdue{1200};
constexpr absl::string_view kHandshakingPrefix = "handshaking: ";  // of the supervisor's events

// Kinds of paced events beside the phases.
constexpr int kRestartEvents = -1;
constexpr int kDroppedEvents = -2;

int64_t NowNs() {
  timespec now;
  ::clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
}

// A jar that the previous launch used may be there.
absl::Status ReplaceByHardLink(const std::string& file, const std::string& link) {
  if (::unlink(link.c_str()) != 0 && errno != ENOENT)
    return ErrnoStatus(absl::StrCat("unlink ", link));
  if (::link(file.c_str(), link.c_str()) != 0) return ErrnoStatus(absl::StrCat("link ", link));
  return absl::OkStatus();
}

// When each part of a start was over, in ms since StartTask; 0: not seen.
struct StartPart {
  const char* name;
  const char* key;
  double reached_ms;
};
using StartTimes = std::vector<StartPart>;

// What each part took by itself.
std::vector<StartPhase> PartsOf(const StartTimes& times) {
  std::vector<StartPhase> parts;
  double before_ms = 0;
  for (const auto& [name, key, reached_ms] : times) {
    if (reached_ms < before_ms || reached_ms == 0) continue;  // not seen
    parts.push_back({name, reached_ms - before_ms});
    before_ms = reached_ms;
  }
  return parts;
}

// "agent connected after 620 ms: sandbox 3, agent.jar 37, JVM 390, discovery 60, handshake 130 ms"
std::string DescribeStart(const std::vector<StartPhase>& parts) {
  std::vector<std::string> texts;
  double total_ms = 0;
  for (const StartPhase& part : parts) {
    texts.push_back(absl::StrFormat("%s %.0f", part.name, part.ms));
    total_ms += part.ms;
  }
  return absl::StrFormat("agent connected after %.0f ms: %s ms", total_ms,
                         absl::StrJoin(texts, ", "));
}

double NumberOf(const std::string& text) {
  uint64_t number = 0;
  return absl::SimpleAtoi(text, &number) ? static_cast<double>(number) : 0;
}

// Where a task's controller is, as seen from the task.
JarWorker::Request ControllerOf(const pb::TaskStatus& status, const pb::TaskRecord& record) {
  JarWorker::Request request;
  request.urls.assign(status.agent_urls().begin(), status.agent_urls().end());
  request.name = status.agent_name();
  request.ca_file = status.agent_ca_file();
  request.web_socket = status.web_socket();
  request.network_namespace = record.network_namespace();
  request.resolv_conf = record.resolv_conf();
  request.root_pid = status.init_pid();
  return request;
}

// Asks for the state and for the events that follow.
pb::ControlRequest Hello() {
  pb::ControlRequest request;
  request.mutable_hello()->set_version(kSpecVersion);
  request.mutable_hello()->set_watch(true);
  return request;
}

}  // namespace

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

// Worker and watch belong to the loop's thread, also their end. A task that still has one was given
// up before its exit was known.
Task::~Task() {
  if (jar_worker_ == nullptr && watch_ == nullptr && controller_check_ == nullptr &&
      preflight_ == nullptr) {
    return;
  }
  shared_.loop->Post([worker = std::shared_ptr<JarWorker>(std::move(jar_worker_)),
                      watch = std::shared_ptr<AgentWatch>(std::move(watch_)),
                      check = std::shared_ptr<JarWorker>(std::move(controller_check_)),
                      preflight = std::shared_ptr<ToolsWorker>(std::move(preflight_))] {});
}

void Task::KeepStatus(const pb::TaskStatus& status) {
  MutexLock lock(mutex_);
  if (!exit_.has_value()) status_ = status;
}

void Task::OnFirstStatus(const pb::TaskStatus& status) {
  if (status.timings().connected_ms() > 0) connected_before_ = true;
  if (status.state() == pb::WAITING_FOR_JAR) GetAgentJar(status);
  if (status.has_health() && !status.health().disabled()) WatchAgent(status);
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
    self->jar_worker_.reset();
    self->watch_.reset();
    self->controller_check_.reset();
    self->preflight_.reset();
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
  const std::shared_ptr<Control> control = this->control();
  if (control == nullptr || exited()) return;
  const auto on_reply = [weak = weak_from_this()](const absl::StatusOr<pb::ControlReply>& reply) {
    if (const auto self = weak.lock(); self != nullptr && reply.ok()) {
      self->KeepStatus(reply->status());
    }
  };
  control->Call(Hello(), on_reply, kCallTimeout);
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
  if (event.phase() != pb::PHASE_NONE && watch_ != nullptr) {
    watch_->OnPhase(event.phase(), event.message());
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
      return Log(LogLevel::kDebug, event.message(), {{"task_id", record_.task_id()}});
    case pb::PHASE_WEDGED:
      return Log(LogLevel::kDebug, event.message(), {{"task_id", record_.task_id()}});
    case pb::PHASE_NONE:
      if (event.restarts() > 0) return PublishPaced(kRestartEvents, event);
      if (event.details().contains(kDroppedLogBytes)) return PublishPaced(kDroppedEvents, event);
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
  if (!phases.empty()) Publish(StartMessage(phases), StartDetails(phases), /*time_ns=*/0);
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

// The first connection is told with the time that each part of the start took.
void Task::PublishConnected(const pb::Event& event) {
  shared_.loop->Cancel(std::exchange(overdue_, 0));
  preflight_.reset();
  last_preflight_.clear();
  if (make_archive_) std::exchange(make_archive_, nullptr)();
  const auto publish = [self = shared_from_this(), event](absl::StatusOr<pb::ControlReply> reply) {
    if (!reply.ok() || std::exchange(self->connected_before_, true)) {
      pb::Event again = event;
      again.set_message(absl::StrCat("agent ", event.message(), " again"));
      return self->PublishPaced(pb::PHASE_CONNECTED, again);
    }
    const pb::Timings& timings = reply->status().timings();
    // The supervisor's clock for what it measures, the distance of its events for the rest.
    const auto reached = [&](pb::AgentPhase phase) {
      const auto time = self->phase_times_.find(phase);
      if (time == self->phase_times_.end()) return 0.0;
      return timings.connected_ms() - static_cast<double>(event.time_ns() - time->second) / 1e6;
    };
    const StartTimes times = {{"sandbox", "sandbox_ms", timings.sandbox_ms()},
                              {"agent.jar", "jar_ms", timings.jar_ms()},
                              {"JVM", "locating_ms", reached(pb::PHASE_LOCATING)},
                              {"discovery", "handshaking_ms", reached(pb::PHASE_HANDSHAKING)},
                              {"handshake", "connected_ms", timings.connected_ms()}};
    std::map<std::string, std::string> details = {
        {"launched_ms", absl::StrFormat("%.1f", timings.launched_ms())}};
    for (const StartPart& part : times) {
      if (part.reached_ms > 0) details[part.key] = absl::StrFormat("%.1f", part.reached_ms);
    }
    const std::vector<StartPhase> parts = PartsOf(times);
    for (const StartPhase& part : parts) {
      self->shared_.metrics->Observe(Metric::kAgentStart, part.name, part.ms / 1000);
    }
    self->Publish(DescribeStart(parts), std::move(details), event.time_ns());
  };
  control()->Call(Hello(), publish, kCallTimeout);
}

void Task::Publish(std::string message, std::map<std::string, std::string> details,
                   int64_t time_ns) {
  Log(LogLevel::kInfo, message, {{"task_id", record_.task_id()}});
  TaskEvent event;
  event.task_id = record_.task_id();
  event.alloc_id = record_.alloc_id();
  event.task_name = record_.task_name();
  event.time_ns = time_ns != 0 ? time_ns : NowNs();
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

void Task::WatchAgent(const pb::TaskStatus& status) {
  if (exited()) return;
  const std::weak_ptr<Task> weak = weak_from_this();
  AgentWatch::Handlers handlers;
  handlers.on_wedged = [weak](const std::string& cause, uint32_t launches) {
    if (const auto self = weak.lock()) self->SendVerdict(cause, launches, /*aged=*/false);
  };
  handlers.on_aged = [weak](const std::string& cause, uint32_t launches) {
    if (const auto self = weak.lock()) self->SendVerdict(cause, launches, /*aged=*/true);
  };
  handlers.on_done = [weak](uint32_t launches) {
    if (const auto self = weak.lock()) self->SendDone(launches);
  };
  handlers.on_given_up = [weak](const std::string& cause) {
    if (const auto self = weak.lock()) self->EndBecause(cause);
  };
  handlers.on_news = [weak](const std::string& text, bool crowded) {
    const auto self = weak.lock();
    if (self == nullptr) return;
    if (crowded) self->shared_.metrics->Count(Metric::kThreadCrossings);
    self->Publish(text, {}, 0);
  };
  handlers.ask_status = [weak] {
    if (const auto self = weak.lock()) self->AskStatus();
  };
  handlers.ask_controller = [weak] {
    if (const auto self = weak.lock()) self->AskController();
  };
  watch_ =
      std::make_unique<AgentWatch>(shared_.loop, record_.network_namespace(), std::move(handlers));
  watch_->OnStatus(status);
}

void Task::AskStatus() {
  const auto on_reply = [weak = weak_from_this()](const absl::StatusOr<pb::ControlReply>& reply) {
    const auto self = weak.lock();
    if (self == nullptr || !reply.ok()) return;
    self->KeepStatus(reply->status());
    if (self->watch_ != nullptr) self->watch_->OnStatus(reply->status());
  };
  control()->Call(Hello(), on_reply, kCallTimeout);
}

// One that has not been answered yet is asked for the last time: its place is taken.
void Task::AskController() {
  const std::weak_ptr<Task> weak = weak_from_this();
  const auto answer = [weak](bool answers) {
    const auto self = weak.lock();
    if (self == nullptr) return;
    if (self->watch_ != nullptr) self->watch_->OnController(answers);
    self->controller_check_.reset();
  };
  JarWorker::Request request = [this] {
    MutexLock lock(mutex_);
    return ControllerOf(status_, record_);
  }();
  request.only_ask = true;
  if (request.urls.empty()) return;  // agent.direct alone
  JarWorker::Handlers handlers;
  handlers.on_ready = [answer](const pb::JarInfo&, const std::string&) { answer(true); };
  handlers.on_failed = [answer](const std::string&) { answer(false); };
  controller_check_.reset();
  auto check = JarWorker::Start(shared_.loop, *shared_.tools, request, std::move(handlers));
  if (check.ok()) controller_check_ = *std::move(check);
}

// A supervisor that has restarted it meanwhile, or is about to, refuses: nothing is lost by that.
void Task::SendVerdict(const std::string& cause, uint32_t launches, bool aged) {
  Log(LogLevel::kWarn, "the agent's JVM has to be replaced",
      {{"task_id", record_.task_id()}, {"cause", cause}});
  pb::ControlRequest request;
  request.mutable_verdict()->set_cause(cause);
  request.mutable_verdict()->set_launches(launches);
  request.mutable_verdict()->set_aged(aged);
  Tell(std::move(request));
}

void Task::SendDone(uint32_t launches) {
  pb::ControlRequest request;
  request.mutable_done()->set_launches(launches);
  Tell(std::move(request));
}

void Task::GetAgentJar(const pb::TaskStatus& status) {
  if (exited()) return;
  const std::weak_ptr<Task> weak = weak_from_this();
  JarWorker::Request request = ControllerOf(status, record_);
  request.file = status.jar_path();
  request.job = agent_start_.job.empty() ? record_.alloc_id() : agent_start_.job;
  JarWorker::Handlers handlers;
  handlers.on_waiting = [weak](const std::string& reason) {
    if (const auto self = weak.lock()) self->SendNote(reason);
  };
  handlers.on_ready = [weak, file = request.file](pb::JarInfo jar, const std::string& host_path) {
    jar.set_path(file);  // of a jar in the sandbox; a fetched one gets its place there
    if (const auto self = weak.lock()) self->SendJar(std::move(jar), host_path);
  };
  handlers.on_failed = [weak](const std::string& error) {
    if (const auto self = weak.lock()) self->EndBecause(error);
  };
  absl::StatusOr<std::unique_ptr<JarWorker>> worker =
      JarWorker::Start(shared_.loop, *shared_.tools, request, std::move(handlers));
  if (!worker.ok()) {
    EndBecause(std::string(worker.status().message()));
    return;
  }
  jar_worker_ = *std::move(worker);
}

void Task::KeepPhaseTime(const pb::Event& event) {
  if (!connected_before_) phase_times_.emplace(event.phase(), event.time_ns());
  // Both generations name the port as they try it, a tunnel or agent.direct included.
  absl::string_view port = event.message();
  if (event.phase() == pb::PHASE_HANDSHAKING && absl::ConsumePrefix(&port, kHandshakingPrefix)) {
    agent_port_ = std::string(port);
  }
}

void Task::ExpectConnection() {
  if (overdue_ != 0 || exited()) return;
  overdue_after_ = kConnectionOverdue;
  overdue_ = shared_.loop->After(overdue_after_, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->OnConnectionOverdue();
  });
}

void Task::OnConnectionOverdue() {
  overdue_after_ = std::min(overdue_after_ * 4, kLongestOverdue);
  const auto weak = weak_from_this();
  overdue_ = shared_.loop->After(overdue_after_, [weak] {
    if (const auto self = weak.lock()) self->OnConnectionOverdue();
  });
  const auto look = [weak](absl::StatusOr<pb::ControlReply> reply) {
    const auto self = weak.lock();
    if (self != nullptr && reply.ok()) self->Preflight(reply->status());
  };
  control()->Call(Hello(), look, kCallTimeout);
}

void Task::Preflight(const pb::TaskStatus& status) {
  if (exited() || overdue_ == 0 || status.phase() == pb::PHASE_CONNECTED) return;
  const auto on_end = [weak = weak_from_this()](const std::string& line) {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->preflight_.reset();
    if (line.empty() || line == self->last_preflight_) return;
    self->last_preflight_ = line;
    self->Publish(absl::StrCat("agent not connected: ", line), {}, 0);
  };
  auto worker = StartPreflight(shared_.loop, *shared_.tools, record_, status, agent_port_, on_end);
  if (worker.ok()) {
    preflight_ = *std::move(worker);
  } else {
    Log(LogLevel::kWarn, "pre-flight",
        {{"task_id", record_.task_id()}, {"error", std::string(worker.status().message())}});
  }
}

void Task::SendJar(pb::JarInfo jar, const std::string& host_path) {
  if (!host_path.empty()) {
    const std::string link = StatePaths::JarDir(record_.task_dir()) + "/" + kAgentJar;
    if (const absl::Status linked = ReplaceByHardLink(host_path, link); !linked.ok()) {
      EndBecause(std::string(linked.message()));
      return;
    }
    jar.set_path(absl::StrCat(kJarDir, "/", kAgentJar));
    AddClassArchive(jar, host_path);
  }
  pb::ControlRequest request;
  *request.mutable_jar_ready()->mutable_jar() = std::move(jar);
  // A command that cannot be built or executed ends the task in the supervisor, which says why.
  Tell(std::move(request));
}

// A start never waits for an archive: what is missing is made when the agent is connected.
void Task::AddClassArchive(const pb::JarInfo& jar, const std::string& host_path) {
  if (shared_.archives == nullptr || !agent_start_.class_data_sharing) return;
  const absl::StatusOr<pb::JavaHome> java =
      ChooseJava(agent_start_.java_homes, jar.generation(), jar.min_java());
  if (!java.ok()) return;
  const std::string archive = shared_.archives->Find(java->path(), jar.sha256());
  if (archive.empty()) {
    make_archive_ = [archives = shared_.archives, java = *java, jar, host_path] {
      archives->Make(java, jar, host_path);
    };
    return;
  }
  const std::string link = StatePaths::JarDir(record_.task_dir()) + "/" + kClassArchive;
  absl::Status shared = ReplaceByHardLink(archive, link);
  if (shared.ok()) shared = WriteVmOptions(record_.task_dir(), ClassDataOptionsFile());
  if (shared.ok()) return;
  Log(LogLevel::kWarn, "an agent starts without its class-data archive",
      {{"task_id", record_.task_id()}, {"error", std::string(shared.message())}});
}

void Task::SendNote(const std::string& waiting_for) {
  const std::string note = absl::StrCat("waiting for the controller: ", waiting_for);
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
