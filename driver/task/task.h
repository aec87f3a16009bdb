// One task as the plugin sees it: a connection to its supervisor, the last known state, and
// whoever waits for its end. The task itself lives in the supervisor and survives the plugin.
//
// Thread-safe. Owned by TaskStore through a shared_ptr, because callbacks of the event loop and RPC
// threads may hold it while it is being destroyed.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/event_loop.h"
#include "driver/base/mutex.h"
#include "driver/metrics/metrics.h"
#include "driver/supervisor/control.h"
#include "driver/task/agent_watch.h"
#include "driver/task/class_archives.h"
#include "driver/task/event_pace.h"
#include "driver/task/events.h"
#include "driver/task/jar_worker.h"
#include "driver/task/oom_order.h"
#include "driver/task/tools_worker.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// What the fetching of an agent.jar needs to know and a recovered task no longer knows: such a
// one shares neither jars nor archives with others.
struct AgentStart {
  std::string job;  // "<namespace>/<job id>"
  bool class_data_sharing = false;
  std::vector<pb::JavaHome> java_homes;  // candidates, best first
};

class Task : public std::enable_shared_from_this<Task> {
 public:
  using Waiter = std::function<void(const pb::ExitRecord&)>;

  // What the tasks of a plugin have in common; outlives them.
  struct Shared {
    EventLoop* loop = nullptr;
    EventLoop* cleaner = nullptr;  // a loop of its own for work that may block for seconds
    EventBus* events = nullptr;
    const JarWorkerProgram* tools = nullptr;
    Metrics* metrics = nullptr;
    std::shared_ptr<ClassArchives> archives = nullptr;  // null: agents start without
    std::shared_ptr<OomOrder> oom_order = nullptr;      // null: this host has no fanotify
  };

  // `image_story`: how the start came by its image, for its event; may be empty.
  Task(pb::TaskRecord record, const Shared& shared, AgentStart agent_start = {},
       std::string image_story = "")
      : record_(std::move(record)),
        shared_(shared),
        agent_start_(std::move(agent_start)),
        image_story_(std::move(image_story)) {}
  ~Task();

  const pb::TaskRecord& record() const { return record_; }

  // Takes over the connection to a running supervisor: asks for its state, follows its events and,
  // when it waits for an agent.jar, starts the worker that gets one. Waits for the first answer.
  absl::Status Attach(Fd connection);
  // The same without waiting, for one that was taken up before: its state, or its death, comes when
  // it comes.
  void Follow(Fd connection);
  // The task has ended already; its record was found on disk.
  void SetExited(const pb::ExitRecord& exit) ABSL_LOCKS_EXCLUDED(mutex_);

  // Calls `waiter` once when the task has ended, at once when it has. The id is for StopWaiting.
  uint64_t Wait(Waiter waiter) ABSL_LOCKS_EXCLUDED(mutex_);
  void StopWaiting(uint64_t id) ABSL_LOCKS_EXCLUDED(mutex_);
  bool exited() const ABSL_LOCKS_EXCLUDED(mutex_);
  std::optional<pb::ExitRecord> exit_record() const ABSL_LOCKS_EXCLUDED(mutex_);

  // The supervisor's view of now; the last known one after the end.
  absl::StatusOr<pb::TaskStatus> Status() ABSL_LOCKS_EXCLUDED(mutex_);
  // What is known without asking, and the order to ask without waiting for the answer.
  pb::TaskStatus last_status() const ABSL_LOCKS_EXCLUDED(mutex_);
  void Refresh() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Signal(int signal);
  // Signals the payload, after `timeout` ends everything in the sandbox; returns when all is gone.
  // OK for a task that has ended.
  absl::Status Stop(int signal, std::chrono::milliseconds timeout);
  // For a supervisor that does not answer: kills it; returns when the task has ended as lost and
  // nothing here touches its directory and cgroups any more.
  absl::Status KillSupervisor() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  static constexpr std::chrono::seconds kCallTimeout{10};
  // Asks for the state and for the events that follow.
  static pb::ControlRequest Hello();
  // Null: the task had ended when it was recovered.
  std::shared_ptr<Control> control() const ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<pb::ControlReply> Call(pb::ControlRequest request);
  // Does not wait for the answer. For a task that has a supervisor.
  void Tell(pb::ControlRequest request);
  void KeepStatus(const pb::TaskStatus& status) ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<Control> Connect(Fd connection) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnFirstStatus(const pb::TaskStatus& status);
  void PublishStarted(const pb::TaskStatus& status);
  void OnEvent(const pb::Event& event);
  void OnLost();
  void CountEvent(const pb::Event& event);
  void CountEnd(const pb::ExitRecord& exit) ABSL_LOCKS_EXCLUDED(mutex_);
  void SetLost(const pb::ExitRecord& exit) ABSL_LOCKS_EXCLUDED(mutex_);
  void Publish(std::string message, std::map<std::string, std::string> details, int64_t time_ns);
  void PublishConnected(const pb::Event& event);
  void PreferBuilds(const pb::TaskStatus& status);
  void PublishPaced(int kind, const pb::Event& event);
  void WatchAgent(const pb::TaskStatus& status);
  // Without waiting; nothing comes when the supervisor does not answer.
  void AskStatus(std::function<void(Task&, const pb::TaskStatus&)> look);
  void AskController();
  void SendVerdict(const std::string& cause, uint32_t launches, bool aged);
  std::string WhyNotConnected() const;
  void SendDone(uint32_t launches);
  void GetAgentJar(const pb::TaskStatus& status);
  void StartJarWorker(const pb::TaskStatus& status, const std::string& file,
                      JarWorker::Handlers handlers);
  void GetNewerJar(const pb::TaskStatus& status);
  void ReplaceJar(const pb::JarInfo& jar, const std::string& host_path, const std::string& demand,
                  uint32_t launches);
  void ExpectConnection();
  void OnConnectionOverdue();
  void Preflight(const pb::TaskStatus& status);
  void KeepPhaseTime(const pb::Event& event);
  void SendJar(pb::JarInfo jar, const std::string& host_path);
  void TellProgramsJar(pb::JarInfo jar);
  void AddClassArchive(const pb::JarInfo& jar, const std::string& host_path);
  void SendNote(const std::string& waiting_for);
  void EndBecause(const std::string& message);
  bool WaitForExit(std::chrono::milliseconds limit) ABSL_LOCKS_EXCLUDED(mutex_);

  const pb::TaskRecord record_;
  const Shared shared_;
  const AgentStart agent_start_;
  const std::string image_story_;

  // Who works for an agent, on the loop's thread, their ends too.
  struct Helpers {
    std::unique_ptr<JarWorker> jar;
    std::unique_ptr<AgentWatch> watch;
    std::unique_ptr<JarWorker> controller_check;
    std::unique_ptr<ToolsWorker> preflight;
    bool empty() const {
      return jar == nullptr && watch == nullptr && controller_check == nullptr &&
             preflight == nullptr;
    }
  };

  // Loop's thread only.
  Helpers helpers_;
  EventPace pace_;
  std::function<void()> make_archive_;  // for later agents, when this one is connected
  EventLoop::TimerId overdue_ = 0;      // while an agent that was launched is not connected
  std::chrono::seconds overdue_after_{0};
  std::string last_preflight_;
  std::string
      agent_port_;  // HOST:PORT that the agent tries to connect to; "": it never came that far
  // CLOCK_REALTIME of the first event of each phase on the way to the first connection.
  std::map<pb::AgentPhase, int64_t> phase_times_;
  bool connected_before_ = false;

  mutable Mutex mutex_;
  CondVar ended_;
  std::shared_ptr<Control> control_ ABSL_GUARDED_BY(mutex_);
  pb::TaskStatus status_ ABSL_GUARDED_BY(mutex_);
  std::optional<pb::ExitRecord> exit_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_waiter_ ABSL_GUARDED_BY(mutex_) = 1;
  // How it ended, for the counters.
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  bool lost_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace jenkins_agent
