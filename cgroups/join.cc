// How processes come into a task's cgroups without waiting for an RCU grace period.
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cgroups/cgroup.h"
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

absl::Status UnshareNamespace() {
  if (::unshare(CLONE_NEWCGROUP) != 0) return ErrnoStatus("unshare cgroup namespace");
  return absl::OkStatus();
}

absl::Status JoinNamespaceOf(int pidfd) {
  if (::setns(pidfd, CLONE_NEWCGROUP) != 0) return ErrnoStatus("join cgroup namespace");
  return absl::OkStatus();
}

}  // namespace jenkins_agent::cgroups
