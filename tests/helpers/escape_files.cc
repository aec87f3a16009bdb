#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "tests/helpers/escape.h"

namespace jenkins_agent::escape {
namespace {

// Makes the node where the payload may write, and opens it.
std::string DeviceNode(const char* path, mode_t kind, unsigned device_major,
                       unsigned device_minor) {
  ::unlink(path);
  if (::mknod(path, kind | 0666, ::makedev(device_major, device_minor)) != 0) {
    return ErrnoName(errno);
  }
  const std::string opened = Open(path, O_RDONLY);
  ::unlink(path);
  return "made/" + opened;
}

std::string Create(const char* path) {
  const int fd = ::open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoName(errno);
  ::unlink(path);
  return "done";
}

// v1 or v2, whichever the sandbox shows.
std::string OpenCgroupFile(const char* v1, const char* v2) {
  const std::string first = Open(v1, O_WRONLY);
  return first != "ENOENT" ? first : Open(v2, O_WRONLY);
}

std::string MakeCgroup() {
  const std::string first = Answer(::mkdir("/sys/fs/cgroup/memory/escape", 0755));
  return first != "ENOENT" ? first : Answer(::mkdir("/sys/fs/cgroup/escape", 0755));
}

// Until the file system is full; a host without a bound would fill up, hence the stop.
std::string Fill(const char* path) {
  constexpr size_t kMost = 1 << 30;
  const std::vector<char> block(1 << 20, 'x');
  const int fd = ::open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoName(errno);
  ::unlink(path);
  for (size_t written = 0; written < kMost;) {
    const ssize_t size = ::write(fd, block.data(), block.size());
    if (size < 0) return ErrnoName(errno);
    written += static_cast<size_t>(size);
  }
  return "done";
}

std::string Connect(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) return "unknown";
  std::memcpy(address.sun_path, path.data(), path.size());
  return Answer(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
}

}  // namespace

Attempts FileAttempts() {
  return {
      {"MakeBlockDevice", [] { return DeviceNode("/tmp/block", S_IFBLK, 254, 0); }},
      {"MakeKmsg", [] { return DeviceNode("/tmp/kmsg", S_IFCHR, 1, 11); }},
      {"MakeMem", [] { return DeviceNode("/tmp/mem", S_IFCHR, 1, 1); }},
      {"MakeKmsgInDev", [] { return DeviceNode("/dev/kmsg", S_IFCHR, 1, 11); }},
      {"MakeMemInShm", [] { return DeviceNode("/dev/shm/mem", S_IFCHR, 1, 1); }},
      {"MakeDeviceInLocal", [] { return DeviceNode("/local/mem", S_IFCHR, 1, 1); }},
      {"OpenDevMem", [] { return Open("/dev/mem", O_RDONLY); }},
      {"OpenDevPort", [] { return Open("/dev/port", O_RDONLY); }},
      {"OpenDevKmsg", [] { return Open("/dev/kmsg", O_RDONLY); }},
      {"OpenDevFuse", [] { return Open("/dev/fuse", O_RDWR); }},
      {"OpenDevKvm", [] { return Open("/dev/kvm", O_RDWR); }},
      {"OpenDevTun", [] { return Open("/dev/net/tun", O_RDWR); }},
      {"OpenDevLoopControl", [] { return Open("/dev/loop-control", O_RDWR); }},
      {"OpenDevUserfaultfd", [] { return Open("/dev/userfaultfd", O_RDWR); }},
      {"OpenHostDisk", [] { return Open(Told("ESCAPE_DISK").c_str(), O_RDONLY); }},
      {"OpenConsole", [] { return Open("/dev/console", O_RDWR); }},
      {"OpenTty", [] { return Open("/dev/tty", O_RDWR); }},
      {"CreateInDev", [] { return Create("/dev/x"); }},
      {"CreateInRoot", [] { return Create("/x"); }},
      {"CreateInEtc", [] { return Create("/etc/x"); }},
      {"CreateInUsr", [] { return Create("/usr/x"); }},
      {"CreateInSys", [] { return Create("/sys/fs/cgroup/x"); }},
      {"CreateInRun", [] { return Create("/run/x"); }},
      {"CreateInRunOfTheDriver", [] { return Create("/run/jenkins-agent/x"); }},
      {"CreateInLogs", [] { return Create("/alloc/logs/x"); }},
      {"WriteUsr", [] { return Open("/usr/bin/env", O_RDWR); }},
      {"WritePasswd", [] { return Open("/etc/passwd", O_RDWR); }},
      {"RenameOutOfUsr", [] { return Answer(::rename("/usr/bin/env", "/local/env")); }},
      {"LinkOutOfUsr", [] { return Answer(::link("/usr/bin/env", "/local/env")); }},
      {"RenameIntoUsr", [] { return Answer(::rename("/local", "/usr/local/x")); }},
      {"ChmodUsr", [] { return Answer(::chmod("/usr/bin/env", 04755)); }},
      {"ChownUsr", [] { return Answer(::chown("/usr/bin/env", ::getuid(), ::getgid())); }},
      {"TouchUsr", [] { return Answer(::utimensat(AT_FDCWD, "/usr/bin/env", nullptr, 0)); }},
      {"XattrOfUsr", [] { return Answer(::setxattr("/usr/bin/env", "user.x", "x", 1, 0)); }},
      {"FileCapability",
       [] {
         // VFS_CAP_REVISION_2 with CAP_SYS_ADMIN, permitted and effective.
         const unsigned value[] = {0x02000001, 1u << 21, 0, 0, 0};
         const int fd = ::open("/tmp/capable", O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
         return Answer(::fsetxattr(fd, "security.capability", value, sizeof(value), 0));
       }},
      {"CgroupLimit",
       [] {
         return OpenCgroupFile("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                               "/sys/fs/cgroup/memory.max");
       }},
      {"CgroupProcs",
       [] {
         return OpenCgroupFile("/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/cgroup.procs");
       }},
      {"CgroupReleaseAgent", [] { return Open("/sys/fs/cgroup/memory/release_agent", O_WRONLY); }},
      {"CgroupDevices", [] { return Open("/sys/fs/cgroup/devices/devices.allow", O_WRONLY); }},
      {"MakeCgroup", MakeCgroup},
      {"FillShm", [] { return Fill("/dev/shm/full"); }},
      {"FillTmp", [] { return Fill("/tmp/full"); }},
      {"ReadShadow", [] { return Read("/etc/shadow"); }},
      {"ListRootHome", [] { return List("/root"); }},
      {"ReadHostFile", [] { return Read(Told("ESCAPE_HOST_FILE").c_str()); }},
      {"ListTaskDirectory", [] { return List(Told("ESCAPE_TASK_DIR").c_str()); }},
      {"ConnectToSupervisor", [] { return Connect(Told("ESCAPE_TASK_DIR") + "/control.sock"); }},
  };
}

}  // namespace jenkins_agent::escape
