// exit.pb of a task directory. Written before anyone is told of the exit.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

absl::Status WriteExitRecord(int task_dir_fd, const pb::ExitRecord& record);
// Empty when the task has not ended, or its supervisor died before it could write.
absl::StatusOr<std::optional<pb::ExitRecord>> ReadExitRecord(const std::string& task_dir);

}  // namespace jenkins_agent
