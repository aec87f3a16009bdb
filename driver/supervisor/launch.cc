#include "driver/supervisor/launch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "driver/base/fault.h"
#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/pidfd.h"
#include "driver/base/sandbox_paths.h"
#include "driver/base/status.h"
#include "driver/base/utf8.h"
#include "driver/sandbox/privileges.h"

namespace jenkins_agent {
namespace {

constexpr char kDefaultPath[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
// Nomad's exec driver looks for a bare name in the task's local directory too.
constexpr char kLocalDir[] = "/local";
constexpr size_t kMaxErrorText = 4000;
constexpr int kExitLaunchFailed = 125;

// The directory belongs to root and carries the payload's group (setgid): the payload can read the
// file and can neither replace nor remove it.
absl::Status WriteArgumentsFile(const std::string& content) {
  if (::unlink(kArgumentsFile) != 0 && errno != ENOENT) {
    return ErrnoStatus(absl::StrCat("unlink ", kArgumentsFile));
  }
  if (content.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Fd file, OpenFile(kArgumentsFile, O_WRONLY | O_CREAT | O_EXCL, 0440));
  return Annotate(WriteAll(file.get(), content), kArgumentsFile);
}

// ---- the child, in order ----

// A protected supervisor (oom_score_adj below 0) must not make its payload protected.
void ResetOomScore() {
  const absl::StatusOr<Fd> file = OpenFile("/proc/self/oom_score_adj", O_WRONLY);
  if (file.ok()) WriteAll(file->get(), "0").IgnoreError();  // best effort: lowering may be refused
}

void ResetSignals() {
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) ::sigaction(signal, &action, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

absl::Status MakeDirectories(const pb::ProgramSpec& program) {
  for (const std::string& path : program.make_dirs()) {
    RETURN_IF_ERROR(MakeDirs(path), "as the task's user");
  }
  return absl::OkStatus();
}

absl::Status ChangeDirectory(const std::string& work_dir) {
  if (!work_dir.empty() && ::chdir(work_dir.c_str()) != 0) {
    return ErrnoStatus(absl::StrCat("work_dir ", work_dir));
  }
  return absl::OkStatus();
}

std::vector<std::string> CandidatePaths(const pb::ProgramSpec& program) {
  const std::string& name = program.argv(0);
  if (absl::StrContains(name, '/')) return {name};
  absl::string_view path = kDefaultPath;
  for (const std::string& variable : program.env()) {
    absl::string_view value = variable;
    if (absl::ConsumePrefix(&value, "PATH=")) path = value;
  }
  std::vector<std::string> candidates;
  for (absl::string_view dir : absl::StrSplit(path, ':', absl::SkipEmpty())) {
    candidates.push_back(absl::StrCat(dir, "/", name));
  }
  candidates.push_back(absl::StrCat(kLocalDir, "/", name));
  return candidates;
}

std::vector<char*> Pointers(const google::protobuf::RepeatedPtrField<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& string : strings) pointers.push_back(const_cast<char*>(string.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// Returns only on failure. As execvp(3): a candidate that exists and is refused beats "not found".
absl::Status Execute(const pb::ProgramSpec& program) {
  const std::vector<char*> argv = Pointers(program.argv());
  const std::vector<char*> env = Pointers(program.env());
  int error = ENOENT;
  std::string failed = program.argv(0);
  for (const std::string& path : CandidatePaths(program)) {
    ::execve(path.c_str(), argv.data(), env.data());
    if (errno == ENOENT || errno == ENOTDIR) continue;
    if (error == ENOENT) {
      error = errno;
      failed = path;
    }
    if (errno != EACCES) break;
  }
  return ErrnoStatus(absl::StrCat("exec ", failed), error);
}

}  // namespace

absl::Status CloseAllBut(int kept_fd) {
  const auto kept = static_cast<unsigned>(kept_fd);
  if ((kept > 3 && ::syscall(SYS_close_range, 3u, kept - 1, 0u) != 0) ||
      ::syscall(SYS_close_range, kept + 1, ~0u, 0u) != 0) {
    return ErrnoStatus("close_range");
  }
  return absl::OkStatus();
}

absl::Status ConnectPayloadStdio(const LaunchContext& context) {
  ASSIGN_OR_RETURN(const Fd null, OpenFile("/dev/null", O_RDONLY));
  // dup2 clears CLOEXEC of the copy; all originals are above 2.
  if (::dup2(null.get(), STDIN_FILENO) < 0 || ::dup2(context.stdout_fd, STDOUT_FILENO) < 0 ||
      ::dup2(context.stderr_fd, STDERR_FILENO) < 0) {
    return ErrnoStatus("connect stdin, stdout, stderr");
  }
  return absl::OkStatus();
}

absl::Status BecomeTaskProcess(const LaunchContext& context,
                               absl::FunctionRef<absl::Status()> connect_stdio, int error_fd) {
  // In a CPU cgroup a new session is no new group for the scheduler (sched(7), autogroup): on a
  // busy node each change of groups costs a turn at the CPU.
  if (::setsid() < 0) return ErrnoStatus("setsid");
  ResetOomScore();
  RETURN_IF_ERROR(BecomePayload(context.user, context.sandbox, context.user_namespace));
  RETURN_IF_ERROR(connect_stdio());
  RETURN_IF_ERROR(CloseAllBut(error_fd));
  ResetSignals();
  return absl::OkStatus();
}

absl::Status ExecuteProgram(const pb::ProgramSpec& program) {
  RETURN_IF_ERROR(MakeDirectories(program));
  RETURN_IF_ERROR(ChangeDirectory(program.work_dir()));
  FaultPoint("payload.launch.before_exec");
  return Execute(program);
}

absl::Status BecomeProgram(const LaunchContext& context, const pb::ProgramSpec& program,
                           bool inside, absl::FunctionRef<absl::Status()> connect_stdio,
                           int error_fd) {
  if (!inside) RETURN_IF_ERROR(context.cgroup.Enter());
  RETURN_IF_ERROR(BecomeTaskProcess(context, connect_stdio, error_fd));
  return ExecuteProgram(program);
}

[[noreturn]] void EndWithLaunchError(const absl::Status& error, int error_fd) {
  std::string text(1, static_cast<char>(error.code()));
  text += std::string(error.message().substr(0, kMaxErrorText));
  WriteAll(error_fd, text).IgnoreError();  // nobody else could be told
  ::_exit(kExitLaunchFailed);
}

namespace {

[[noreturn]] void RunChild(const LaunchContext& context, const pb::ProgramSpec& program,
                           bool inside, int error_fd) {
  const auto connect = [&] { return ConnectPayloadStdio(context); };
  EndWithLaunchError(BecomeProgram(context, program, inside, connect, error_fd), error_fd);
}

}  // namespace

absl::Status PrepareLaunch(const pb::ProgramSpec& program) {
  if (program.argv().empty()) return absl::InvalidArgumentError("no program to start");
  return WriteArgumentsFile(program.arguments_file());
}

absl::StatusOr<StartingPayload> StartPayload(const LaunchContext& context,
                                             const pb::ProgramSpec& program) {
  ASSIGN_OR_RETURN(SocketPair error, MakeSocketPair(SOCK_SEQPACKET));
  ASSIGN_OR_RETURN(const cgroups::Cgroup::Forked forked, context.cgroup.Fork());
  if (forked.pid == 0) RunChild(context, program, forked.inside, error.second.get());
  StartingPayload payload;
  payload.pid = forked.pid;
  absl::StatusOr<Fd> pidfd = OpenPidfd(payload.pid);
  if (!pidfd.ok()) {
    ::kill(payload.pid, SIGKILL);  // ours and not reaped yet; pid 1 reaps it as any other child
    return pidfd.status();
  }
  payload.pidfd = *std::move(pidfd);
  payload.error = std::move(error.first);
  return payload;
}

absl::Status ReadLaunchError(int error_fd) {
  const absl::StatusOr<Packet> packet = ReceivePacket(error_fd);
  return packet.ok() ? ParseLaunchError(packet->data) : absl::OkStatus();
}

absl::Status ParseLaunchError(absl::string_view text) {
  if (text.empty()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(text.front()), ToUtf8(text.substr(1)));
}

}  // namespace jenkins_agent
