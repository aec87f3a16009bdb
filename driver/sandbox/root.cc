#include "driver/sandbox/root.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/strip.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/sandbox/covered_paths.h"
#include "driver/sandbox/device_tree.h"
#include "driver/sandbox/mount_fd.h"
#include "driver/sandbox/overlay.h"
#include "driver/sandbox/template_plan.h"
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

using Mounts = google::protobuf::RepeatedPtrField<pb::MountSpec>;

// Otherwise our mounts would show up on hosts whose / is shared (systemd), and pivot_root refuses.
absl::Status LeaveHostPropagation() {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return ErrnoStatus("make mounts private");
  }
  return absl::OkStatus();
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

// A copy is the slave or peer of the host's mount only if it is made in a namespace that takes part
// in the host's propagation, as pid 1's does until it enters the template.
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

absl::Status MountBind(int root_fd, const pb::MountSpec& spec, Fd source, const RootOwner& owner) {
  if (!source) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Fd tree, WithOwners(std::move(source), spec, owner));
  struct stat found = {};
  if (::fstat(tree.get(), &found) != 0) return ErrnoStatus(spec.source());
  ASSIGN_OR_RETURN(const Fd target, S_ISDIR(found.st_mode)
                                        ? MakeDirectoryInRoot(root_fd, spec.target(), LinksOf(spec))
                                        : MakeFileInRoot(root_fd, spec.target(), LinksOf(spec)));
  return AttachOutsideProc(tree.get(), target.get());
}

absl::Status MountTmpfs(int root_fd, const pb::MountSpec& spec, const RootOwner& owner) {
  const uint64_t size = spec.size_bytes() != 0 ? spec.size_bytes() : kDefaultTmpfsBytes;
  return AttachAt(root_fd, spec.target(),
                  NewTmpfs(size, ModeOr(spec, 0755), OwnerOf(spec, owner), GroupOf(spec, owner),
                           Attributes(spec)),
                  LinksOf(spec));
}

// Of the terminals that a host has for all its sandboxes together (kernel.pty.max less
// kernel.pty.reserve: 3072).
constexpr char kMaxTerminals[] = "256";

// ptmxmode and gid 5 (tty on every distribution) as the kernel's own documentation asks for.
absl::Status MountDevpts(int root_fd, const pb::MountSpec& spec) {
  return AttachAt(
      root_fd, spec.target(),
      NewFileSystem("devpts",
                    {{"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}, {"max", kMaxTerminals}},
                    MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
}

// The file system as well as the mount: a copy of the mount could be made writable again.
absl::Status Seal(int mount_fd) {
  RETURN_IF_ERROR(MakeFileSystemReadOnly(mount_fd));
  return SetAttributes(mount_fd, MOUNT_ATTR_RDONLY);
}

// v1: one directory per hierarchy, because HotSpot wants memory, cpu, cpuacct and cpuset beside
// each other, else it takes the whole host for its own.
absl::StatusOr<Fd> NewCgroupDirectories(const std::vector<std::string>& names) {
  ASSIGN_OR_RETURN(Fd top, NewTmpfs(kCgroupTreeBytes, 0755, 0, 0, kInert));
  for (const std::string& name : names) {
    if (::mkdirat(top.get(), name.c_str(), 0755) != 0) {
      return ErrnoStatus(absl::StrCat("make directory ", name));
    }
  }
  RETURN_IF_ERROR(Seal(top.get()));
  return top;
}

absl::Status MountCgroupDirectories(int root_fd, const pb::MountSpec& spec,
                                    const std::vector<std::string>& names) {
  if (names.empty() || names.front().empty()) return absl::OkStatus();
  return AttachAt(root_fd, spec.target(), NewCgroupDirectories(names));
}

// v2: the task's directory itself. v1: the template brings the directories along, unless /sys is
// the task's own.
absl::Status MountCgroups(int root_fd, const pb::MountSpec& spec,
                          const std::vector<CgroupTree>& trees) {
  if (trees.empty()) return absl::OkStatus();
  const auto target = [&](const CgroupTree& tree) {
    return tree.name.empty() ? spec.target() : absl::StrCat(spec.target(), "/", tree.name);
  };
  if (absl::IsNotFound(OpenInRoot(root_fd, target(trees.front())).status())) {
    std::vector<std::string> names;
    for (const CgroupTree& tree : trees) names.push_back(tree.name);
    RETURN_IF_ERROR(MountCgroupDirectories(root_fd, spec, names));
  }
  for (const CgroupTree& tree : trees) {
    ASSIGN_OR_RETURN(const Fd directory, OpenInRoot(root_fd, target(tree)));
    RETURN_IF_ERROR(Attach(tree.tree.get(), directory.get()), tree.name);
  }
  return absl::OkStatus();
}

absl::Status WriteNewFile(int dir_fd, const pb::FileSpec& file, const RootOwner& owner) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
  ASSIGN_OR_RETURN(const Fd fd,
                   OpenAt(dir_fd, file.name(), kFlags, file.mode() != 0 ? file.mode() : 0644));
  RETURN_IF_ERROR(WriteAll(fd.get(), file.content()), file.name());
  const uid_t uid = HostId(owner.user, file.uid());
  const gid_t gid = HostId(owner.user, file.gid());
  if (uid == 0 && gid == 0) return absl::OkStatus();
  if (::fchown(fd.get(), uid, gid) != 0) return ErrnoStatus("set owner");
  return absl::OkStatus();
}

// Nobody sees them before they are complete and read-only.
absl::Status MountFiles(int root_fd, const pb::MountSpec& spec, const RootOwner& owner) {
  ASSIGN_OR_RETURN(Fd top, NewTmpfs(kRootBytes, 0755, 0, 0, kInert));
  for (const pb::FileSpec& file : spec.files()) {
    RETURN_IF_ERROR(WriteNewFile(top.get(), file, owner));
  }
  RETURN_IF_ERROR(SetAttributes(top.get(), MOUNT_ATTR_RDONLY));
  return AttachAt(root_fd, spec.target(), std::move(top));
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

// `source`: of a BIND.
absl::Status Mount(int root_fd, const pb::MountSpec& spec, Fd source, const RootOwner& owner) {
  const uint64_t read_only = spec.read_only() ? MOUNT_ATTR_RDONLY : 0;
  switch (spec.kind()) {
    case pb::MountSpec::BIND:
      return MountBind(root_fd, spec, std::move(source), owner);
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
    case pb::MountSpec::SYMLINK:
      return MakeLink(root_fd, spec);
    case pb::MountSpec::FILE:
      return MakeFile(root_fd, spec, owner);
    case pb::MountSpec::DIRECTORY:
      return MakeDirectory(root_fd, spec, owner);
    case pb::MountSpec::FILES:
      return MountFiles(root_fd, spec, owner);
    case pb::MountSpec::DIRECTORY_POINT:
      return MakeDirectoryInRoot(root_fd, spec.target(), LinksOf(spec)).status();
    case pb::MountSpec::FILE_POINT:
      return MakeFileInRoot(root_fd, spec.target(), LinksOf(spec)).status();
    default:
      return absl::InvalidArgumentError(absl::StrCat("unknown kind ", spec.kind()));
  }
}

using MountCgroup = absl::FunctionRef<absl::Status(const pb::MountSpec&)>;

absl::Status MountAll(int root_fd, const Mounts& mounts, std::vector<Fd> sources,
                      const RootOwner& owner, MountCgroup mount_cgroup) {
  for (int i = 0; i < mounts.size(); ++i) {
    const pb::MountSpec& mount = mounts[i];
    RETURN_IF_ERROR(SplitTarget(mount.target()).status(), "mount ", mount.target());
    const bool cgroup = mount.kind() == pb::MountSpec::CGROUP;
    RETURN_IF_ERROR(
        cgroup ? mount_cgroup(mount) : Mount(root_fd, mount, std::move(sources[i]), owner),
        "mount ", mount.target());
  }
  return absl::OkStatus();
}

absl::Status SealTemplate(int root_fd, const Mounts& mounts) {
  for (const pb::MountSpec& mount : mounts) {
    if (mount.kind() != pb::MountSpec::TMPFS && mount.kind() != pb::MountSpec::DEV) continue;
    ASSIGN_OR_RETURN(const Fd top, OpenInRoot(root_fd, mount.target()));
    RETURN_IF_ERROR(Seal(top.get()), "protect ", mount.target());
  }
  return Annotate(Seal(root_fd), "protect /");
}

// A new mount namespace is a copy of the caller's. Root and work directory become the copy's root.
absl::Status EnterCopyOf(int mount_namespace) {
  if (::setns(mount_namespace, CLONE_NEWNS) != 0) return ErrnoStatus("enter the template");
  if (::unshare(CLONE_NEWNS) != 0) return ErrnoStatus("copy the template");
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

// Before anything is mounted: whoever is forked meanwhile (await_cgroups) is in the sandbox's root.
// What the image was made of goes with the template's root.
absl::StatusOr<Fd> EnterImage(const OverlayParts& parts) {
  ASSIGN_OR_RETURN(const Fd point, OpenFile(kImagePoint, O_PATH | O_DIRECTORY));
  ASSIGN_OR_RETURN(Fd image, NewOverlay(parts, point.get(), kPlain), "image");
  RETURN_IF_ERROR(Attach(image.get(), point.get()), "image");
  RETURN_IF_ERROR(SwitchTo(image.get()), "image");
  return image;
}

absl::Status SetHostname(const std::string& hostname) {
  if (hostname.empty()) return absl::OkStatus();
  if (::sethostname(hostname.data(), hostname.size()) != 0) {
    return ErrnoStatus(absl::StrCat("set host name '", hostname, "'"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<CgroupTree>> CloneCgroups(const std::vector<CgroupView>& views) {
  std::vector<CgroupTree> trees;
  for (const CgroupView& view : views) {
    ASSIGN_OR_RETURN(Fd tree, CloneTree(view.dir_fd, kInert | MOUNT_ATTR_RDONLY), "cgroup ",
                     view.name);
    trees.push_back({view.name, std::move(tree)});
  }
  return trees;
}

absl::StatusOr<std::vector<Fd>> CloneSources(const Mounts& mounts) {
  std::vector<Fd> sources(static_cast<size_t>(mounts.size()));
  for (int i = 0; i < mounts.size(); ++i) {
    const pb::MountSpec& mount = mounts[i];
    if (mount.kind() != pb::MountSpec::BIND) continue;
    absl::StatusOr<Fd> source = CloneSource(mount);
    if (mount.optional() && absl::IsNotFound(source.status())) continue;
    RETURN_IF_ERROR(source.status(), "mount ", mount.target());
    sources[i] = *std::move(source);
  }
  return sources;
}

absl::Status BuildTemplate(const pb::TemplateSpec& spec, std::vector<Fd> sources,
                           const std::vector<std::string>& cgroup_names) {
  // Modes below are meant as written.
  const absl::Cleanup restore_umask = [before = ::umask(0)] { ::umask(before); };
  RETURN_IF_ERROR(LeaveHostPropagation());
  ASSIGN_OR_RETURN(const Fd root, StageRoot());
  const RootOwner host = {pb::UserSpec::default_instance()};
  RETURN_IF_ERROR(MountAll(root.get(), spec.mounts(), std::move(sources), host,
                           [&](const pb::MountSpec& cgroup) {
                             return MountCgroupDirectories(root.get(), cgroup, cgroup_names);
                           }));
  RETURN_IF_ERROR(SwitchTo(root.get()));
  RETURN_IF_ERROR(HidePaths(root.get(), spec.masked_paths()));
  RETURN_IF_ERROR(ProtectPaths(root.get(), spec.read_only_paths()));
  return SealTemplate(root.get(), spec.mounts());
}

absl::Status BuildRoot(const pb::SandboxSpec& spec, int template_namespace,
                       AwaitCgroups await_cgroups, const RootOwner& owner) {
  const absl::Cleanup restore_umask = [before = ::umask(0)] { ::umask(before); };
  ASSIGN_OR_RETURN(std::vector<Fd> sources, CloneSources(spec.mounts()));
  OverlayParts image;
  if (spec.has_image()) {
    ASSIGN_OR_RETURN(image,
                     OpenOverlayParts(spec.image(), owner.user_namespace, HostId(owner.user, 0)),
                     "image");
  }
  RETURN_IF_ERROR(EnterCopyOf(template_namespace));
  ASSIGN_OR_RETURN(const Fd root,
                   spec.has_image() ? EnterImage(image) : OpenFile("/", O_PATH | O_DIRECTORY));
  const auto mount_cgroups = [&](const pb::MountSpec& cgroup) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<CgroupTree> trees, await_cgroups());
    return MountCgroups(root.get(), cgroup, trees);
  };
  RETURN_IF_ERROR(MountAll(root.get(), spec.mounts(), std::move(sources), owner, mount_cgroups));
  RETURN_IF_ERROR(HidePaths(root.get(), spec.masked_paths()));
  RETURN_IF_ERROR(ProtectPaths(root.get(), spec.read_only_paths()));
  return SetHostname(spec.hostname());
}

}  // namespace jenkins_agent
