#include "driver/supervisor/start_record.h"

#include <poll.h>
#include <unistd.h>

#include "driver/base/file.h"
#include "driver/base/paths.h"
#include "driver/base/process.h"
#include "driver/base/status.h"
#include "driver/supervisor/protocol.h"

namespace jenkins_agent {
namespace {

absl::Status StarterIsThere(int connection) {
  pollfd plugin = {connection, POLLIN, 0};
  if (::poll(&plugin, 1, 0) > 0 && (plugin.revents & (POLLHUP | POLLERR)) != 0) {
    return absl::CancelledError("the plugin died during the start");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteStartRecord(int task_dir_fd, int connection, const pb::LaunchSpec& spec,
                              const std::vector<std::string>& cgroup_dirs) {
  pb::TaskRecord record;
  record.set_version(kRecordVersion);
  record.set_task_id(spec.task_id());
  record.set_task_dir(spec.task_dir());
  record.set_boot_id(spec.boot_id());
  record.set_supervisor_pid(::getpid());
  ASSIGN_OR_RETURN(const uint64_t start_time, ProcessStartTime(::getpid()));
  record.set_supervisor_start_time(start_time);
  for (const std::string& dir : cgroup_dirs) record.add_cgroup_dirs(dir);
  // Before: the directory may be the next plugin's already. After: it may have looked too early.
  RETURN_IF_ERROR(StarterIsThere(connection));
  RETURN_IF_ERROR(ReplaceFileAt(task_dir_fd, kHandleFile, record.SerializeAsString()));
  return StarterIsThere(connection);
}

}  // namespace jenkins_agent
