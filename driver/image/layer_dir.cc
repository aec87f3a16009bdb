#include "driver/image/layer_dir.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <deque>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr char kWhiteoutPrefix[] = ".wh.";
constexpr char kAufsPrefix[] = ".wh..wh.";
constexpr char kOpaqueMarker[] = ".wh..wh..opq";
constexpr mode_t kInventedMode = 0755;
constexpr size_t kShownBytes = 200;
constexpr uint64_t kInRoot = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
constexpr uint64_t kNoLinks = kInRoot | RESOLVE_NO_SYMLINKS;

absl::Status Wrong(absl::string_view what) { return absl::InvalidArgumentError(what); }

std::string Shown(absl::string_view path) { return absl::CHexEscape(path.substr(0, kShownBytes)); }

// A path by which calls that take no descriptor, or not of this kind, reach an open file.
std::string ProcPath(int fd) { return absl::StrCat("/proc/self/fd/", fd); }

std::string Join(absl::string_view dir, absl::string_view name) {
  return absl::StrCat(dir, dir.empty() ? "" : "/", name);
}

// Is `dir` in `dirs`, or one of its parents?
bool IsBelow(const std::set<std::string>& dirs, std::string dir) {
  for (;;) {
    if (dirs.count(dir) > 0) return true;
    if (dir.empty()) return false;
    const size_t slash = dir.rfind('/');
    dir = slash == std::string::npos ? "" : dir.substr(0, slash);
  }
}

const std::string& PathOf(const std::string& element) { return element; }
template <typename Value>
const std::string& PathOf(const std::pair<const std::string, Value>& element) {
  return element.first;
}

// Removes `dir` and all below it from a set or map of paths.
template <typename Paths>
void ForgetIn(Paths& paths, const std::string& dir) {
  paths.erase(dir);
  const std::string prefix = dir + "/";
  auto at = paths.lower_bound(prefix);
  while (at != paths.end() && absl::StartsWith(PathOf(*at), prefix)) at = paths.erase(at);
}

absl::Status SetXattrs(int fd, const TarEntry& entry) {
  for (const auto& [name, value] : entry.xattrs) {
    if (!MayHaveXattr(name)) continue;
    if (::fsetxattr(fd, name.c_str(), value.data(), value.size(), 0) == 0) continue;
    // Attributes of users and access lists are left out where the store's file system has none.
    if (errno == EOPNOTSUPP && name != "security.capability") continue;
    return ErrnoStatus(absl::StrCat("set the attribute ", Shown(name)));
  }
  return absl::OkStatus();
}

absl::Status SetTimes(int fd, int64_t seconds, int64_t nanoseconds) {
  const timespec time = {.tv_sec = seconds, .tv_nsec = nanoseconds};
  const timespec times[2] = {time, time};
  return ::futimens(fd, times) == 0 ? absl::OkStatus() : ErrnoStatus("set its time");
}

// In this order: chown clears set-id bits and capabilities.
absl::Status SetOwnerModeXattrs(int fd, const TarEntry& entry) {
  if (::fchown(fd, entry.uid, entry.gid) != 0) return ErrnoStatus("chown");
  if (::fchmod(fd, entry.mode) != 0) return ErrnoStatus("chmod");
  return SetXattrs(fd, entry);
}

// For objects that a descriptor cannot stand for: links, and what O_PATH opened is not to follow.
absl::Status SetOwnerTimeOfName(int parent, const std::string& name, const TarEntry& entry) {
  if (::fchownat(parent, name.c_str(), entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus("chown");
  }
  const timespec time = {.tv_sec = entry.mtime_s, .tv_nsec = entry.mtime_ns};
  const timespec times[2] = {time, time};
  if (::utimensat(parent, name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus("set its time");
  }
  return absl::OkStatus();
}

// Copies what overlayfs takes from the topmost directory.
absl::Status CopyAttributes(int from, int to) {
  struct stat info = {};
  if (::fstatat(from, "", &info, AT_EMPTY_PATH) != 0) return ErrnoStatus("stat");
  TarEntry like;
  like.uid = info.st_uid;
  like.gid = info.st_gid;
  like.mode = info.st_mode & 07777;
  std::string names(64 << 10, '\0');
  const ssize_t size = ::listxattr(ProcPath(from).c_str(), names.data(), names.size());
  if (size < 0 && errno != EOPNOTSUPP) return ErrnoStatus("list its attributes");
  names.resize(std::max<ssize_t>(size, 0));
  for (const absl::string_view name : absl::StrSplit(names, '\0', absl::SkipEmpty())) {
    std::string value(64 << 10, '\0');
    const ssize_t length =
        ::getxattr(ProcPath(from).c_str(), std::string(name).c_str(), value.data(), value.size());
    if (length < 0) return ErrnoStatus("read its attributes");
    like.xattrs.emplace_back(name, value.substr(0, length));
  }
  RETURN_IF_ERROR(SetOwnerModeXattrs(to, like));
  return SetTimes(to, info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
}

// Where `dir` is in `lower`. NotFound: not there. FailedPrecondition: hidden there, or no
// directory, so that nothing further down counts either.
absl::StatusOr<Fd> FindLower(int lower, const std::string& dir) {
  absl::StatusOr<Fd> fd = OpenAt2(lower, dir, O_PATH | O_NOFOLLOW, kNoLinks);
  struct stat info = {};
  if (!fd.ok()) {
    return absl::IsNotFound(fd.status()) ? fd.status() : absl::FailedPreconditionError(dir);
  }
  if (::fstatat(fd->get(), "", &info, AT_EMPTY_PATH) != 0) return ErrnoStatus("stat");
  if (!S_ISDIR(info.st_mode)) return absl::FailedPreconditionError(dir);
  return fd;
}

}  // namespace

// What an image may set. The others are this host's to decide (labels, IMA), or would give orders
// to overlayfs.
bool MayHaveXattr(absl::string_view name) {
  if (absl::StartsWith(name, "user.overlay.")) return false;
  return name == "security.capability" || name == "system.posix_acl_access" ||
         name == "system.posix_acl_default" || absl::StartsWith(name, "user.");
}

std::vector<std::string> CleanPath(absl::string_view path) {
  std::vector<std::string> parts;
  for (const absl::string_view part : absl::StrSplit(path, '/', absl::SkipEmpty())) {
    if (part == ".") continue;
    if (part != "..") {
      parts.emplace_back(part);
    } else if (!parts.empty()) {
      parts.pop_back();
    }
  }
  return parts;
}

absl::Status LayerDir::Add(const TarEntry& entry, TarReader& tar) {
  if (++entries_ > kMaxLayerEntries) {
    return absl::OutOfRangeError(absl::StrCat("has more than ", kMaxLayerEntries, " entries"));
  }
  return Annotate(AddChecked(entry, tar), absl::StrCat("'", Shown(entry.path), "'"));
}

absl::Status LayerDir::AddChecked(const TarEntry& entry, TarReader& tar) {
  const std::vector<std::string> parts = CleanPath(entry.path);
  if (parts.empty()) return SetRootAttributes(entry);
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    if (absl::StartsWith(parts[i], kWhiteoutPrefix)) {
      return Wrong("is an invalid whiteout: it lies in one");
    }
  }
  ASSIGN_OR_RETURN(const Place place, Find(parts));
  if (absl::StartsWith(place.name, kWhiteoutPrefix)) return AddWhiteout(place, place.name);
  switch (entry.type) {
    case TarType::kDirectory:
      return AddDirectory(entry, place);
    case TarType::kFile:
      return AddFile(entry, place, tar);
    case TarType::kHardLink:
      return AddHardLink(entry, place);
    case TarType::kSymlink:
      return AddSymlink(entry, place);
    default:
      return AddNode(entry, place);
  }
}

absl::Status LayerDir::SetRootAttributes(const TarEntry& entry) {
  if (entry.type != TarType::kDirectory) return Wrong("is the root, which must be a directory");
  RETURN_IF_ERROR(SetOwnerModeXattrs(root_, entry));
  dir_times_[""] = {.seconds = entry.mtime_s, .nanoseconds = entry.mtime_ns};
  return absl::OkStatus();
}

absl::Status LayerDir::AddWhiteout(const Place& place, absl::string_view marker) {
  if (marker == kOpaqueMarker) {
    RETURN_IF_ERROR(Remember(place.dir.size()));
    opaque_.insert(place.dir);
    return absl::OkStatus();
  }
  if (absl::StartsWith(marker, kAufsPrefix)) return absl::OkStatus();  // AUFS' own accounts
  const absl::string_view hidden = absl::StripPrefix(marker, kWhiteoutPrefix);
  if (hidden.empty() || hidden == "." || hidden == "..") {
    return Wrong("is an invalid whiteout: it hides no name");
  }
  RETURN_IF_ERROR(Remember(place.dir.size() + hidden.size()));
  whiteouts_.insert(Join(place.dir, hidden));
  return absl::OkStatus();
}

absl::Status LayerDir::AddDirectory(const TarEntry& entry, const Place& place) {
  const std::string path = Join(place.dir, place.name);
  if (::mkdirat(place.parent, place.name.c_str(), kInventedMode) != 0) {
    if (errno != EEXIST) return ErrnoStatus("mkdir");
    struct stat info = {};
    if (::fstatat(place.parent, place.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      return ErrnoStatus("stat");
    }
    if (!S_ISDIR(info.st_mode)) {
      RETURN_IF_ERROR(RemoveExisting(place));
      if (::mkdirat(place.parent, place.name.c_str(), kInventedMode) != 0) {
        return ErrnoStatus("mkdir");
      }
    }
  }
  ASSIGN_OR_RETURN(const Fd dir,
                   OpenAt(place.parent, place.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  RETURN_IF_ERROR(SetOwnerModeXattrs(dir.get(), entry));
  RETURN_IF_ERROR(Remember(path.size()));
  invented_.erase(path);
  dir_times_[path] = {.seconds = entry.mtime_s, .nanoseconds = entry.mtime_ns};
  return absl::OkStatus();
}

absl::Status LayerDir::AddFile(const TarEntry& entry, const Place& place, TarReader& tar) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
  absl::StatusOr<Fd> file = OpenAt(place.parent, place.name, kFlags, 0600);
  if (absl::IsAlreadyExists(file.status())) {
    RETURN_IF_ERROR(RemoveExisting(place));
    file = OpenAt(place.parent, place.name, kFlags, 0600);
  }
  RETURN_IF_ERROR(file.status());
  for (;;) {
    ASSIGN_OR_RETURN(const absl::string_view piece, tar.Content());
    if (piece.empty()) break;
    content_.Add(piece);
    RETURN_IF_ERROR(WriteAll(file->get(), piece));
  }
  struct stat info = {};
  if (::fstat(file->get(), &info) != 0) return ErrnoStatus("stat");
  sums_.push_back({.inode = info.st_ino, .sum = content_.Finish()});
  RETURN_IF_ERROR(SetOwnerModeXattrs(file->get(), entry));
  return SetTimes(file->get(), entry.mtime_s, entry.mtime_ns);
}

absl::Status LayerDir::AddHardLink(const TarEntry& entry, const Place& place) {
  const std::vector<std::string> parts = CleanPath(entry.link);
  if (parts.empty()) return Wrong("is a hard link to the root");
  const std::string dir(absl::StrJoin(parts.begin(), parts.end() - 1, "/"));
  const absl::StatusOr<Fd> target =
      OpenAt2(root_, dir.empty() ? "." : dir, O_PATH | O_DIRECTORY, kInRoot);
  // Not through a link in the last part, which is then itself what gets a second name.
  struct stat info = {};
  if (!target.ok() ||
      ::fstatat(target->get(), parts.back().c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    return Wrong(
        absl::StrCat("is a hard link to '", Shown(entry.link), "', which is not in this layer"));
  }
  if (S_ISDIR(info.st_mode)) return Wrong("is a hard link to a directory");
  struct stat own = {};
  if (::fstatat(place.parent, place.name.c_str(), &own, AT_SYMLINK_NOFOLLOW) == 0) {
    if (own.st_ino == info.st_ino && own.st_dev == info.st_dev) return absl::OkStatus();
    RETURN_IF_ERROR(RemoveExisting(place));
  }
  if (::linkat(target->get(), parts.back().c_str(), place.parent, place.name.c_str(), 0) != 0) {
    return ErrnoStatus("link");
  }
  return absl::OkStatus();
}

absl::Status LayerDir::AddSymlink(const TarEntry& entry, const Place& place) {
  if (entry.link.empty()) return Wrong("is a link to nothing");
  RETURN_IF_ERROR(RemoveExisting(place));
  if (::symlinkat(entry.link.c_str(), place.parent, place.name.c_str()) != 0) {
    return ErrnoStatus("symlink");
  }
  return SetOwnerTimeOfName(place.parent, place.name, entry);
}

absl::Status LayerDir::AddNode(const TarEntry& entry, const Place& place) {
  const mode_t kind = entry.type == TarType::kFifo         ? S_IFIFO
                      : entry.type == TarType::kCharDevice ? S_IFCHR
                                                           : S_IFBLK;
  const dev_t device = ::makedev(entry.device_major, entry.device_minor);
  if (kind == S_IFCHR && device == 0) return Wrong("is a device 0:0, overlayfs' own sign");
  RETURN_IF_ERROR(RemoveExisting(place));
  if (::mknodat(place.parent, place.name.c_str(), kind | 0600, device) != 0) {
    return ErrnoStatus("mknod");
  }
  RETURN_IF_ERROR(SetOwnerTimeOfName(place.parent, place.name, entry));
  // O_PATH: opening a device or a FIFO for real has effects.
  ASSIGN_OR_RETURN(const Fd node, OpenAt(place.parent, place.name, O_PATH | O_NOFOLLOW));
  if (::chmod(ProcPath(node.get()).c_str(), entry.mode) != 0) return ErrnoStatus("chmod");
  return absl::OkStatus();
}

absl::StatusOr<LayerDir::Place> LayerDir::Find(const std::vector<std::string>& parts) {
  const std::string written = absl::StrJoin(parts.begin(), parts.end() - 1, "/");
  if (!parent_.valid() || written != parent_parts_) {
    parent_.Reset();
    parent_dir_ = written;
    absl::StatusOr<Fd> dir = OpenDir(written);
    if (!dir.ok()) {  // not there yet, or behind links
      ASSIGN_OR_RETURN(parent_dir_, ResolveDir({parts.begin(), parts.end() - 1}));
      dir = OpenDir(parent_dir_);
    }
    ASSIGN_OR_RETURN(parent_, std::move(dir));
    parent_parts_ = written;
  }
  return Place{.parent = parent_.get(), .dir = parent_dir_, .name = parts.back()};
}

absl::StatusOr<Fd> LayerDir::OpenDir(const std::string& dir) const {
  return OpenAt2(root_, dir.empty() ? "." : dir, O_RDONLY | O_DIRECTORY, kNoLinks);
}

absl::StatusOr<std::string> LayerDir::ResolveDir(std::vector<std::string> parts) {
  std::deque<std::string> left(parts.begin(), parts.end());
  std::vector<std::string> found;
  Fd parent;  // what `found` names, once it is needed
  for (int links = 0; !left.empty();) {
    const std::string part = left.front();
    left.pop_front();
    if (part == "..") {
      if (!found.empty()) found.pop_back();
      parent.Reset();
      continue;
    }
    const std::string dir = absl::StrJoin(found, "/");
    if (!parent.valid()) {
      ASSIGN_OR_RETURN(parent, OpenDir(dir));
    }
    constexpr int kDirItself = O_PATH | O_DIRECTORY | O_NOFOLLOW;
    if (absl::StatusOr<Fd> next = OpenAt(parent.get(), part, kDirItself); next.ok()) {
      found.push_back(part);
      parent = *std::move(next);
      continue;
    }
    struct stat info = {};
    const bool exists = ::fstatat(parent.get(), part.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
    if (!exists && errno != ENOENT) return ErrnoStatus("stat its directory");
    if (exists && S_ISLNK(info.st_mode)) {
      if (++links > kMaxLinksFollowed) return Wrong("lies behind too many links");
      std::string target(PATH_MAX, '\0');
      const ssize_t size = ::readlinkat(parent.get(), part.c_str(), target.data(), target.size());
      if (size < 0) return ErrnoStatus("readlink");
      target.resize(size);
      if (target[0] == '/') found.clear();
      parent.Reset();
      std::vector<std::string> more;
      for (const absl::string_view piece : absl::StrSplit(target, '/', absl::SkipEmpty())) {
        if (piece != ".") more.emplace_back(piece);
      }
      left.insert(left.begin(), more.begin(), more.end());
      continue;
    }
    found.push_back(part);
    // Entries may come before their directory, or without it; what lies in its place is replaced.
    if (exists) {
      RETURN_IF_ERROR(RemoveExisting({.parent = parent.get(), .dir = dir, .name = part}));
    }
    if (::mkdirat(parent.get(), part.c_str(), kInventedMode) != 0) return ErrnoStatus("mkdir");
    RETURN_IF_ERROR(MakeInvented(absl::StrJoin(found, "/")));
    ASSIGN_OR_RETURN(parent, OpenAt(parent.get(), part, kDirItself));
  }
  return absl::StrJoin(found, "/");
}

absl::Status LayerDir::MakeInvented(const std::string& dir) {
  RETURN_IF_ERROR(Remember(dir.size()));
  invented_.insert(dir);
  return absl::OkStatus();
}

absl::Status LayerDir::Remember(size_t bytes) {
  constexpr size_t kNode = 96;  // of a set's element beside its text
  remembered_bytes_ += bytes + kNode;
  if (remembered_bytes_ > kMaxRememberedBytes) {
    return absl::OutOfRangeError("is one directory or whiteout too many");
  }
  return absl::OkStatus();
}

void LayerDir::Forget(const std::string& dir) {
  ForgetIn(dir_times_, dir);
  ForgetIn(invented_, dir);
  ForgetIn(opaque_, dir);
}

absl::Status LayerDir::RemoveExisting(const Place& place) {
  if (::unlinkat(place.parent, place.name.c_str(), 0) == 0 || errno == ENOENT) {
    return absl::OkStatus();
  }
  if (errno != EISDIR && errno != EPERM) return ErrnoStatus("unlink");
  RETURN_IF_ERROR(RemoveTree(absl::StrCat(ProcPath(place.parent), "/", place.name)));
  Forget(Join(place.dir, place.name));
  return absl::OkStatus();
}

absl::Status LayerDir::Finish() {
  parent_.Reset();
  for (const std::string& path : whiteouts_) {
    const size_t slash = path.rfind('/');
    const std::string dir = slash == std::string::npos ? "" : path.substr(0, slash);
    const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
    // Where nothing of below is to be seen, a whiteout would be: as a name that cannot be opened.
    if (IsBelow(opaque_, dir)) continue;
    const absl::StatusOr<Fd> parent = OpenDir(dir);
    if (!parent.ok()) continue;  // replaced by something else later in the layer
    struct stat info = {};
    if (::fstatat(parent->get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) {
      // A whiteout hides names of the layers below only: what is here stays, a directory alone.
      if (S_ISDIR(info.st_mode)) opaque_.insert(path);
    } else if (::mknodat(parent->get(), name.c_str(), S_IFCHR, 0) != 0) {
      return ErrnoStatus(absl::StrCat("make the whiteout of '", Shown(path), "'"));
    }
  }
  for (const std::string& path : opaque_) {
    ASSIGN_OR_RETURN(const Fd dir, OpenDir(path), "'", Shown(path), "'");
    if (::fsetxattr(dir.get(), kOpaqueXattr, "y", 1, 0) != 0) {
      return ErrnoStatus(absl::StrCat("make '", Shown(path), "' opaque"));
    }
  }
  for (const auto& [path, times] : dir_times_) {
    ASSIGN_OR_RETURN(const Fd dir, OpenDir(path), "'", Shown(path), "'");
    RETURN_IF_ERROR(SetTimes(dir.get(), times.seconds, times.nanoseconds), "'", Shown(path), "'");
  }
  return absl::OkStatus();
}

std::vector<std::string> LayerDir::InventedDirs() const {
  return {invented_.begin(), invented_.end()};
}

FileSums LayerDir::TakeSums() {
  const auto by_inode = [](const FileSum& a, const FileSum& b) { return a.inode < b.inode; };
  const auto same_inode = [](const FileSum& a, const FileSum& b) { return a.inode == b.inode; };
  std::reverse(sums_.begin(), sums_.end());  // the last one written comes first, and stays
  std::stable_sort(sums_.begin(), sums_.end(), by_inode);
  sums_.erase(std::unique(sums_.begin(), sums_.end(), same_inode), sums_.end());
  return std::move(sums_);
}

absl::Status TakeAttributes(int layer, const std::vector<std::string>& invented,
                            const std::vector<int>& lowers) {
  for (const std::string& path : invented) {
    for (const int lower : lowers) {
      const absl::StatusOr<Fd> from = FindLower(lower, path);
      if (absl::IsNotFound(from.status())) continue;
      if (!from.ok()) break;
      ASSIGN_OR_RETURN(const Fd to, OpenAt2(layer, path, O_RDONLY | O_DIRECTORY, kNoLinks), "'",
                       Shown(path), "'");
      RETURN_IF_ERROR(CopyAttributes(from->get(), to.get()), "'", Shown(path), "'");
      break;
    }
  }
  return absl::OkStatus();
}

}  // namespace jenkins_agent
