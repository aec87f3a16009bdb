// The supervisor of one task: owns its sandbox, its output and its exit record.
//
// A process of its own (forked by the spawner, single-threaded, own session) that outlives the
// plugin. It decides on relaunches by itself, so a restart needs no plugin and no log line is lost
// while the plugin is away.
//
//   setting up -> [waiting for agent.jar] -> launching -> running -> ending
//                                            launching <- backing off <- running
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cgroups/cgroup.h"
#include "driver/agent/phases.h"
#include "driver/agent/restart_policy.h"
#include "driver/base/event_loop.h"
#include "driver/base/fd.h"
#include "driver/supervisor/clearing.h"
#include "driver/supervisor/control_server.h"
#include "driver/supervisor/entrances.h"
#include "driver/supervisor/exec_sessions.h"
#include "driver/supervisor/init_process.h"
#include "driver/supervisor/init_protocol.h"
#include "driver/supervisor/oom_story.h"
#include "driver/supervisor/oom_watcher.h"
#include "driver/supervisor/output.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// The answer to a start that failed, on the connection that came with the request.
void SendStartError(int connection, const absl::Status& error);

class Supervisor {
 public:
  static constexpr std::chrono::seconds kSetUpTimeout{30};
  static constexpr std::chrono::seconds kLaunchTimeout{10};
  static constexpr std::chrono::seconds kInitDeathTimeout{10};
  static constexpr std::chrono::seconds kFlushTimeout{2};
  static constexpr std::chrono::seconds kLingerTimeout{5};
  static constexpr std::chrono::seconds kRefusedAgentStopTimeout{10};
  static constexpr std::chrono::seconds kKillAllTimeout{5};
  // A thread dump of a large JVM, written at a safepoint, into a log that is read.
  static constexpr std::chrono::seconds kThreadDumpTime{2};
  static constexpr std::chrono::seconds kWedgedAgentStopTimeout{5};
  static constexpr size_t kMaxLogBytes = 64 << 10;

  // `init` is at work already. `spawner` is closed when the start is over.
  // `received_ns`, `ordered_ns`: CLOCK_MONOTONIC, when plugin and spawner got the request.
  Supervisor(pb::LaunchSpec spec, const cgroups::Hierarchy& hierarchy, InitProcess init,
             Fd connection, Fd spawner, int64_t received_ns, int64_t ordered_ns);
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // Starts the task, answers the start, and returns when the task is over and everyone was told.
  void Run();

 private:
  enum class State {
    kSettingUp,
    kWaitingForJar,
    kLaunching,
    kRunning,
    kBackingOff,
    kEnding,
    kEnded,
  };
  struct Outcome {
    absl::Status start_error;  // not OK: the task never started, and the rest means nothing
    int exit_code = 0;
    int signal = 0;
    bool oom_killed = false;
    std::string message;
  };

  // Of an event, for programs; the keys are in protocol.h.
  using Details = std::map<std::string, std::string>;

  // Start (supervisor_start.cc).
  absl::Status Prepare();
  absl::Status OpenTaskDirectory();
  absl::Status OpenLog();
  absl::Status RecordStart();
  absl::Status MakeCgroup();
  absl::Status OwnOutputPipes() const;
  absl::Status Serve();
  absl::Status OpenOutputs();
  void UndoPrepare(const absl::Status& error);
  void OnReady(const InitReport& ready);
  absl::Status KeepUsableJavaHomes(uint32_t usable);
  void AnswerStart();
  void OnStarterGone();

  // Launches and exits.
  void OnReports();
  void OnReport(InitReport report);
  void HoldBackOutput(bool held_back);
  void Launch();
  absl::Status AskForLaunch(Entrant entrant = {});
  void AwaitLaunch();
  void OnLaunched(Fd payload);
  void OnLaunchFailed(const absl::Status& error);
  void OnOutput(int stream, absl::string_view bytes);
  void OnPhase(const PhaseChange& change);
  void OnPayloadExit(int wait_status);
  void AfterAgentExit(int wait_status, Outcome exit);
  void BackOff(const Decision& decision);
  // Restart in place (supervisor_restart.cc).
  absl::Status OnVerdict(const pb::ControlRequest::Verdict& verdict);
  absl::Status OnDone(const pb::ControlRequest::Done& done);
  absl::Status CheckRunning(uint32_t launches) const;
  void Act(Decision decision);
  void RestartAgent(const Decision& decision);
  void AskForThreadDump();
  void EndJvm();
  void ClearLeftovers(const Decision& decision);
  Outcome ExitOf(int wait_status);
  void OnOomKills(uint64_t killed, const std::vector<OomProcess>& known);
  OomFigures MemoryFigures() const;
  void OnInitEnded();

  // End.
  void StopPayload(int signal, std::chrono::milliseconds timeout);
  void FailStart(const absl::Status& error);
  void End(Outcome outcome);
  void FinishWhenQuiet();
  void Finish();
  void RemoveCgroup();
  pb::ExitRecord MakeExitRecord();
  void Linger();

  // Control socket (supervisor_control.cc).
  pb::ControlReply Handle(const pb::ControlRequest& request);
  bool HandleLate(uint64_t connection, const pb::ControlRequest& request);
  absl::Status OnJarReady(const pb::JarInfo& jar);
  void OnRecognised();
  absl::Status OnSignal(int signal);
  absl::Status OnStop(const pb::ControlRequest::Stop& stop);
  absl::Status OnNote(const std::string& waiting_for);
  absl::Status OnThreadDump();
  pb::TaskStatus Status() const;
  pb::RunState PublicState() const;
  void Publish(const std::string& message);
  void PublishNews(const std::string& message, const Details& details);
  void Publish(pb::Event event);
  void PublishRestart(const std::string& message, absl::string_view reason);
  void PublishDropped(absl::string_view stream, uint64_t bytes);

  bool stopping() const { return stop_signal_ != 0; }
  void SignalPayload(int signal);
  // False also as long as nobody has said that the job's own Java program is one.
  bool has_agent() const { return spec_.has_agent() && !unrecognised_; }
  bool waits_for_jar() const { return spec_.has_agent() && !spec_.agent().own_command(); }
  double ElapsedMs() const;
  double ElapsedMsAt(int64_t monotonic_ns) const;
  void Log(absl::string_view line);

  pb::LaunchSpec spec_;
  const cgroups::Hierarchy& hierarchy_;
  Fd connection_;  // until the server has it
  Fd spawner_;     // until the start is answered
  const int64_t received_ns_;
  const int64_t started_at_ns_;

  State state_ = State::kSettingUp;
  Fd task_dir_;
  size_t log_bytes_ = 0;
  std::optional<cgroups::Cgroup> cgroup_;
  InitProcess init_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<OomWatcher> oom_;
  std::unique_ptr<ControlServer> server_;
  std::unique_ptr<Entrances> entrances_;
  std::unique_ptr<ExecSessions> sessions_;
  uint64_t starter_ = 0;  // the connection that waits for the start's answer
  bool start_answered_ = false;
  bool taken_ = false;  // a plugin has said Hello: it knows the task and finds it again
  std::unique_ptr<Output> out_;
  std::unique_ptr<Output> err_;

  Fd payload_;  // pidfd while a payload lives
  pid_t payload_pid_ = 0;
  uint64_t payload_start_time_ = 0;  // 0: unknown
  uint32_t launches_ = 0;
  PhaseTracker tracker_;
  bool unrecognised_;  // a Java program of which nobody knows whether it is an agent
  std::unique_ptr<RestartPolicy> policy_;
  std::unique_ptr<Clearing> clearing_;
  std::string waiting_for_;  // why no agent is connected: a note, the back-off's reason
  std::string java_home_;
  pb::Timings timings_;

  int stop_signal_ = 0;             // of a stop that is under way
  std::optional<Outcome> decided_;  // how the task ends once the stopped payload is gone
  EventLoop::TimerId timer_ = 0;    // set-up, launch, back-off: one at a time
  EventLoop::TimerId stop_timer_ = 0;
  EventLoop::TimerId restart_timer_ = 0;  // the next, harder step against a wedged JVM
  int64_t phase_since_ns_ = 0;            // CLOCK_REALTIME
  std::optional<pb::Event> last_event_;
  Outcome outcome_;
  bool init_gone_ = false;
};

}  // namespace jenkins_agent
