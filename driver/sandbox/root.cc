#include "driver/sandbox/root.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <map>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/strip.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/sandbox/covered_paths.h"
#include "driver/sandbox/device_tree.h"
#include "driver/sandbox/mount_fd.h"
#include "driver/sandbox/user_namespace.h"

namespace jenkins_agent {
namespace {

constexpr uint64_t kPlain = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
constexpr uint64_t kInert = kPlain | MOUNT_ATTR_NOEXEC;

constexpr uint64_t kRootBytes = 8 << 20;           // directories, links and the files of /etc
constexpr uint64_t kDefaultTmpfsBytes = 64 << 20;  // of a TMPFS without size
constexpr uint64_t kCgroupTreeBytes = 64 * 1024;
// Where the new root hangs until the switch. It hides nothing that a plan may bind: /proc of the
// host is never a source. ("/" itself would do as well, were it not for ".." in host links.)
constexpr char kStagingPoint[] = "/proc";

struct CgroupTree {
  std::string name;
  Fd tree;
};

// Otherwise our mounts would show up on hosts whose / is shared (systemd), and pivot_root refuses.
absl::Status LeaveHostPropagation() {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return ErrnoStatus("make mounts private");
  }
  return absl::OkStatus();
}

// The kernel clones mounts of the own namespace only, and dir_fd may be one of the host's: go by
// its path, then make sure that it is the same directory. Needs the host's /proc.
absl::StatusOr<Fd> CloneCgroup(int dir_fd) {
  char path[PATH_MAX];
  const std::string link = absl::StrCat("/proc/self/fd/", dir_fd);
  const ssize_t size = ::readlink(link.c_str(), path, sizeof(path));
  if (size < 0) return ErrnoStatus(absl::StrCat("read ", link));
  const std::string source(path, static_cast<size_t>(size));
  ASSIGN_OR_RETURN(Fd tree, CloneTree(source, kInert | MOUNT_ATTR_RDONLY));
  struct stat wanted = {};
  struct stat found = {};
  if (::fstat(dir_fd, &wanted) != 0 || ::fstat(tree.get(), &found) != 0) {
    return ErrnoStatus(absl::StrCat("look at ", source));
  }
  if (wanted.st_dev != found.st_dev || wanted.st_ino != found.st_ino) {
    return absl::InternalError(absl::StrCat(source, " was replaced"));
  }
  return tree;
}

absl::StatusOr<std::vector<CgroupTree>> CloneCgroups(const std::vector<CgroupView>& cgroups) {
  std::vector<CgroupTree> trees;
  for (const CgroupView& cgroup : cgroups) {
    ASSIGN_OR_RETURN(Fd tree, CloneCgroup(cgroup.dir_fd), "cgroup ", cgroup.name);
    trees.push_back({cgroup.name, std::move(tree)});
  }
  return trees;
}

absl::StatusOr<Fd> StageRoot() {
  ASSIGN_OR_RETURN(Fd root, NewTmpfs(kRootBytes, 0755, 0, 0, kPlain));
  ASSIGN_OR_RETURN(const Fd staging, OpenFile(kStagingPoint, O_PATH | O_DIRECTORY));
  RETURN_IF_ERROR(Attach(root.get(), staging.get()));
  return root;
}

uint64_t Attributes(const pb::MountSpec& spec) {
  return kPlain | (spec.read_only() ? MOUNT_ATTR_RDONLY : 0) |
         (spec.no_exec() ? MOUNT_ATTR_NOEXEC : 0);
}

mode_t ModeOr(const pb::MountSpec& spec, mode_t fallback) {
  return spec.mode() != 0 ? spec.mode() : fallback;
}

// pid 1 and its launches write to files of /proc as root: in a volume in their place these would be
// links to whatever root owns there.
absl::Status AttachOutsideProc(int tree_fd, int target_fd) {
  struct statfs target = {};
  if (::fstatfs(target_fd, &target) != 0) return ErrnoStatus("look at the target");
  if (target.f_type == PROC_SUPER_MAGIC) {
    return absl::InvalidArgumentError("nothing can be mounted in /proc");
  }
  return Attach(tree_fd, target_fd);
}

Links LinksOf(const pb::MountSpec& spec) {
  return spec.no_links() ? Links::kRefuse : Links::kFollowInRoot;
}

absl::Status AttachAt(int root_fd, const std::string& target, absl::StatusOr<Fd> tree,
                      Links links = Links::kFollowInRoot) {
  if (!tree.ok()) return tree.status();
  ASSIGN_OR_RETURN(const Fd directory, MakeDirectoryInRoot(root_fd, target, links));
  return AttachOutsideProc(tree->get(), directory.get());
}

uint64_t PropagationOf(const pb::MountSpec& spec) {
  switch (spec.propagation()) {
    case pb::MountSpec::SLAVE:
      return MS_SLAVE;
    case pb::MountSpec::SHARED:
      return MS_SHARED;
    default:
      return MS_PRIVATE;
  }
}

uid_t OwnerOf(const pb::MountSpec& spec, const RootOwner& owner) {
  return spec.host_owner() ? spec.uid() : HostId(owner.user, spec.uid());
}
gid_t GroupOf(const pb::MountSpec& spec, const RootOwner& owner) {
  return HostId(owner.user, spec.gid());
}

// What can only be read may show its owners as nobody; files of the task's own must be its own.
absl::StatusOr<Fd> WithOwners(Fd tree, const pb::MountSpec& spec, const RootOwner& owner) {
  if (owner.user_namespace < 0) return tree;
  const absl::Status mapped = MapIds(tree.get(), owner.user_namespace);
  if (absl::IsUnimplemented(mapped) && spec.read_only()) return tree;
  if (!mapped.ok()) return Annotate(mapped, spec.source());
  return tree;
}

absl::StatusOr<Fd> CloneSource(const pb::MountSpec& spec) {
  absl::string_view below = spec.source();
  const std::string base_prefix = spec.base() == "/" ? "/" : spec.base() + "/";
  if (spec.base().empty() || !absl::ConsumePrefix(&below, base_prefix)) {
    return CloneTree(spec.source(), Attributes(spec), PropagationOf(spec));
  }
  ASSIGN_OR_RETURN(const Fd base, OpenFile(spec.base(), O_PATH | O_DIRECTORY));
  ASSIGN_OR_RETURN(const Fd source, OpenBelow(base.get(), std::string(below)), spec.base());
  return CloneTree(source.get(), Attributes(spec), PropagationOf(spec));
}

// A copy is the slave or peer of the host's mount only if it is made while this namespace still
// takes part in the host's propagation. By target.
using Trees = std::map<std::string, Fd>;
absl::StatusOr<Trees> ClonePropagating(const pb::SandboxSpec& spec) {
  Trees trees;
  for (const pb::MountSpec& mount : spec.mounts()) {
    if (mount.propagation() == pb::MountSpec::PRIVATE) continue;
    ASSIGN_OR_RETURN(Fd tree, CloneSource(mount), "mount ", mount.target());
    trees[mount.target()] = std::move(tree);
  }
  return trees;
}

absl::StatusOr<Fd> TakeSource(const pb::MountSpec& spec, Trees& propagating) {
  const auto made = propagating.find(spec.target());
  if (made == propagating.end()) return CloneSource(spec);
  return std::move(made->second);
}

absl::Status MountBind(int root_fd, const pb::MountSpec& spec, Trees& propagating,
                       const RootOwner& owner) {
  absl::StatusOr<Fd> tree = TakeSource(spec, propagating);
  if (spec.optional() && absl::IsNotFound(tree.status())) return absl::OkStatus();
  if (!tree.ok()) return tree.status();
  tree = WithOwners(*std::move(tree), spec, owner);
  if (!tree.ok()) return tree.status();
  struct stat source = {};
  if (::fstat(tree->get(), &source) != 0) return ErrnoStatus(spec.source());
  if (S_ISDIR(source.st_mode)) {
    return AttachAt(root_fd, spec.target(), std::move(tree), LinksOf(spec));
  }
  ASSIGN_OR_RETURN(const Fd file, MakeFileInRoot(root_fd, spec.target(), LinksOf(spec)));
  return AttachOutsideProc(tree->get(), file.get());
}

absl::Status MountTmpfs(int root_fd, const pb::MountSpec& spec, const RootOwner& owner) {
  const uint64_t size = spec.size_bytes() != 0 ? spec.size_bytes() : kDefaultTmpfsBytes;
  return AttachAt(root_fd, spec.target(),
                  NewTmpfs(size, ModeOr(spec, 0755), OwnerOf(spec, owner), GroupOf(spec, owner),
                           Attributes(spec)),
                  LinksOf(spec));
}

// ptmxmode and gid 5 (tty on every distribution) as the kernel's own documentation asks for.
absl::Status MountDevpts(int root_fd, const pb::MountSpec& spec) {
  return AttachAt(root_fd, spec.target(),
                  NewFileSystem("devpts", {{"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}},
                                MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
}

// v2: the task's directory itself. v1: one directory per hierarchy, because HotSpot wants memory,
// cpu, cpuacct and cpuset beside each other, else it takes the whole host for its own.
absl::Status MountCgroups(int root_fd, const pb::MountSpec& spec,
                          const std::vector<CgroupTree>& trees) {
  for (const CgroupTree& tree : trees) {
    if (!tree.name.empty()) continue;
    ASSIGN_OR_RETURN(const Fd target, MakeDirectoryInRoot(root_fd, spec.target()));
    return Attach(tree.tree.get(), target.get());
  }
  ASSIGN_OR_RETURN(const Fd top, NewTmpfs(kCgroupTreeBytes, 0755, 0, 0, kInert));
  RETURN_IF_ERROR(AttachAt(root_fd, spec.target(), Duplicate(top.get())));
  for (const CgroupTree& tree : trees) {
    const std::string target = absl::StrCat(spec.target(), "/", tree.name);
    ASSIGN_OR_RETURN(const Fd directory, MakeDirectoryInRoot(root_fd, target));
    RETURN_IF_ERROR(Attach(tree.tree.get(), directory.get()), tree.name);
  }
  return SetAttributes(top.get(), MOUNT_ATTR_RDONLY);
}

absl::Status MakeLink(int root_fd, const pb::MountSpec& spec) {
  ASSIGN_OR_RETURN(const auto parts, SplitTarget(spec.target()));
  ASSIGN_OR_RETURN(const Fd parent, MakeDirectoryInRoot(root_fd, parts.first));
  if (::symlinkat(spec.source().c_str(), parent.get(), parts.second.c_str()) != 0) {
    return ErrnoStatus("make link");
  }
  return absl::OkStatus();
}

// O_EXCL: a file of the plan never changes one that a bind brought along.
absl::Status MakeFile(int root_fd, const pb::MountSpec& spec, const RootOwner& owner) {
  ASSIGN_OR_RETURN(const auto parts, SplitTarget(spec.target()));
  ASSIGN_OR_RETURN(const Fd parent, MakeDirectoryInRoot(root_fd, parts.first));
  ASSIGN_OR_RETURN(const Fd file, OpenAt(parent.get(), parts.second,
                                         O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  RETURN_IF_ERROR(WriteAll(file.get(), spec.content()));
  if (::fchown(file.get(), OwnerOf(spec, owner), GroupOf(spec, owner)) != 0) {
    return ErrnoStatus("set owner");
  }
  if (::fchmod(file.get(), ModeOr(spec, 0644)) != 0) return ErrnoStatus("set mode");
  return absl::OkStatus();
}

// Owner and mode are those of the one who makes it: an existing directory may be the host's.
absl::Status MakeDirectory(int root_fd, const pb::MountSpec& spec, const RootOwner& owner) {
  if (OpenInRoot(root_fd, spec.target()).ok()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const auto parts, SplitTarget(spec.target()));
  ASSIGN_OR_RETURN(const Fd parent, MakeDirectoryInRoot(root_fd, parts.first));
  if (::mkdirat(parent.get(), parts.second.c_str(), 0700) != 0) return ErrnoStatus("make");
  ASSIGN_OR_RETURN(const Fd made,
                   OpenAt(parent.get(), parts.second, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  if (::fchown(made.get(), OwnerOf(spec, owner), GroupOf(spec, owner)) != 0) {
    return ErrnoStatus("set owner");
  }
  if (::fchmod(made.get(), ModeOr(spec, 0755)) != 0) return ErrnoStatus("set mode");
  return absl::OkStatus();
}

// What is made before the host's tree is left.
struct Prepared {
  std::vector<CgroupTree> cgroups;
  Trees propagating;
};

absl::Status Mount(int root_fd, const pb::MountSpec& spec, const RootOwner& owner,
                   Prepared& prepared) {
  const uint64_t read_only = spec.read_only() ? MOUNT_ATTR_RDONLY : 0;
  switch (spec.kind()) {
    case pb::MountSpec::BIND:
      return MountBind(root_fd, spec, prepared.propagating, owner);
    case pb::MountSpec::TMPFS:
      return MountTmpfs(root_fd, spec, owner);
    case pb::MountSpec::PROC:
      return AttachAt(root_fd, spec.target(), NewFileSystem("proc", {}, kInert | read_only));
    case pb::MountSpec::SYSFS:
      return AttachAt(root_fd, spec.target(), NewFileSystem("sysfs", {}, kInert | read_only));
    case pb::MountSpec::DEVPTS:
      return MountDevpts(root_fd, spec);
    case pb::MountSpec::MQUEUE:
      return AttachAt(root_fd, spec.target(), NewFileSystem("mqueue", {}, kInert));
    case pb::MountSpec::DEV:
      return AttachAt(root_fd, spec.target(), MakeDeviceTree(spec, owner.user));
    case pb::MountSpec::CGROUP:
      return MountCgroups(root_fd, spec, prepared.cgroups);
    case pb::MountSpec::SYMLINK:
      return MakeLink(root_fd, spec);
    case pb::MountSpec::FILE:
      return MakeFile(root_fd, spec, owner);
    case pb::MountSpec::DIRECTORY:
      return MakeDirectory(root_fd, spec, owner);
    default:
      return absl::InvalidArgumentError(absl::StrCat("unknown kind ", spec.kind()));
  }
}

absl::Status MountAll(int root_fd, const pb::SandboxSpec& spec, const RootOwner& owner,
                      Prepared& prepared) {
  for (const pb::MountSpec& mount : spec.mounts()) {
    RETURN_IF_ERROR(SplitTarget(mount.target()).status(), "mount ", mount.target());
    RETURN_IF_ERROR(Mount(root_fd, mount, owner, prepared), "mount ", mount.target());
  }
  return absl::OkStatus();
}

// pivot_root(".", ".") stacks the old root on the new one (pivot_root(2), NOTES): the next umount
// of "." takes it away, with all mounts below.
absl::Status SwitchTo(int root_fd) {
  if (::fchdir(root_fd) != 0) return ErrnoStatus("enter the new root");
  if (::syscall(SYS_pivot_root, ".", ".") != 0) return ErrnoStatus("switch to the new root");
  if (::umount2(".", MNT_DETACH) != 0) return ErrnoStatus("drop the host's root");
  if (::chdir("/") != 0) return ErrnoStatus("enter /");
  return absl::OkStatus();
}

absl::Status SetHostname(const std::string& hostname) {
  if (hostname.empty()) return absl::OkStatus();
  if (::sethostname(hostname.data(), hostname.size()) != 0) {
    return ErrnoStatus(absl::StrCat("set host name '", hostname, "'"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status BuildRoot(const pb::SandboxSpec& spec, const std::vector<CgroupView>& cgroups,
                       const RootOwner& owner) {
  // Modes below are meant as written.
  const absl::Cleanup restore_umask = [before = ::umask(0)] { ::umask(before); };
  Prepared prepared;
  ASSIGN_OR_RETURN(prepared.propagating, ClonePropagating(spec));
  RETURN_IF_ERROR(LeaveHostPropagation());
  ASSIGN_OR_RETURN(prepared.cgroups, CloneCgroups(cgroups));
  ASSIGN_OR_RETURN(const Fd root, StageRoot());
  RETURN_IF_ERROR(MountAll(root.get(), spec, owner, prepared));
  RETURN_IF_ERROR(SwitchTo(root.get()));
  RETURN_IF_ERROR(HidePaths(root.get(), spec));
  RETURN_IF_ERROR(ProtectPaths(root.get(), spec));
  RETURN_IF_ERROR(SetAttributes(root.get(), MOUNT_ATTR_RDONLY), "make / read-only");
  return SetHostname(spec.hostname());
}

}  // namespace jenkins_agent
