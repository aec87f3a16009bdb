// TaskRecord on its way to Nomad (driver_state) and to handle.pb, and back after a restart.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/base/paths.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// Version of TaskRecord that this build writes and the newest that it reads.
inline constexpr uint32_t kRecordVersion = 1;

// Decodes bytes that Nomad or the disk kept. Everything in them is checked: version, task id, that
// the directory is the one `paths` gives to this id. `boot_id`: of now; FailedPrecondition when the
// record comes from an earlier boot, whose processes are gone.
absl::StatusOr<pb::TaskRecord> DecodeRecord(absl::string_view bytes, const StatePaths& paths,
                                            absl::string_view boot_id);

// /proc/sys/kernel/random/boot_id, without the newline.
absl::StatusOr<std::string> BootId();

// Start time of a process in clock ticks since boot (/proc/PID/stat field 22, proc(5)); with the
// pid it names a process for good. NotFound when it is gone or a zombie.
absl::StatusOr<uint64_t> ProcessStartTime(pid_t pid);

// The task's supervisor still runs (same pid, same start time).
bool SupervisorAlive(const pb::TaskRecord& record);

}  // namespace jenkins_agent
