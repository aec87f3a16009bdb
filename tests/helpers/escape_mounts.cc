#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/helpers/escape.h"

namespace jenkins_agent::escape {
namespace {

std::string Mount(const char* source, const char* target, const char* type, unsigned long flags,
                  const char* data = nullptr) {
  return Answer(::mount(source, target, type, flags, data));
}
std::string Umount(const char* target) { return Answer(::umount2(target, MNT_DETACH)); }

// "shocker": inode 2 is the root directory of an ext4 file system.
std::string OpenByHandle() {
  struct {
    unsigned bytes = 8;
    int type = 1;  // FILEID_INO32_GEN
    unsigned inode = 2;
    unsigned generation = 0;
  } handle;  // struct file_handle
  const int mount_fd = ::open("/usr", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return Answer(::syscall(SYS_open_by_handle_at, mount_fd, &handle, O_RDONLY));
}

std::string SetAttributes() {
  mount_attr change = {};
  change.attr_clr = MOUNT_ATTR_RDONLY;
  return Answer(::syscall(SYS_mount_setattr, AT_FDCWD, "/usr", 0, &change, sizeof(change)));
}

}  // namespace

Attempts MountAttempts() {
  return {
      {"MountTmpfs", [] { return Mount("none", "/tmp", "tmpfs", 0); }},
      {"MountBindOfRoot", [] { return Mount("/", "/tmp", nullptr, MS_BIND | MS_REC); }},
      {"RemountRootWritable",
       [] { return Mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_NOSUID); }},
      {"RemountUsrWritable",
       [] { return Mount(nullptr, "/usr", nullptr, MS_REMOUNT | MS_BIND | MS_NOSUID); }},
      {"MakeRootShared", [] { return Mount(nullptr, "/", nullptr, MS_SHARED | MS_REC); }},
      {"MoveMountOfProc", [] { return Mount("/proc", "/tmp", nullptr, MS_MOVE); }},
      {"UmountMask", [] { return Umount("/proc/keys"); }},
      {"UmountProcSys", [] { return Umount("/proc/sys"); }},
      {"UmountSys", [] { return Umount("/sys"); }},
      {"UmountRoot", [] { return Umount("/"); }},
      {"MountProc", [] { return Mount("proc", "/tmp", "proc", 0); }},
      {"MountSysfs", [] { return Mount("sysfs", "/tmp", "sysfs", 0); }},
      {"MountCgroupV1", [] { return Mount("none", "/tmp", "cgroup", 0, "memory"); }},
      {"MountCgroupV2", [] { return Mount("none", "/tmp", "cgroup2", 0); }},
      {"MountDevtmpfs", [] { return Mount("none", "/tmp", "devtmpfs", 0); }},
      {"MountDevpts", [] { return Mount("none", "/tmp", "devpts", 0); }},
      {"MountOverlay",
       [] {
         return Mount("none", "/tmp", "overlay", 0, "lowerdir=/usr,upperdir=/tmp,workdir=/local");
       }},
      {"Fsopen", [] { return Answer(::syscall(SYS_fsopen, "proc", 0)); }},
      {"Fspick", [] { return Answer(::syscall(SYS_fspick, AT_FDCWD, "/", 0)); }},
      {"OpenTreeClone",
       [] { return Answer(::syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE)); }},
      {"MoveMountSyscall",
       [] { return Answer(::syscall(SYS_move_mount, AT_FDCWD, "/proc", AT_FDCWD, "/tmp", 0)); }},
      {"MountSetattr", SetAttributes},
      {"PivotRoot", [] { return Answer(::syscall(SYS_pivot_root, "/tmp", "/tmp")); }},
      {"Chroot", [] { return Answer(::chroot("/tmp")); }},
      {"OpenByHandleAt", OpenByHandle},
  };
}

}  // namespace jenkins_agent::escape
