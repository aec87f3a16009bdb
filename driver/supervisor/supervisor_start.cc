// The start of a task: everything up to the answer to StartTask.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "driver/base/fault.h"
#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/paths.h"
#include "driver/base/status.h"
#include "driver/sandbox/user_namespace.h"
#include "driver/supervisor/start_record.h"
#include "driver/supervisor/supervisor.h"

namespace jenkins_agent {
namespace {

pb::ControlReply StartError(const absl::Status& error) {
  pb::ControlReply reply;
  reply.set_error(std::string(error.message()));
  reply.set_error_code(static_cast<int>(error.code()));
  return reply;
}

std::vector<cgroups::DeviceRule> DevicesOf(const pb::DeviceControl& control) {
  std::vector<cgroups::DeviceRule> rules = cgroups::StandardDevices();
  for (const pb::DeviceRule& rule : control.allowed()) {
    const char type = rule.type() == pb::DeviceRule::BLOCK       ? 'b'
                      : rule.type() == pb::DeviceRule::CHARACTER ? 'c'
                                                                 : 'a';
    rules.push_back({type, rule.major(), rule.minor(), rule.access()});
  }
  return rules;
}

cgroups::Limits LimitsOf(const pb::CgroupSpec& spec) {
  cgroups::Limits limits = {.memory_bytes = spec.memory_bytes(),
                            .memory_soft_bytes = spec.memory_soft_bytes(),
                            .cpu_shares = spec.cpu_shares(),
                            .cpu_quota_us = spec.cpu_quota_us(),
                            .cpuset_cpus = spec.cpuset_cpus(),
                            .pids = spec.pids(),
                            .io_weight = spec.io_weight()};
  if (spec.has_device_control()) limits.devices = DevicesOf(spec.device_control());
  return limits;
}

cgroups::Placement PlacementOf(const pb::CgroupSpec& spec, const cgroups::Limits& limits) {
  return {.name = spec.name(),
          .cpuset_cgroup = spec.cpuset_cgroup(),
          .extra_controllers = cgroups::ExtraControllers(limits)};
}

// It has said why, or its pidfd tells.
absl::Status UnlessInitIsGone(const absl::Status& sent) {
  return absl::IsUnavailable(sent) ? absl::OkStatus() : sent;
}

std::unique_ptr<Output> MakeOutput(EventLoop* loop, const pb::OutputSpec& spec, bool is_stdout,
                                   Output::OnBytes on_bytes) {
  if (spec.has_files()) {
    const pb::LogFiles& files = spec.files();
    LogFileSet set = {files.root(), files.directory(),
                      is_stdout ? files.stdout_name() : files.stderr_name(), files.max_files(),
                      files.max_file_bytes()};
    return std::make_unique<Output>(loop, std::move(set), std::move(on_bytes));
  }
  EventLoop::Clock::duration patience = Output::kPatience;
  if (spec.patience_ms() > 0) patience = std::chrono::milliseconds(spec.patience_ms());
  return std::make_unique<Output>(loop, is_stdout ? spec.stdout_path() : spec.stderr_path(),
                                  std::move(on_bytes), patience);
}

}  // namespace

void SendStartError(int connection, const absl::Status& error) {
  // A plugin that is gone has nobody waiting for this answer.
  SendPacket(connection, StartError(error).SerializeAsString()).IgnoreError();
}

void Supervisor::Run() {
  if (const absl::Status prepared = Prepare(); !prepared.ok()) return UndoPrepare(prepared);
  absl::Status begun = OpenOutputs();
  // Nothing more has to be known of the job's own command: pid 1 finds the request when the sandbox
  // stands. On a busy node its way to here and back would cost two turns at the CPU.
  if (begun.ok() && !waits_for_jar()) begun = UnlessInitIsGone(AskForLaunch());
  if (!begun.ok()) FailStart(begun);
  loop_->Run();
}

absl::Status Supervisor::Prepare() {
  timings_.set_forked_ms(ElapsedMs());
  RETURN_IF_ERROR(OpenTaskDirectory());
  RETURN_IF_ERROR(OwnOutputPipes());
  FaultPoint("supervisor.start.sandbox_cloned");
  RETURN_IF_ERROR(RecordStart());
  FaultPoint("supervisor.start.recorded");
  RETURN_IF_ERROR(MakeCgroup());
  FaultPoint("supervisor.start.cgroup_made");
  RETURN_IF_ERROR(OpenLog());
  RETURN_IF_ERROR(Serve());
  FaultPoint("supervisor.start.listening");
  return absl::OkStatus();
}

absl::Status Supervisor::OpenTaskDirectory() {
  ASSIGN_OR_RETURN(task_dir_, OpenFile(spec_.task_dir(), O_RDONLY | O_DIRECTORY));
  return absl::OkStatus();
}

// stderr becomes supervisor.log; stdin and stdout are /dev/null already. While pid 1 is at work: a
// disk takes as long to make a file as the kernel takes for half a sandbox.
absl::Status Supervisor::OpenLog() {
  ASSIGN_OR_RETURN(const Fd log,
                   OpenAt(task_dir_.get(), kSupervisorLog, O_WRONLY | O_CREAT | O_APPEND, 0600));
  if (::dup2(log.get(), STDERR_FILENO) < 0) return ErrnoStatus("dup2");
  return absl::OkStatus();
}

absl::Status Supervisor::RecordStart() {
  const pb::CgroupSpec& spec = spec_.cgroup();
  ASSIGN_OR_RETURN(const std::vector<std::string> dirs,
                   cgroups::Cgroup::DirsFor(hierarchy_, PlacementOf(spec, LimitsOf(spec))));
  return WriteStartRecord(task_dir_.get(), connection_.get(), spec_, dirs);
}

absl::Status Supervisor::MakeCgroup() {
  const pb::CgroupSpec& spec = spec_.cgroup();
  const cgroups::Limits limits = LimitsOf(spec);
  ASSIGN_OR_RETURN(cgroup_, cgroups::Cgroup::Create(hierarchy_, PlacementOf(spec, limits), limits));
  timings_.set_cgroup_ms(ElapsedMs());
  return UnlessInitIsGone(SendCgroups(init_.socket.get(), *cgroup_));
}

// Programs that open /dev/stdout anew need to own the pipe behind it.
absl::Status Supervisor::OwnOutputPipes() const {
  const uid_t owner = HostId(spec_.user(), spec_.user().uid());
  for (const Fd* pipe : {&init_.out, &init_.err}) {
    if (::fchown(pipe->get(), owner, static_cast<gid_t>(-1)) != 0) return ErrnoStatus("fchown");
  }
  return absl::OkStatus();
}

absl::Status Supervisor::Serve() {
  ASSIGN_OR_RETURN(loop_, EventLoop::Create());
  oom_ = std::make_unique<OomWatcher>(
      loop_.get(), &*cgroup_,
      [this](uint64_t killed, const std::vector<OomProcess>& known) { OnOomKills(killed, known); });
  if (const absl::Status watched = oom_->Start(); !watched.ok()) Log(watched.message());
  server_ = std::make_unique<ControlServer>(
      loop_.get(), [this](const pb::ControlRequest& request) { return Handle(request); });
  entrances_ = std::make_unique<Entrances>(loop_.get(), *cgroup_, init_,
                                           [this](absl::string_view line) { Log(line); });
  sessions_ = std::make_unique<ExecSessions>(loop_.get(), server_.get(), entrances_.get(),
                                             init_.socket.get());
  server_->SetLateHandler([this](uint64_t connection, const pb::ControlRequest& request) {
    return HandleLate(connection, request);
  });
  starter_ = server_->Adopt(std::move(connection_));
  server_->NotifyWhenGone(starter_, [this] { OnStarterGone(); });
  RETURN_IF_ERROR(server_->Listen(task_dir_.get()));
  RETURN_IF_ERROR(loop_->Watch(init_.socket.get(), EPOLLIN, [this](uint32_t) { OnReports(); }));
  timer_ = loop_->After(kSetUpTimeout, [this] {
    FailStart(absl::DeadlineExceededError(
        absl::StrCat("sandbox: not ready after ", kSetUpTimeout.count(), " s")));
  });
  return loop_->Watch(init_.pidfd.get(), EPOLLIN, [this](uint32_t) { OnInitEnded(); });
}

// A plugin that dies between its request and its first Hello has told nobody of this task: Nomad
// asks again for the same id, and nothing must run beside that.
void Supervisor::OnStarterGone() {
  if (taken_) return;
  FailStart(absl::CancelledError("the plugin died during the start"));
}

absl::Status Supervisor::OpenOutputs() {
  out_ = MakeOutput(loop_.get(), spec_.output(), /*is_stdout=*/true,
                    [this](absl::string_view bytes) { OnOutput(1, bytes); });
  err_ = MakeOutput(loop_.get(), spec_.output(), /*is_stdout=*/false,
                    [this](absl::string_view bytes) { OnOutput(2, bytes); });
  out_->SetOnDropped([this](uint64_t bytes) { PublishDropped("stdout", bytes); });
  err_->SetOnDropped([this](uint64_t bytes) { PublishDropped("stderr", bytes); });
  RETURN_IF_ERROR(out_->OpenSink(), "stdout");
  RETURN_IF_ERROR(err_->OpenSink(), "stderr");
  const auto on_end = [this] { FinishWhenQuiet(); };
  RETURN_IF_ERROR(out_->Start(std::move(init_.out), on_end), "stdout");
  return Annotate(err_->Start(std::move(init_.err), on_end), "stderr");
}

// Only for failures before there is a loop that could do it in order.
void Supervisor::UndoPrepare(const absl::Status& error) {
  const Fd connection = server_ == nullptr ? std::move(connection_) : Fd();
  KillSandbox(init_);
  if (cgroup_) RemoveCgroup();
  if (server_ == nullptr) return SendStartError(connection.get(), error);
  server_->StopListening(task_dir_.get());
  server_->Send(starter_, StartError(error));
}

void Supervisor::OnReady(const InitReport& ready) {
  loop_->Cancel(timer_);
  timings_.set_cloned_ms(ElapsedMsAt(ready.began_ns));
  timings_.set_sandbox_ms(ElapsedMsAt(ready.built_ns));
  if (ready.takes_entrants) entrances_->Open();
  FaultPoint("supervisor.start.sandbox_ready");
  if (!waits_for_jar()) return AwaitLaunch();
  if (const absl::Status java = KeepUsableJavaHomes(ready.number); !java.ok()) {
    return FailStart(java);
  }
  state_ = State::kWaitingForJar;
  AnswerStart();
}

absl::Status Supervisor::KeepUsableJavaHomes(uint32_t usable) {
  pb::AgentSpec& agent = *spec_.mutable_agent();
  google::protobuf::RepeatedPtrField<pb::JavaHome> homes;
  std::string refused;
  for (int i = 0; i < agent.java_homes_size(); ++i) {
    if (i < kMaxJavaHomes && (usable & (1u << i)) != 0) {
      *homes.Add() = agent.java_homes(i);
    } else {
      absl::StrAppend(&refused, refused.empty() ? "" : ", ", agent.java_homes(i).path(),
                      "/bin/java");
    }
  }
  if (homes.empty()) {
    return absl::FailedPreconditionError(
        refused.empty()
            ? std::string("no Java in this sandbox: set java_home, or use an image that "
                          "contains one")
            : absl::StrCat("no Java that can be executed in the sandbox: tried ", refused));
  }
  agent.mutable_java_homes()->Swap(&homes);
  return absl::OkStatus();
}

void Supervisor::AnswerStart() {
  start_answered_ = true;
  spawner_.Reset();
  pb::ControlReply reply;
  *reply.mutable_status() = Status();
  server_->Send(starter_, reply);
}

void Supervisor::FailStart(const absl::Status& error) {
  spawner_.Reset();
  Outcome failed;
  failed.start_error = error;
  End(std::move(failed));
}

}  // namespace jenkins_agent
