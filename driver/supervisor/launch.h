// Starts the payload: runs in pid 1 of the sandbox, and in the child that it forks.
#pragma once

#include <sys/types.h>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cgroups/cgroup.h"
#include "driver/base/fd.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// What every launch in one sandbox shares.
struct LaunchContext {
  const pb::SandboxSpec& sandbox;
  const pb::UserSpec& user;
  const cgroups::Cgroup& cgroup;
  int stdout_fd;
  int stderr_fd;
  int user_namespace = -1;  // of MakeUserNamespace(); -1: none
};

// A child on its way to exec.
struct StartingPayload {
  pid_t pid = 0;
  Fd pidfd;
  Fd error;  // SEQPACKET; end of file: exec succeeded; else the error (ReadLaunchError)
};

// What has to be there before a child may execute the program: writes the arguments file anew.
// Also refuses a program without a name.
absl::Status PrepareLaunch(const pb::ProgramSpec& program);
// Forks the child. Always fork, never vfork: processes of the payload's user may stop the child
// before its exec, and a vforking parent would sleep with it (spike.md 0.2). The child's fate is
// told by StartingPayload::error.
absl::StatusOr<StartingPayload> StartPayload(const LaunchContext& context,
                                             const pb::ProgramSpec& program);

// OK when the child has exec'd (or died without a word: its wait status tells then).
absl::Status ReadLaunchError(int error_fd);
absl::Status ParseLaunchError(absl::string_view text);

// ---- the child, for whatever is launched ----

// Closes everything above 2 but `kept_fd` (> 2). To be called before the first path that the job
// chose is looked up: pid 1 holds directories of the host (cgroups), and "/proc/self/fd/N" of one,
// also behind a link, would lead out of the sandbox for good (CVE-2024-21626).
absl::Status CloseAllBut(int kept_fd);
// A session of its own, the task's user and filter, then `connect_stdio` as the task's user. Of all
// other descriptors only error_fd, a CLOEXEC one, stays. The caller is in the task's cgroups.
absl::Status BecomeTaskProcess(const LaunchContext& context,
                               absl::FunctionRef<absl::Status()> connect_stdio, int error_fd);
// What the payload's stdin, stdout and stderr are.
absl::Status ConnectPayloadStdio(const LaunchContext& context);
// Of a task's process. Returns only on failure.
absl::Status ExecuteProgram(const pb::ProgramSpec& program);
// All of it: joins the task's cgroups, unless the child is `inside`, and so on to the exec.
absl::Status BecomeProgram(const LaunchContext& context, const pb::ProgramSpec& program,
                           bool inside, absl::FunctionRef<absl::Status()> connect_stdio,
                           int error_fd);
// Says the error in the form that ParseLaunchError reads, and ends the process.
[[noreturn]] void EndWithLaunchError(const absl::Status& error, int error_fd);

}  // namespace jenkins_agent
