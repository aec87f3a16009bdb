#include "driver/tools/confine.h"

#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/sandbox/mount_fd.h"
#include "driver/sandbox/privileges.h"
#include "driver/sandbox/seccomp.h"

namespace jenkins_agent {
namespace {

constexpr uint64_t kInert = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
constexpr uint64_t kRootBytes = 1 << 20;  // directories and empty files to mount on
// Where the new root hangs until the switch; nothing below it is ever shown.
constexpr char kStagingPoint[] = "/proc";

// LayerDir's: owners, whatever the modes, set-id bits, devices and whiteouts, file capabilities,
// and trusted.overlay.opaque, for which the kernel wants SYS_ADMIN of the first user namespace.
const std::vector<uint32_t> kCapabilities = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER,   CAP_FSETID,
                                             CAP_MKNOD, CAP_SETFCAP,      CAP_SYS_ADMIN};

constexpr rlim_t kMaxOpenFiles = 1024;                // 128 layers, 6 connections
constexpr rlim_t kMaxAddressSpace = rlim_t{2} << 30;  // 13 threads reserve 72 MiB each
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kLimitAddressSpace = false;  // its shadow takes 16 TiB
#else
constexpr bool kLimitAddressSpace = true;
#endif

absl::StatusOr<Fd> TargetFor(int root, const std::string& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0) return ErrnoStatus(path);
  return S_ISDIR(info.st_mode) ? MakeDirectoryInRoot(root, path) : MakeFileInRoot(root, path);
}

absl::Status Show(int root, const std::string& path, uint64_t attributes) {
  ASSIGN_OR_RETURN(const Fd tree, CloneTree(path, kInert | attributes));
  ASSIGN_OR_RETURN(const Fd target, TargetFor(root, path));
  return Annotate(Attach(tree.get(), target.get()), path);
}

// The trees are cloned from the host's paths, which the staged root must not hide: it lies over
// /proc.
absl::Status BuildRoot(const Confinement& confinement, int root) {
  RETURN_IF_ERROR(Show(root, confinement.writable, 0));
  for (const std::string& path : confinement.readable) {
    const absl::Status shown = Show(root, path, MOUNT_ATTR_RDONLY);
    if (!shown.ok() && !absl::IsNotFound(shown)) return shown;
  }
  // LayerDir reaches objects by /proc/self/fd; nothing else is in there.
  ASSIGN_OR_RETURN(const Fd proc, NewFileSystem("proc", {{"subset", "pid"}}, kInert));
  ASSIGN_OR_RETURN(const Fd target, MakeDirectoryInRoot(root, "/proc"));
  RETURN_IF_ERROR(Attach(proc.get(), target.get()), "/proc");
  return SetAttributes(root, kInert | MOUNT_ATTR_RDONLY);
}

// pivot_root(".", ".") stacks the old root on the new one, pivot_root(2).
absl::Status SwitchTo(int root) {
  if (::fchdir(root) != 0) return ErrnoStatus("enter the new root");
  if (::syscall(SYS_pivot_root, ".", ".") != 0) return ErrnoStatus("switch to the new root");
  if (::umount2(".", MNT_DETACH) != 0) return ErrnoStatus("drop the host's root");
  if (::chdir("/") != 0) return ErrnoStatus("enter /");
  return absl::OkStatus();
}

absl::Status EnterRoot(const Confinement& confinement) {
  const int namespaces = CLONE_NEWNS | CLONE_NEWIPC | (confinement.network ? 0 : CLONE_NEWNET);
  if (::unshare(namespaces) != 0) return ErrnoStatus("unshare");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return ErrnoStatus("make mounts private");
  }
  ::umask(0);
  ASSIGN_OR_RETURN(const Fd root, NewTmpfs(kRootBytes, 0755, 0, 0, kInert));
  ASSIGN_OR_RETURN(const Fd staging, OpenFile(kStagingPoint, O_PATH | O_DIRECTORY));
  RETURN_IF_ERROR(Attach(root.get(), staging.get()));
  RETURN_IF_ERROR(BuildRoot(confinement, root.get()));
  return SwitchTo(root.get());
}

absl::Status Limit(__rlimit_resource_t resource, rlim_t value) {
  rlimit limit = {};
  if (::getrlimit(resource, &limit) != 0) return ErrnoStatus("getrlimit");
  value = std::min(value, limit.rlim_max);
  limit = {.rlim_cur = value, .rlim_max = value};
  return ::setrlimit(resource, &limit) == 0 ? absl::OkStatus() : ErrnoStatus("setrlimit");
}

}  // namespace

// Debian's places; a certificate in /etc/ssl/certs is a link to one of the others.
std::vector<std::string> NetworkFiles() {
  return {"/etc/resolv.conf",
          "/etc/hosts",
          "/etc/nsswitch.conf",
          "/etc/host.conf",
          "/etc/gai.conf",
          "/etc/ssl/certs",
          "/usr/share/ca-certificates",
          "/usr/local/share/ca-certificates"};
}

absl::Status Confine(const Confinement& confinement) {
  RETURN_IF_ERROR(EnterRoot(confinement));
  RETURN_IF_ERROR(Limit(RLIMIT_NOFILE, kMaxOpenFiles));
  RETURN_IF_ERROR(Limit(RLIMIT_FSIZE, static_cast<rlim_t>(confinement.max_file_bytes)));
  if (kLimitAddressSpace) RETURN_IF_ERROR(Limit(RLIMIT_AS, kMaxAddressSpace));
  return BecomeWorker(kCapabilities, ImageWorkerFilter(confinement.network));
}

}  // namespace jenkins_agent
