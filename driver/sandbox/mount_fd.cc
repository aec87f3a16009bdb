#include "driver/sandbox/mount_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

// A lookup with ".." inside a root is refused with EAGAIN while anybody on the host renames or
// mounts something; each further try is a new chance.
constexpr int kLookupTries = 64;

int OpenAtRoot(int root_fd, const std::string& path, uint64_t flags,
               Links links = Links::kFollowInRoot) {
  open_how how = {};
  how.flags = flags | O_PATH | O_CLOEXEC;
  how.resolve =
      RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (links == Links::kRefuse ? RESOLVE_NO_SYMLINKS : 0);
  int fd = -1;
  for (int tries = 0; tries < kLookupTries; ++tries) {
    fd = static_cast<int>(::syscall(SYS_openat2, root_fd, path.c_str(), &how, sizeof(how)));
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) break;
  }
  return fd;
}

absl::StatusOr<Fd> CheckedOpen(int fd, const std::string& path) {
  if (fd < 0 && errno == ELOOP) {
    return absl::InvalidArgumentError(
        absl::StrCat("open ", path, ": a symbolic link on the way, which is not followed here"));
  }
  if (fd < 0) return ErrnoStatus(absl::StrCat("open ", path));
  return Fd(fd);
}

absl::StatusOr<Fd> Cloned(int tree_fd, absl::string_view source, uint64_t attributes,
                          uint64_t propagation) {
  if (tree_fd < 0) return ErrnoStatus(absl::StrCat("open ", source));
  Fd tree(tree_fd);
  mount_attr change = {};
  change.attr_set = attributes;
  change.propagation = propagation;
  if (::mount_setattr(tree.get(), "", AT_EMPTY_PATH | AT_RECURSIVE, &change, sizeof(change)) != 0) {
    return ErrnoStatus(absl::StrCat("set mount flags of ", source));
  }
  return tree;
}

}  // namespace

absl::StatusOr<Fd> NewFileSystem(const std::string& type, const MountOptions& options,
                                 uint64_t attributes) {
  const Fd context(::fsopen(type.c_str(), FSOPEN_CLOEXEC));
  if (!context) return ErrnoStatus(absl::StrCat("open file system ", type));
  for (const auto& [key, value] : options) {
    if (::fsconfig(context.get(), FSCONFIG_SET_STRING, key.c_str(), value.c_str(), 0) != 0) {
      return ErrnoStatus(absl::StrCat("set ", type, " option ", key, "=", value));
    }
  }
  if (::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return ErrnoStatus(absl::StrCat("create file system ", type));
  }
  Fd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC, static_cast<unsigned>(attributes)));
  if (!mount) return ErrnoStatus(absl::StrCat("make mount of ", type));
  return mount;
}

// tmpfs(5) gives what is left out to the one who mounts it: root.
absl::StatusOr<Fd> NewTmpfs(uint64_t size_bytes, mode_t mode, uid_t uid, gid_t gid,
                            uint64_t attributes) {
  MountOptions options = {{"size", absl::StrCat(size_bytes)},
                          {"mode", absl::StrFormat("%o", mode)}};
  if (uid != 0) options.push_back({"uid", absl::StrCat(uid)});
  if (gid != 0) options.push_back({"gid", absl::StrCat(gid)});
  return NewFileSystem("tmpfs", options, attributes);
}

absl::StatusOr<Fd> CloneTree(const std::string& source, uint64_t attributes, uint64_t propagation) {
  constexpr unsigned kFlags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE;
  return Cloned(::open_tree(AT_FDCWD, source.c_str(), kFlags), source, attributes, propagation);
}

absl::StatusOr<Fd> CloneTree(int source_fd, uint64_t attributes, uint64_t propagation) {
  constexpr unsigned kFlags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH;
  return Cloned(::open_tree(source_fd, "", kFlags), "mount", attributes, propagation);
}

absl::Status SetAttributes(int mount_fd, uint64_t attributes) {
  mount_attr change = {};
  change.attr_set = attributes;
  if (::mount_setattr(mount_fd, "", AT_EMPTY_PATH, &change, sizeof(change)) != 0) {
    return ErrnoStatus("set mount flags");
  }
  return absl::OkStatus();
}

absl::Status MapIds(int mount_fd, int user_namespace) {
  mount_attr change = {};
  change.attr_set = MOUNT_ATTR_IDMAP;
  change.userns_fd = static_cast<uint64_t>(user_namespace);
  if (::mount_setattr(mount_fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &change, sizeof(change)) == 0) {
    return absl::OkStatus();
  }
  if (errno == EINVAL) {
    return absl::UnimplementedError(
        "its file system has no id-mapped mounts on this kernel, which userns needs");
  }
  return ErrnoStatus("map ids");
}

absl::Status MakeFileSystemReadOnly(int mount_fd) {
  const Fd context(::fspick(mount_fd, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH));
  if (!context) return ErrnoStatus("look at the file system");
  if (::fsconfig(context.get(), FSCONFIG_SET_FLAG, "ro", nullptr, 0) != 0 ||
      ::fsconfig(context.get(), FSCONFIG_CMD_RECONFIGURE, nullptr, nullptr, 0) != 0) {
    return ErrnoStatus("make the file system read-only");
  }
  return absl::OkStatus();
}

absl::Status Attach(int mount_fd, int target_fd) {
  constexpr unsigned kFlags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
  if (::move_mount(mount_fd, "", target_fd, "", kFlags) != 0) return ErrnoStatus("attach");
  return absl::OkStatus();
}

absl::StatusOr<Fd> OpenInRoot(int root_fd, const std::string& path) {
  return CheckedOpen(OpenAtRoot(root_fd, path, 0), path);
}

absl::StatusOr<Fd> MakeDirectoryInRoot(int root_fd, const std::string& path, Links links) {
  const int existing = OpenAtRoot(root_fd, path, O_DIRECTORY, links);
  if (existing >= 0 || errno != ENOENT) return CheckedOpen(existing, path);
  ASSIGN_OR_RETURN(const auto parts, SplitTarget(path));
  ASSIGN_OR_RETURN(const Fd parent, MakeDirectoryInRoot(root_fd, parts.first, links));
  if (::mkdirat(parent.get(), parts.second.c_str(), 0755) != 0 && errno != EEXIST) {
    return ErrnoStatus(absl::StrCat("make directory ", path));
  }
  // EEXIST is a dangling link or somebody's race: O_NOFOLLOW accepts a real directory only.
  constexpr int kFlags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  return CheckedOpen(::openat(parent.get(), parts.second.c_str(), kFlags), path);
}

absl::StatusOr<Fd> MakeFileInRoot(int root_fd, const std::string& path, Links links) {
  const int existing = OpenAtRoot(root_fd, path, 0, links);
  if (existing >= 0 || errno != ENOENT) return CheckedOpen(existing, path);
  ASSIGN_OR_RETURN(const auto parts, SplitTarget(path));
  ASSIGN_OR_RETURN(const Fd parent, MakeDirectoryInRoot(root_fd, parts.first, links));
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  return CheckedOpen(::openat(parent.get(), parts.second.c_str(), kFlags, 0644), path);
}

absl::StatusOr<Fd> OpenBelow(int directory_fd, const std::string& path) {
  open_how how = {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  const long fd = ::syscall(SYS_openat2, directory_fd, path.c_str(), &how, sizeof(how));
  return CheckedOpen(static_cast<int>(fd), path);
}

absl::StatusOr<std::pair<std::string, std::string>> SplitTarget(const std::string& path) {
  const std::vector<std::string> parts = absl::StrSplit(path, '/');
  if (parts.size() < 2 || !parts.front().empty() || path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' is not an absolute path"));
  }
  for (size_t i = 1; i < parts.size(); ++i) {
    if (parts[i].empty() || parts[i] == "." || parts[i] == "..") {
      return absl::InvalidArgumentError(
          absl::StrCat("'", path, "' is not a plain path: no '//', '.', '..' or '/' at the end"));
    }
  }
  const size_t slash = path.rfind('/');
  return std::make_pair(slash == 0 ? std::string("/") : path.substr(0, slash),
                        path.substr(slash + 1));
}

}  // namespace jenkins_agent
