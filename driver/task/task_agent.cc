// What a task does for its agent: agent.jar and class archive, the watch over its JVM, a look at
// the way to a controller that it does not reach.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "driver/agent/command.h"
#include "driver/agent/phases.h"
#include "driver/base/log.h"
#include "driver/base/paths.h"
#include "driver/base/sandbox_paths.h"
#include "driver/base/status.h"
#include "driver/jvm/class_data.h"
#include "driver/task/preflight.h"
#include "driver/task/start_phases.h"
#include "driver/task/task.h"

namespace jenkins_agent {
namespace {

// An agent that is not connected by then is looked after, and again after four times as long.
constexpr std::chrono::seconds kConnectionOverdue{15};
constexpr std::chrono::seconds kLongestOverdue{1200};
constexpr absl::string_view kHandshakingPrefix = "handshaking: ";  // of the supervisor's events

std::string AgentJarOf(const pb::TaskRecord& record) {
  return absl::StrCat(StatePaths::JarDir(record.task_dir()), "/", kAgentJar);
}

bool SameFile(const std::string& a, const std::string& b) {
  struct stat first = {}, second = {};
  return ::stat(a.c_str(), &first) == 0 && ::stat(b.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
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

}  // namespace

// The first connection is told with the time that each part of the start took.
void Task::PublishConnected(const pb::Event& event) {
  shared_.loop->Cancel(std::exchange(overdue_, 0));
  helpers_.preflight.reset();
  last_preflight_.clear();
  if (make_archive_) std::exchange(make_archive_, nullptr)();
  const auto publish = [self = shared_from_this(), event](absl::StatusOr<pb::ControlReply> reply) {
    if (reply.ok()) self->PreferBuilds(reply->status());
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

// A JVM that is connected runs no build yet, or this plugin was away.
void Task::PreferBuilds(const pb::TaskStatus& status) {
  if (shared_.oom_order != nullptr && status.payload_pid() > 0) {
    shared_.oom_order->Watch(status.payload_pid());
  }
}

void Task::WatchAgent(const pb::TaskStatus& status) {
  if (exited()) return;
  const std::weak_ptr<Task> weak = weak_from_this();
  AgentWatch::Handlers handlers;
  handlers.on_wedged = [weak](const std::string& cause, uint32_t launches) {
    if (const auto self = weak.lock()) self->SendVerdict(cause, launches, /*aged=*/false);
  };
  handlers.on_worn = [weak](const std::string& cause, uint32_t launches) {
    if (const auto self = weak.lock()) self->SendVerdict(cause, launches, /*aged=*/true);
  };
  handlers.on_done = [weak](uint32_t launches) {
    if (const auto self = weak.lock()) self->SendDone(launches);
  };
  handlers.on_given_up = [weak](const std::string& cause) {
    const auto self = weak.lock();
    if (self != nullptr) self->EndBecause(absl::StrCat(cause, self->WhyNotConnected()));
  };
  handlers.on_news = [weak](const std::string& text, bool crowded) {
    const auto self = weak.lock();
    if (self == nullptr) return;
    if (crowded) self->shared_.metrics->Count(Metric::kThreadCrossings);
    self->Publish(text, {}, 0);
  };
  handlers.ask_status = [weak] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->AskStatus([](Task& task, const pb::TaskStatus& now) {
      if (task.helpers_.watch != nullptr) task.helpers_.watch->OnStatus(now);
    });
  };
  handlers.ask_controller = [weak] {
    if (const auto self = weak.lock()) self->AskController();
  };
  helpers_.watch =
      std::make_unique<AgentWatch>(shared_.loop, record_.network_namespace(), std::move(handlers));
  helpers_.watch->OnStatus(status);
}

void Task::AskStatus(std::function<void(Task&, const pb::TaskStatus&)> look) {
  const auto on_reply = [weak = weak_from_this(),
                         look = std::move(look)](const absl::StatusOr<pb::ControlReply>& reply) {
    const auto self = weak.lock();
    if (self == nullptr || !reply.ok()) return;
    self->KeepStatus(reply->status());
    look(*self, reply->status());
  };
  control()->Call(Hello(), on_reply, kCallTimeout);
}

// One that has not been answered yet is asked for the last time: its place is taken.
void Task::AskController() {
  const std::weak_ptr<Task> weak = weak_from_this();
  const auto answer = [weak](bool answers) {
    const auto self = weak.lock();
    if (self == nullptr) return;
    if (self->helpers_.watch != nullptr) self->helpers_.watch->OnController(answers);
    self->helpers_.controller_check.reset();
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
  helpers_.controller_check.reset();
  auto check = JarWorker::Start(shared_.loop, *shared_.tools, request, std::move(handlers));
  if (check.ok()) helpers_.controller_check = *std::move(check);
}

// A supervisor that has restarted it meanwhile, or is about to, refuses: nothing is lost by that.
void Task::SendVerdict(const std::string& cause, uint32_t launches, bool aged) {
  Log(LogLevel::kWarn, "the agent's JVM has to be replaced",
      {{"task_id", record_.task_id()}, {"cause", cause}});
  pb::ControlRequest request;
  request.mutable_verdict()->set_cause(absl::StrCat(cause, WhyNotConnected()));
  request.mutable_verdict()->set_launches(launches);
  request.mutable_verdict()->set_aged(aged);
  Tell(std::move(request));
}

// The last pre-flight's answer, behind a cause.
std::string Task::WhyNotConnected() const {
  return last_preflight_.empty() ? "" : absl::StrCat("; ", last_preflight_);
}

void Task::SendDone(uint32_t launches) {
  pb::ControlRequest request;
  request.mutable_done()->set_launches(launches);
  Tell(std::move(request));
}

// Of an agent, which waits for it; or of a Java program that may be one, which does not.
void Task::GetAgentJar(const pb::TaskStatus& status) {
  const std::weak_ptr<Task> weak = weak_from_this();
  const bool waits = status.state() == pb::WAITING_FOR_JAR;
  JarWorker::Handlers handlers;
  handlers.on_waiting = [weak](const std::string& reason) {
    if (const auto self = weak.lock()) self->SendNote(reason);
  };
  handlers.on_ready = [weak, waits, file = status.jar_path()](pb::JarInfo jar,
                                                              const std::string& host_path) {
    const auto self = weak.lock();
    if (self == nullptr) return;
    jar.set_path(file);  // of a jar in the sandbox; a fetched one gets its place there
    if (waits) return self->SendJar(std::move(jar), host_path);
    if (jar.runs_as_agent()) self->TellProgramsJar(std::move(jar));
  };
  handlers.on_failed = [weak, waits](const std::string& error) {
    const auto self = weak.lock();
    if (self == nullptr) return;
    if (waits) return self->EndBecause(error);
    Log(LogLevel::kDebug, "no agent's jar", {{"task_id", self->record_.task_id()}, {"why", error}});
  };
  StartJarWorker(status, status.jar_path(), std::move(handlers));
}

void Task::StartJarWorker(const pb::TaskStatus& status, const std::string& file,
                          JarWorker::Handlers handlers) {
  if (exited()) return;
  JarWorker::Request request = ControllerOf(status, record_);
  request.file = file;
  request.job = agent_start_.job.empty() ? record_.alloc_id() : agent_start_.job;
  const auto on_failed = handlers.on_failed;
  auto worker = JarWorker::Start(shared_.loop, *shared_.tools, request, std::move(handlers));
  if (!worker.ok()) return on_failed(std::string(worker.status().message()));
  helpers_.jar = *std::move(worker);
}

// A controller that was upgraded under its agents refuses those of old (jenkins-agent.md 1.3), and
// offers a newer one.
void Task::GetNewerJar(const pb::TaskStatus& status) {
  if (::access(AgentJarOf(record_).c_str(), F_OK) != 0) return;  // a jar of the job's own
  const std::weak_ptr<Task> weak = weak_from_this();
  JarWorker::Handlers handlers;
  handlers.on_waiting = [](const std::string&) {};  // the agent itself says so
  handlers.on_ready = [weak, status](const pb::JarInfo& jar, const std::string& host_path) {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->ReplaceJar(jar, host_path, status.phase_detail(), status.launches());
  };
  handlers.on_failed = [weak](const std::string& error) {
    const auto self = weak.lock();
    if (self == nullptr) return;
    Log(LogLevel::kWarn, "no newer agent.jar",
        {{"task_id", self->record_.task_id()}, {"error", error}});
  };
  StartJarWorker(status, /*file=*/"", std::move(handlers));
}

void Task::ReplaceJar(const pb::JarInfo& jar, const std::string& host_path,
                      const std::string& demand, uint32_t launches) {
  const std::string link = AgentJarOf(record_);
  if (SameFile(link, host_path)) {
    return Publish(absl::StrCat(demand, "; the agent.jar that the controller offers is this one"),
                   {}, 0);
  }
  absl::Status replaced = ReplaceByHardLink(host_path, link);
  if (replaced.ok()) replaced = WriteVmOptions(record_.task_dir(), "");  // no other jar's archive
  if (!replaced.ok()) return EndBecause(std::string(replaced.message()));
  AddClassArchive(jar, host_path);
  SendVerdict(absl::StrCat(demand, "; a newer agent.jar was fetched"), launches, /*aged=*/true);
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
  AskStatus(&Task::Preflight);
}

void Task::Preflight(const pb::TaskStatus& status) {
  if (exited() || overdue_ == 0 || status.phase() == pb::PHASE_CONNECTED) return;
  const auto on_end = [weak = weak_from_this()](const std::string& line) {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->helpers_.preflight.reset();
    if (line.empty() || line == self->last_preflight_) return;
    self->last_preflight_ = line;
    self->Publish(absl::StrCat("agent not connected: ", line), {}, 0);
  };
  auto worker = StartPreflight(shared_.loop, *shared_.tools, record_, status, agent_port_, on_end);
  if (worker.ok()) {
    helpers_.preflight = *std::move(worker);
  } else {
    Log(LogLevel::kWarn, "pre-flight",
        {{"task_id", record_.task_id()}, {"error", std::string(worker.status().message())}});
  }
}

void Task::SendJar(pb::JarInfo jar, const std::string& host_path) {
  if (!host_path.empty()) {
    const absl::Status linked = ReplaceByHardLink(host_path, AgentJarOf(record_));
    if (!linked.ok()) {
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

// From here on it is followed as an agent.
void Task::TellProgramsJar(pb::JarInfo jar) {
  pb::ControlRequest request;
  *request.mutable_jar_ready()->mutable_jar() = std::move(jar);
  const auto on_reply = [weak = weak_from_this()](const absl::StatusOr<pb::ControlReply>& reply) {
    const auto self = weak.lock();
    if (self != nullptr && reply.ok()) self->AskStatus(&Task::OnFirstStatus);
  };
  control()->Call(std::move(request), on_reply, kCallTimeout);
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

}  // namespace jenkins_agent
