// passwd and group of a sandbox: the host's, with lines for the task's user. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace jenkins_agent {

// The passwd file in which `uid` has home `home`. The JVM takes user.home from here, not from HOME,
// and the host's home directory does not exist in the sandbox. A missing line is appended, under
// `name`, or "task-<uid>" when that is empty or another user's.
std::string PasswdWithUser(absl::string_view passwd, absl::string_view name, uint32_t uid,
                           uint32_t gid, absl::string_view home);

// The group file with a line for `gid`.
std::string GroupWithGroup(absl::string_view group, absl::string_view name, uint32_t gid);

}  // namespace jenkins_agent
