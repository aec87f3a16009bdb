#include "driver/supervisor/init.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cgroups/cgroup.h"
#include "driver/base/clock.h"
#include "driver/base/fault.h"
#include "driver/base/file.h"
#include "driver/base/idle_memory.h"
#include "driver/base/status.h"
#include "driver/sandbox/network.h"
#include "driver/sandbox/privileges.h"
#include "driver/sandbox/root.h"
#include "driver/sandbox/user_namespace.h"
#include "driver/supervisor/entrant.h"
#include "driver/supervisor/first_child.h"
#include "driver/supervisor/init_protocol.h"
#include "driver/supervisor/init_sessions.h"
#include "driver/supervisor/launch.h"
#include "driver/supervisor/protocol.h"

namespace jenkins_agent {
namespace {

constexpr char kProcessName[] = "ja-init";

// Bit i: <homes[i]>/bin/java can be executed by the caller.
uint32_t ExecutableJavas(const google::protobuf::RepeatedPtrField<pb::JavaHome>& homes) {
  uint32_t usable = 0;
  for (int i = 0; i < homes.size() && i < kMaxJavaHomes; ++i) {
    if (::access(absl::StrCat(homes[i].path(), "/bin/java").c_str(), X_OK) == 0) usable |= 1u << i;
  }
  return usable;
}

class Init {
 public:
  Init(const InitParameters& parameters, pb::LaunchSpec spec, Fd root_template)
      : parameters_(parameters),
        spec_(std::move(spec)),
        root_template_(std::move(root_template)),
        cgroup_(parameters.hierarchy),
        context_{spec_.sandbox(), spec_.user(), cgroup_, parameters.stdout_fd,
                 parameters.stderr_fd},
        sessions_(context_, [this](InitReport report) { Report(std::move(report)); }) {}

  absl::Status SetUp();
  [[noreturn]] void Serve();

 private:
  absl::Status BuildSandbox();
  absl::StatusOr<std::vector<CgroupTree>> AwaitCgroups();
  absl::StatusOr<StartingPayload> StartChild(InitRequest& request);
  absl::StatusOr<uint32_t> UsableJavaHomes() const;
  void DropWhatIsDone();
  void HandleRequest();
  void StartLaunch(absl::StatusOr<InitRequest> request);
  void FinishLaunch();
  void Reap();
  void PayloadEnded(int wait_status);
  void Report(InitReport report);

  const InitParameters& parameters_;
  pb::LaunchSpec spec_;  // it drops what it has done
  Fd root_template_;
  cgroups::Cgroup cgroup_;
  LaunchContext context_;
  Fd user_namespace_;
  Fd children_;                            // signalfd of SIGCHLD
  std::optional<FirstChild> first_child_;  // until the first launch
  pid_t payload_ = 0;
  std::optional<StartingPayload> starting_;
  InitSessions sessions_;
};

// The supervisor makes them meanwhile. They are the last that the first child needs.
absl::StatusOr<std::vector<CgroupTree>> Init::AwaitCgroups() {
  ASSIGN_OR_RETURN(InitCgroups cgroups, ReceiveCgroups(parameters_.supervisor));
  ASSIGN_OR_RETURN(cgroup_, cgroups::Cgroup::FromDoors(parameters_.hierarchy, cgroups.doors,
                                                       std::move(cgroups.door_fds)));
  ASSIGN_OR_RETURN(first_child_, StartFirstChild(context_));
  return std::move(cgroups.trees);
}

// The payload's limits must not be pid 1's (spike.md 8.1): it takes the cgroup namespace only.
absl::Status Init::BuildSandbox() {
  const pb::SandboxSpec& sandbox = spec_.sandbox();
  RETURN_IF_ERROR(EnterNetwork(sandbox));
  ASSIGN_OR_RETURN(user_namespace_, MakeUserNamespace(context_.user));
  context_.user_namespace = user_namespace_.get();
  RETURN_IF_ERROR(BuildRoot(sandbox, root_template_.get(), [this] { return AwaitCgroups(); },
                            {context_.user, context_.user_namespace}));
  root_template_.Reset();  // it ends with its last descriptor
  FaultPoint("init.start.root_built");
  if (!first_child_) return absl::InternalError("the plan mounts no cgroups");
  RETURN_IF_ERROR(TakeCgroupNamespace(*first_child_));
  return BecomeInit(sandbox);
}

absl::Status Init::SetUp() {
  InitReport ready;
  ready.kind = InitReport::Kind::kReady;
  ready.began_ns = MonotonicNs();
  FaultPoint("init.start.cloned");
  RETURN_IF_ERROR(BuildSandbox());
  sigset_t children;
  ::sigemptyset(&children);
  ::sigaddset(&children, SIGCHLD);
  if (::sigprocmask(SIG_BLOCK, &children, nullptr) != 0) return ErrnoStatus("sigprocmask");
  children_ = Fd(::signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!children_) return ErrnoStatus("signalfd");
  ASSIGN_OR_RETURN(ready.number, UsableJavaHomes());
  ready.takes_entrants =
      parameters_.hierarchy.namespaces_delegate() && spec_.sandbox().capabilities().empty();
  ready.built_ns = MonotonicNs();
  Report(std::move(ready));
  FaultPoint("init.start.ready");
  DropWhatIsDone();
  return absl::OkStatus();
}

// Asks in a child that has become the payload: pid 1 is root and may search directories that the
// payload may not.
absl::StatusOr<uint32_t> Init::UsableJavaHomes() const {
  const auto& homes = spec_.agent().java_homes();
  if (homes.empty()) return 0;
  ASSIGN_OR_RETURN(Pipe answer, MakePipe());
  const pid_t child = ::fork();
  if (child < 0) return ErrnoStatus("fork");
  if (child == 0) {
    if (!BecomePayload(context_.user, context_.sandbox, context_.user_namespace).ok() ||
        !CloseAllBut(answer.write.get()).ok()) {
      ::_exit(1);
    }
    const uint32_t usable = ExecutableJavas(homes);
    ::_exit(::write(answer.write.get(), &usable, sizeof(usable)) == sizeof(usable) ? 0 : 1);
  }
  answer.write.Reset();
  uint32_t usable = 0;
  const ssize_t size = ::read(answer.read.get(), &usable, sizeof(usable));
  ::waitpid(child, nullptr, 0);
  if (size != sizeof(usable))
    return absl::InternalError("cannot check java_home as the task's user");
  return usable;
}

// User, resource limits and the payload's filter are needed for every launch; the program, with all
// secrets, comes with it. context_ refers to both messages, which stay where they are. What the
// sandbox keeps is copied: it lay between what goes, and a page with one string is a page.
void Init::DropWhatIsDone() {
  pb::LaunchSpec done;
  done.Swap(&spec_);
  spec_.set_allocated_user(done.release_user());
  spec_.set_allocated_sandbox(done.release_sandbox());
  pb::SandboxSpec& sandbox = *spec_.mutable_sandbox();
  sandbox.clear_mounts();
  sandbox.clear_masked_paths();
  sandbox.clear_read_only_paths();
  sandbox.clear_init_filter();
  pb::SandboxSpec(sandbox).Swap(&sandbox);
}

void Init::Report(InitReport report) {
  // A supervisor that cannot be told is gone, and so is this sandbox's reason to be.
  if (!SendReport(parameters_.supervisor, report).ok()) ::_exit(1);
}

void Init::Serve() {
  for (;;) {
    std::vector<pollfd> fds = {{starting_ ? starting_->error.get() : -1, POLLIN, 0},
                               {children_.get(), POLLIN, 0},
                               {parameters_.supervisor, POLLIN, 0}};
    const size_t first_session = fds.size();
    sessions_.AddTo(&fds);
    if (::poll(fds.data(), fds.size(), -1) < 0) continue;  // EINTR
    for (size_t i = first_session; i < fds.size(); ++i) {
      if (fds[i].revents != 0) sessions_.OnReadable(fds[i].fd);
    }
    if (fds[0].revents != 0) FinishLaunch();
    if (fds[1].revents != 0) Reap();
    if (fds[2].revents != 0) HandleRequest();
  }
}

void Init::HandleRequest() {
  absl::StatusOr<InitRequest> request = ReceiveRequest(parameters_.supervisor);
  if (absl::IsOutOfRange(request.status())) ::_exit(0);
  const auto kind = request.ok() ? request->kind : InitRequest::Kind::kLaunch;
  switch (kind) {
    case InitRequest::Kind::kLaunch:
      return StartLaunch(std::move(request));
    case InitRequest::Kind::kStartSession:
      return sessions_.Start(*std::move(request));
    case InitRequest::Kind::kKillSession:
      return sessions_.Kill(request->session);
    case InitRequest::Kind::kReleaseSession:
      return sessions_.Release(request->session);
  }
}

void Init::StartLaunch(absl::StatusOr<InitRequest> request) {
  FaultPoint("init.launch.asked");
  absl::Status error = request.status();
  if (error.ok() && payload_ != 0) error = absl::FailedPreconditionError("launch: still running");
  if (error.ok()) {
    absl::StatusOr<StartingPayload> starting = StartChild(*request);
    error = starting.status();
    if (starting.ok()) starting_ = *std::move(starting);
  }
  if (!error.ok()) {
    InitReport failed;
    failed.kind = InitReport::Kind::kLaunchFailed;
    failed.error = error;
    return Report(std::move(failed));
  }
  payload_ = starting_->pid;
  FaultPoint("init.launch.forked");
}

absl::StatusOr<StartingPayload> Init::StartChild(InitRequest& request) {
  RETURN_IF_ERROR(PrepareLaunch(request.program));
  if (request.entrant.pid != 0) {
    absl::StatusOr<StartingPayload> entered = LaunchEntrant(context_, request);
    if (!absl::IsUnavailable(entered.status())) return entered;
  }
  if (first_child_) {
    absl::StatusOr<StartingPayload> first =
        LaunchFirst(*std::exchange(first_child_, std::nullopt), request.packed_program.get());
    if (!absl::IsUnavailable(first.status())) return first;
  }
  return StartPayload(context_, request.program);
}

void Init::FinishLaunch() {
  StartingPayload started = *std::exchange(starting_, std::nullopt);
  InitReport report;
  report.error = ReadLaunchError(started.error.get());
  if (report.error.ok()) {
    report.kind = InitReport::Kind::kLaunched;
    report.payload = std::move(started.pidfd);
  } else {
    report.kind = InitReport::Kind::kLaunchFailed;
    payload_ = 0;  // the child is reaped like any orphan
  }
  Report(std::move(report));
  ReleaseIdleMemory();
}

void Init::Reap() {
  signalfd_siginfo ignored;
  while (::read(children_.get(), &ignored, sizeof(ignored)) > 0) {
  }
  int wait_status;
  for (pid_t pid; (pid = ::waitpid(-1, &wait_status, WNOHANG)) > 0;) {
    if (pid != payload_) {
      sessions_.OnReaped(pid, wait_status);
      continue;
    }
    // The child's end of the pipe is closed now: the supervisor hears of the launch first.
    if (starting_) FinishLaunch();
    if (payload_ != 0) PayloadEnded(wait_status);
  }
}

void Init::PayloadEnded(int wait_status) {
  payload_ = 0;
  FaultPoint("init.exit.reaped");
  InitReport exited;
  exited.kind = InitReport::Kind::kExited;
  exited.number = static_cast<uint32_t>(wait_status);
  Report(std::move(exited));
}

// getppid() is 0 in a new pid namespace whatever happened, so the usual check after prctl for a
// parent that died before it is done with the socket: its end of file ends the wait for the order.
absl::Status DieWithSupervisor() {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return ErrnoStatus("PR_SET_PDEATHSIG");
  return absl::OkStatus();
}

absl::StatusOr<pb::LaunchSpec> ReadSpec(int file) {
  ASSIGN_OR_RETURN(const std::string bytes, ReadAll(file, kMaxSpecBytes), "task description");
  pb::LaunchSpec spec;
  if (!spec.ParseFromString(bytes) ||
      !spec.mutable_sandbox()->ParseFromString(spec.packed_sandbox())) {
    return absl::InvalidArgumentError("task description is garbled");
  }
  std::string().swap(*spec.mutable_packed_sandbox());
  return spec;
}

[[noreturn]] void EndWithSetUpError(int supervisor, const absl::Status& error) {
  InitReport failed;
  failed.kind = InitReport::Kind::kSetupFailed;
  failed.error = error;
  SendReport(supervisor, failed).IgnoreError();  // its end of file tells as well
  ::_exit(1);
}

}  // namespace

void RunInit(const InitParameters& parameters) {
  const absl::Status dies = DieWithSupervisor();
  absl::StatusOr<SandboxOrder> order = ReceiveOrder(parameters.supervisor);
  if (absl::IsOutOfRange(order.status())) ::_exit(0);
  (void)::prctl(PR_SET_NAME, kProcessName);
  absl::Status status = dies.ok() ? order.status() : dies;
  if (!status.ok()) EndWithSetUpError(parameters.supervisor, status);
  absl::StatusOr<pb::LaunchSpec> spec = ReadSpec(order->spec.get());
  if (!spec.ok()) EndWithSetUpError(parameters.supervisor, spec.status());
  Init init(parameters, *std::move(spec), std::move(order->root_template));
  order->spec.Reset();
  status = init.SetUp();
  if (!status.ok()) EndWithSetUpError(parameters.supervisor, status);
  init.Serve();
}

}  // namespace jenkins_agent
