#include "driver/task/remains.h"

#include <fcntl.h>
#include <signal.h>

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cgroups/cgroup.h"
#include "driver/base/clock.h"
#include "driver/base/fault.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/paths.h"
#include "driver/base/pidfd.h"
#include "driver/base/process.h"
#include "driver/base/status.h"
#include "driver/supervisor/client.h"
#include "driver/task/record.h"

namespace jenkins_agent {
namespace {

constexpr std::chrono::milliseconds kKillLimit{5000};
constexpr std::chrono::milliseconds kAskLimit{2000};
constexpr std::chrono::milliseconds kDyingLimit{2000};

// Empty when the supervisor is gone.
Fd OpenSupervisor(const pb::TaskRecord& record) {
  absl::StatusOr<Fd> pidfd = OpenPidfd(record.supervisor_pid());
  // Checked after the open: from here on the descriptor cannot mean another process.
  return pidfd.ok() && SupervisorAlive(record) ? *std::move(pidfd) : Fd();
}

absl::StatusOr<cgroups::Cgroup> OpenCgroup(const pb::TaskRecord& record) {
  ASSIGN_OR_RETURN(const cgroups::Hierarchy hierarchy, cgroups::Hierarchy::Detect());
  return cgroups::Cgroup::Open(hierarchy,
                               {record.cgroup_dirs().begin(), record.cgroup_dirs().end()});
}

absl::Status RemoveCgroups(const pb::TaskRecord& record) {
  if (record.cgroup_dirs().empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const cgroups::Cgroup cgroup, OpenCgroup(record));
  RETURN_IF_ERROR(cgroup.KillAll(kKillLimit));
  return cgroup.Remove();
}

// What the supervisor says of itself, for a directory whose handle.pb says nothing of use.
absl::StatusOr<pb::TaskRecord> RecordOfSupervisor(const std::string& task_dir) {
  ASSIGN_OR_RETURN(const pb::TaskStatus status, AskSupervisor(task_dir, kAskLimit));
  pb::TaskRecord record;
  record.set_task_dir(task_dir);
  record.set_supervisor_pid(status.supervisor_pid());
  ASSIGN_OR_RETURN(const uint64_t start_time, ProcessStartTime(status.supervisor_pid()));
  record.set_supervisor_start_time(start_time);
  *record.mutable_cgroup_dirs() = status.cgroup_dirs();
  return record;
}

}  // namespace

// PDEATHSIG ends the sandbox with its supervisor.
absl::Status KillSupervisor(const pb::TaskRecord& record) {
  const Fd pidfd = OpenSupervisor(record);
  if (!pidfd) return absl::OkStatus();
  const std::string name = absl::StrCat("supervisor ", record.supervisor_pid());
  RETURN_IF_ERROR(SignalPidfd(pidfd.get(), SIGKILL), name);
  if (AwaitPidfd(pidfd.get(), kKillLimit)) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat(name, " survived SIGKILL for ", kKillLimit.count() / 1000, " s"));
}

bool SupervisorGone(const pb::TaskRecord& record) {
  const Fd pidfd = OpenSupervisor(record);
  return !pidfd || AwaitPidfd(pidfd.get(), kDyingLimit);
}

pb::ExitRecord EndAsLost(const pb::TaskRecord& record) {
  const absl::Status removed = RemoveCgroups(record);
  pb::ExitRecord exit;
  exit.set_version(kRecordVersion);
  exit.set_task_id(record.task_id());
  exit.set_exit_code(kUnknownExitCode);
  exit.set_message(
      absl::StrCat("the task's supervisor (pid ", record.supervisor_pid(),
                   ") was killed; the sandbox ended with it and the exit code is not known",
                   removed.ok() ? "" : absl::StrCat("; clean-up: ", removed.message())));
  exit.set_started_at_ns(record.started_at_ns());
  exit.set_finished_at_ns(RealtimeNs());
  // Best effort: without the file a later plugin comes to the same conclusion again.
  WriteFileAtomic(absl::StrCat(record.task_dir(), "/", kExitFile), exit.SerializeAsString())
      .IgnoreError();
  return exit;
}

void MarkForRemoval(const std::string& task_dir) {
  OpenFile(absl::StrCat(task_dir, "/", kRemovalMark), O_WRONLY | O_CREAT | O_NOFOLLOW, 0600)
      .status()
      .IgnoreError();
}

absl::Status RemoveRemains(const pb::TaskRecord& record) {
  MarkForRemoval(record.task_dir());
  FaultPoint("plugin.destroy.marked");
  RETURN_IF_ERROR(KillSupervisor(record));
  FaultPoint("plugin.destroy.supervisor_gone");
  RETURN_IF_ERROR(RemoveCgroups(record));
  FaultPoint("plugin.destroy.cgroups_removed");
  return RemoveTree(record.task_dir());
}

absl::Status RemoveFromDisk(const std::string& task_dir, const StatePaths& paths,
                            absl::string_view boot_id) {
  const absl::StatusOr<std::string> bytes = ReadFile(absl::StrCat(task_dir, "/", kHandleFile));
  if (bytes.ok()) {
    const absl::StatusOr<pb::TaskRecord> record = DecodeRecord(*bytes, paths, boot_id);
    if (record.ok() && record->task_dir() == task_dir) return RemoveRemains(*record);
  }
  if (const auto record = RecordOfSupervisor(task_dir); record.ok()) return RemoveRemains(*record);
  return RemoveTree(task_dir);
}

absl::Status RemoveEmptyCgroups(const pb::TaskRecord& record) {
  if (record.cgroup_dirs().empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const cgroups::Cgroup cgroup, OpenCgroup(record));
  const absl::StatusOr<std::vector<pid_t>> members = cgroup.Members();
  if (members.ok() && !members->empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(members->size(), " processes are still inside"));
  }
  return cgroup.Remove();
}

}  // namespace jenkins_agent
