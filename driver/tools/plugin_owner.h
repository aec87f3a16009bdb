// Whether a plugin runs with a state directory.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
#include "driver/base/paths.h"

namespace jenkins_agent {

// The plugin that holds the directory's lock; empty: none does. Only looks: taking the lock, even
// for a moment, would refuse a plugin that starts just then.
std::optional<pid_t> PluginOwner(const StatePaths& paths);

// The pid that holds a flock(2) on this inode, from /proc/locks (proc(5)); pure.
std::optional<pid_t> FlockHolder(absl::string_view locks, uint64_t inode);

}  // namespace jenkins_agent
