#include "driver/task/state_dir.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "driver/base/recoverable.h"
#include "driver/task/disk_space.h"

namespace jenkins_agent {
namespace {

std::string Existing(std::string path) {
  while (path.size() > 1 && ::access(path.c_str(), F_OK) != 0 && errno == ENOENT) {
    path.erase(std::max<size_t>(path.rfind('/'), 1));
  }
  return path;
}

// But for the room.
std::string WritingTrouble(const std::string& state_dir, const std::string& existing) {
  struct stat info = {};
  const bool is_there = ::stat(existing.c_str(), &info) == 0;
  if (is_there ? !S_ISDIR(info.st_mode) : errno == ENOTDIR) return "is no directory";
  // Root is refused by access(2) only on a read-only file system.
  if (::access(existing.c_str(), W_OK) != 0) {
    return errno == EROFS ? "is on a read-only file system" : "cannot be written";
  }
  // Another user's could be exchanged under the plugin's records.
  if (existing == state_dir && info.st_uid != 0) return "belongs to another user than root";
  return "";
}

}  // namespace

std::string StateDirTrouble(const std::string& state_dir) {
  const std::string existing = Existing(state_dir);
  if (std::string trouble = WritingTrouble(state_dir, existing); !trouble.empty()) return trouble;
  return CheckDiskSpace("state_dir", existing).ok() ? "" : "is on a full disk";
}

absl::Status CheckStateDir(const std::string& state_dir) {
  const std::string trouble = WritingTrouble(state_dir, Existing(state_dir));
  if (trouble.empty()) return absl::OkStatus();
  return MakeRecoverable(
      absl::FailedPreconditionError(absl::StrCat("state_dir ", state_dir, " ", trouble)));
}

}  // namespace jenkins_agent
