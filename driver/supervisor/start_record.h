// The first handle.pb of a task, written by its supervisor before it makes anything.
//
// The plugin's own comes only when the sandbox stands. Should supervisor and plugin both die
// before, this one tells the next plugin whom to end and what to remove.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// Cancelled when the plugin at the other end of `connection` is gone; nothing may be made then.
// Once this is OK, a later plugin finds the record: it owns the state directory only after the
// earlier one's death, and the record was there before that.
absl::Status WriteStartRecord(int task_dir_fd, int connection, const pb::LaunchSpec& spec,
                              const std::vector<std::string>& cgroup_dirs);

}  // namespace jenkins_agent
