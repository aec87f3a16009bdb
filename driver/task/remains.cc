#include "driver/task/remains.h"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "cgroups/cgroup.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/paths.h"
#include "driver/base/status.h"
#include "driver/task/record.h"

namespace jenkins_agent {
namespace {

constexpr std::chrono::milliseconds kKillLimit{5000};

// PDEATHSIG ends the sandbox with its supervisor.
absl::Status KillSupervisor(const pb::TaskRecord& record) {
  const Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, record.supervisor_pid(), 0)));
  // Checked after the open: from here on the descriptor cannot mean another process.
  if (!pidfd || !SupervisorAlive(record)) return absl::OkStatus();
  if (::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0) != 0 && errno != ESRCH) {
    return ErrnoStatus(absl::StrCat("kill supervisor ", record.supervisor_pid()));
  }
  pollfd end = {pidfd.get(), POLLIN, 0};
  if (::poll(&end, 1, static_cast<int>(kKillLimit.count())) == 0) {
    return absl::DeadlineExceededError(absl::StrCat("supervisor ", record.supervisor_pid(),
                                                    " survived SIGKILL for ",
                                                    kKillLimit.count() / 1000, " s"));
  }
  return absl::OkStatus();
}

absl::Status RemoveCgroups(const pb::TaskRecord& record) {
  if (record.cgroup_dirs().empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const cgroups::Hierarchy hierarchy, cgroups::Hierarchy::Detect());
  ASSIGN_OR_RETURN(
      cgroups::Cgroup cgroup,
      cgroups::Cgroup::Open(hierarchy, {record.cgroup_dirs().begin(), record.cgroup_dirs().end()}));
  RETURN_IF_ERROR(cgroup.KillAll(kKillLimit));
  return cgroup.Remove();
}

}  // namespace

pb::ExitRecord EndAsLost(const pb::TaskRecord& record) {
  const absl::Status removed = RemoveCgroups(record);
  timespec now;
  ::clock_gettime(CLOCK_REALTIME, &now);
  pb::ExitRecord exit;
  exit.set_version(kRecordVersion);
  exit.set_task_id(record.task_id());
  exit.set_exit_code(kUnknownExitCode);
  exit.set_message(
      absl::StrCat("the task's supervisor (pid ", record.supervisor_pid(),
                   ") was killed; the sandbox ended with it and the exit code is not known",
                   removed.ok() ? "" : absl::StrCat("; clean-up: ", removed.message())));
  exit.set_started_at_ns(record.started_at_ns());
  exit.set_finished_at_ns(now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec);
  // Best effort: without the file a later plugin comes to the same conclusion again.
  WriteFileAtomic(absl::StrCat(record.task_dir(), "/", kExitFile), exit.SerializeAsString())
      .IgnoreError();
  return exit;
}

absl::Status RemoveRemains(const pb::TaskRecord& record) {
  RETURN_IF_ERROR(KillSupervisor(record));
  RETURN_IF_ERROR(RemoveCgroups(record));
  return RemoveTree(record.task_dir());
}

}  // namespace jenkins_agent
