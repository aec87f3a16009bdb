#include "driver/tools/plugin_owner.h"

#include <sys/stat.h>

#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"

namespace jenkins_agent {
namespace {

constexpr size_t kMaxLocksBytes = 4 << 20;

std::optional<pid_t> ToPid(absl::string_view text) {
  pid_t pid = 0;
  return absl::SimpleAtoi(text, &pid) && pid > 0 ? std::optional<pid_t>(pid) : std::nullopt;
}

}  // namespace

// "1: FLOCK  ADVISORY  WRITE 1234 08:01:131 0 EOF"; one that is waited for has "->" as field 2.
std::optional<pid_t> FlockHolder(absl::string_view locks, uint64_t inode) {
  for (absl::string_view line : absl::StrSplit(locks, '\n')) {
    const std::vector<absl::string_view> fields =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    if (fields.size() < 6 || fields[1] != "FLOCK") continue;
    const std::vector<absl::string_view> file = absl::StrSplit(fields[5], ':');
    uint64_t number = 0;
    if (!absl::SimpleAtoi(file.back(), &number) || number != inode) continue;
    return ToPid(fields[4]);
  }
  return std::nullopt;
}

std::optional<pid_t> PluginOwner(const StatePaths& paths) {
  struct stat lock = {};
  if (::stat(paths.OwnerLock().c_str(), &lock) != 0) return std::nullopt;
  const absl::StatusOr<std::string> locks = ReadFile("/proc/locks", kMaxLocksBytes);
  const absl::StatusOr<std::string> written = ReadFile(paths.OwnerLock(), 64);
  if (!locks.ok() || !written.ok()) return std::nullopt;
  // The numbers of inodes repeat from file system to file system: the owner also wrote its pid.
  const std::optional<pid_t> holder = FlockHolder(*locks, lock.st_ino);
  return holder == ToPid(*written) ? holder : std::nullopt;
}

}  // namespace jenkins_agent
