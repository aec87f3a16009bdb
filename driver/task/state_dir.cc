#include "driver/task/state_dir.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "driver/task/disk_space.h"

namespace jenkins_agent {
namespace {

std::string Existing(std::string path) {
  while (path.size() > 1 && ::access(path.c_str(), F_OK) != 0 && errno == ENOENT) {
    path.erase(std::max<size_t>(path.rfind('/'), 1));
  }
  return path;
}

}  // namespace

std::string StateDirTrouble(const std::string& state_dir) {
  const std::string existing = Existing(state_dir);
  // Root is refused by access(2) only on a read-only file system.
  if (::access(existing.c_str(), W_OK) != 0) {
    return errno == EROFS ? "is on a read-only file system" : "cannot be written";
  }
  return CheckDiskSpace("state_dir", existing).ok() ? "" : "is on a full disk";
}

}  // namespace jenkins_agent
