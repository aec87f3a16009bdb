// How processes come into a task's cgroups without waiting for an RCU grace period.
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroups/cgroup.h"
#include "driver/base/fault.h"
#include "driver/base/fd.h"
#include "driver/base/status.h"

namespace jenkins_agent::cgroups {
namespace {

// Linux 5.7. As fork: returns twice; the caller is single-threaded, so no lock can be held.
pid_t CloneInto(int cgroup_fd) {
  clone_args arguments = {};
  arguments.flags = CLONE_INTO_CGROUP;
  arguments.exit_signal = SIGCHLD;
  arguments.cgroup = static_cast<uint64_t>(cgroup_fd);
  return static_cast<pid_t>(::syscall(SYS_clone3, &arguments, sizeof(arguments)));
}

// The child: its namespace's root is where it was born. It waits until it is no longer needed.
[[noreturn]] void HoldNamespace(int said, int released) {
  const int error = ::unshare(CLONE_NEWCGROUP) == 0 ? 0 : errno;
  if (::write(said, &error, sizeof(error)) == sizeof(error)) {
    char nothing;
    (void)!::read(released, &nothing, 1);
  }
  ::_exit(0);
}

absl::Status JoinNamespaceOf(pid_t holder, int said) {
  int error = 0;
  if (::read(said, &error, sizeof(error)) != sizeof(error)) {
    return absl::InternalError("the holder of the cgroup namespace died");
  }
  if (error != 0) return ErrnoStatus("unshare cgroup namespace", error);
  const Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, holder, 0)));
  if (!pidfd) return ErrnoStatus("pidfd_open");
  if (::setns(pidfd.get(), CLONE_NEWCGROUP) != 0) return ErrnoStatus("setns cgroup namespace");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Cgroup::Forked> Cgroup::Fork() const {
  ASSIGN_OR_RETURN(const int directory, clone_into_fd());
  if (directory >= 0) {
    const pid_t pid = CloneInto(directory);
    if (pid >= 0) return Forked{.pid = pid, .inside = true};
  }
  const pid_t pid = ::fork();
  if (pid < 0) return ErrnoStatus("fork");
  return Forked{.pid = pid, .inside = false};
}

absl::Status Cgroup::UnshareNamespace() const {
  if (!IsV2()) {
    RETURN_IF_ERROR(Enter());
    FaultPoint("init.start.in_cgroup");
    if (::unshare(CLONE_NEWCGROUP) != 0) return ErrnoStatus("unshare cgroup namespace");
    return Leave();
  }
  ASSIGN_OR_RETURN(Pipe said, MakePipe());
  ASSIGN_OR_RETURN(Pipe released, MakePipe());
  ASSIGN_OR_RETURN(const int directory, clone_into_fd());
  const pid_t holder = CloneInto(directory);
  if (holder < 0) return ErrnoStatus("clone into the cgroup");
  if (holder == 0) {
    said.read.Reset();
    released.write.Reset();
    HoldNamespace(said.write.get(), released.read.get());
  }
  said.write.Reset();
  const absl::Status joined = JoinNamespaceOf(holder, said.read.get());
  released.write.Reset();
  while (::waitpid(holder, nullptr, 0) < 0 && errno == EINTR) {
  }
  return joined;
}

}  // namespace jenkins_agent::cgroups
