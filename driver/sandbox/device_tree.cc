#include "driver/sandbox/device_tree.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "driver/base/status.h"
#include "driver/sandbox/mount_fd.h"
#include "driver/sandbox/user_namespace.h"

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

// The tree is ours alone and new, so nothing in it can be a link but what Fill made.
absl::Status MakeDevice(int dir_fd, const pb::DeviceSpec& device, const pb::UserSpec& user) {
  ASSIGN_OR_RETURN(const auto parts, SplitTarget(absl::StrCat("/", device.path())));
  ASSIGN_OR_RETURN(const Fd parent, MakeDirectoryInRoot(dir_fd, parts.first, Links::kRefuse));
  const mode_t type = device.block() ? S_IFBLK : S_IFCHR;
  const char* name = parts.second.c_str();
  if (::mknodat(parent.get(), name, type | device.mode(),
                ::makedev(device.major_number(), device.minor_number())) != 0) {
    return ErrnoStatus("make");
  }
  if (::fchownat(parent.get(), name, HostId(user, device.uid()), HostId(user, device.gid()),
                 AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus("set owner");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Fd> MakeDeviceTree(const pb::MountSpec& spec, const pb::UserSpec& user) {
  ASSIGN_OR_RETURN(Fd tree,
                   NewTmpfs(kDeviceTreeBytes, 0755, 0, 0, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
  RETURN_IF_ERROR(Fill(tree.get()));
  for (const pb::DeviceSpec& device : spec.devices()) {
    RETURN_IF_ERROR(MakeDevice(tree.get(), device, user), "device ", device.path());
  }
  if (spec.read_only()) RETURN_IF_ERROR(SetAttributes(tree.get(), MOUNT_ATTR_RDONLY));
  return tree;
}

}  // namespace jenkins_agent
