// passwd and group of a sandbox: the host's or an image's, with lines for the task's user; and who
// is in them. Pure: an image's may hold anything.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace jenkins_agent {

// The passwd file in which `uid` has home `home`. The JVM takes user.home from here, not from HOME,
// and the host's home directory does not exist in the sandbox. A missing line is appended, under
// `name`, or "task-<uid>" when that is empty or another user's.
std::string PasswdWithUser(absl::string_view passwd, absl::string_view name, uint32_t uid,
                           uint32_t gid, absl::string_view home);

// The group file with a line for `gid`.
std::string GroupWithGroup(absl::string_view group, absl::string_view name, uint32_t gid);

struct PasswdEntry {
  std::string name;
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::string home;
};

// By name, else by number: as docker reads an image's USER. Lines that are none of passwd(5) are
// passed over; the first that fits counts.
std::optional<PasswdEntry> FindUser(absl::string_view passwd, absl::string_view name_or_uid);
std::optional<uint32_t> FindGroup(absl::string_view group, absl::string_view name_or_gid);
// The groups that name the user as a member, at most 1024.
std::vector<uint32_t> GroupsWithMember(absl::string_view group, absl::string_view user_name);

}  // namespace jenkins_agent
