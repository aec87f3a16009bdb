#include "driver/sandbox/device_tree.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "driver/base/status.h"
#include "driver/sandbox/mount_fd.h"

namespace jenkins_agent {
namespace {

constexpr uint64_t kDeviceTreeBytes = 64 * 1024;

struct Node {
  const char* name;
  unsigned major;
  unsigned minor;
};

// The numbers are fixed for ever (Documentation/admin-guide/devices.txt).
constexpr Node kNodes[] = {{"null", 1, 3},   {"zero", 1, 5},    {"full", 1, 7},
                           {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};

struct Link {
  const char* name;
  const char* text;
};

constexpr Link kLinks[] = {{"fd", "/proc/self/fd"},
                           {"stdin", "/proc/self/fd/0"},
                           {"stdout", "/proc/self/fd/1"},
                           {"stderr", "/proc/self/fd/2"},
                           {"ptmx", "pts/ptmx"}};

constexpr const char* kDirectories[] = {"pts", "shm", "mqueue"};

absl::Status Fill(int dir_fd) {
  for (const Node& node : kNodes) {
    if (::mknodat(dir_fd, node.name, S_IFCHR | 0666, ::makedev(node.major, node.minor)) != 0) {
      return ErrnoStatus(absl::StrCat("make device ", node.name));
    }
  }
  for (const Link& link : kLinks) {
    if (::symlinkat(link.text, dir_fd, link.name) != 0) {
      return ErrnoStatus(absl::StrCat("make link ", link.name));
    }
  }
  for (const char* directory : kDirectories) {
    if (::mkdirat(dir_fd, directory, 0755) != 0) {
      return ErrnoStatus(absl::StrCat("make directory ", directory));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Fd> MakeDeviceTree(bool read_only) {
  ASSIGN_OR_RETURN(Fd tree,
                   NewTmpfs(kDeviceTreeBytes, 0755, 0, 0, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
  RETURN_IF_ERROR(Fill(tree.get()));
  if (read_only) RETURN_IF_ERROR(SetAttributes(tree.get(), MOUNT_ATTR_RDONLY));
  return tree;
}

}  // namespace jenkins_agent
