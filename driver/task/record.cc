#include "driver/task/record.h"

#include "absl/strings/str_cat.h"

namespace jenkins_agent {

absl::StatusOr<pb::TaskRecord> DecodeRecord(absl::string_view bytes, const StatePaths& paths,
                                            absl::string_view boot_id) {
  pb::TaskRecord record;
  if (!record.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
      record.version() == 0 || record.task_id().empty()) {
    return absl::DataLossError("driver_state is damaged or was not written by this driver");
  }
  if (record.version() > kRecordVersion) {
    return absl::FailedPreconditionError(absl::StrCat("driver_state has version ", record.version(),
                                                      ", this driver knows ", kRecordVersion,
                                                      "; a newer driver started the task"));
  }
  if (record.task_dir() != paths.Task(record.task_id())) {
    return absl::FailedPreconditionError(
        absl::StrCat("driver_state names the directory '", record.task_dir(),
                     "', which is not this task's under state_dir = ", paths.root()));
  }
  if (record.boot_id() != boot_id) {
    return absl::FailedPreconditionError(
        "the host was rebooted since; the task's processes are gone");
  }
  return record;
}

bool SupervisorAlive(const pb::TaskRecord& record) {
  if (record.supervisor_pid() <= 0) return false;
  const absl::StatusOr<uint64_t> start_time = ProcessStartTime(record.supervisor_pid());
  return start_time.ok() && *start_time == record.supervisor_start_time();
}

}  // namespace jenkins_agent
