// TaskRecord on its way to Nomad (driver_state) and to handle.pb, and back after a restart.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/base/paths.h"
#include "driver/base/process.h"
#include "driver/supervisor/protocol.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// Decodes bytes that Nomad or the disk kept. Everything in them is checked: version, task id, that
// the directory is the one `paths` gives to this id. `boot_id`: of now; FailedPrecondition when the
// record comes from an earlier boot, whose processes are gone.
absl::StatusOr<pb::TaskRecord> DecodeRecord(absl::string_view bytes, const StatePaths& paths,
                                            absl::string_view boot_id);

// The task's supervisor still runs (same pid, same start time).
bool SupervisorAlive(const pb::TaskRecord& record);

}  // namespace jenkins_agent
