#include "driver/image/merged_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr int kMaxLinks = 40;       // the kernel's (path_resolution(7))
constexpr size_t kMaxParts = 4096;  // that are looked at, for one path
constexpr size_t kMaxShown = 80;    // bytes of a path that is too long
constexpr size_t kMaxNames = 1000;
constexpr char kOpaque[] = "trusted.overlay.opaque";

bool IsWhiteout(const struct stat& found) { return S_ISCHR(found.st_mode) && found.st_rdev == 0; }

bool IsOpaque(int dir_fd) {
  char value = 0;
  return ::fgetxattr(dir_fd, kOpaque, &value, 1) == 1 && value == 'y';
}

std::string LinkText(int link_fd) {
  std::string text(PATH_MAX, '\0');
  const ssize_t size = ::readlinkat(link_fd, "", text.data(), text.size());
  text.resize(size > 0 ? static_cast<size_t>(size) : 0);
  return text;
}

absl::Status Missing(absl::string_view path) {
  return absl::NotFoundError(absl::StrCat(path, " is not in the image"));
}

void PushFront(absl::string_view path, std::deque<std::string>& parts) {
  const std::vector<std::string> more = absl::StrSplit(path, '/', absl::SkipEmpty());
  parts.insert(parts.begin(), more.begin(), more.end());
}

absl::StatusOr<std::vector<Fd>> DuplicateAll(const std::vector<Fd>& fds) {
  std::vector<Fd> copies;
  for (const Fd& fd : fds) {
    ASSIGN_OR_RETURN(copies.emplace_back(), Duplicate(fd.get()));
  }
  return copies;
}

}  // namespace

absl::StatusOr<MergedTree> MergedTree::Open(const std::vector<std::string>& layers) {
  std::vector<Fd> opened;
  for (const std::string& layer : layers) {
    ASSIGN_OR_RETURN(opened.emplace_back(), OpenFile(layer, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  }
  return MergedTree(std::move(opened));
}

// One name in a merged directory: the topmost layer that has it decides, and a directory goes on
// into the layers below until one hides them.
absl::StatusOr<MergedTree::Node> MergedTree::Step(const std::vector<Fd>& dirs,
                                                  const std::string& name) {
  Node node;
  for (const Fd& dir : dirs) {
    absl::StatusOr<Fd> found = OpenAt(dir.get(), name, O_PATH | O_NOFOLLOW);
    if (absl::IsNotFound(found.status())) continue;
    RETURN_IF_ERROR(found.status());
    struct stat info = {};
    if (::fstat(found->get(), &info) != 0) return ErrnoStatus(name);
    if (IsWhiteout(info)) break;
    if (!S_ISDIR(info.st_mode)) {
      if (node.dirs.empty()) node.file = *std::move(found);
      break;
    }
    ASSIGN_OR_RETURN(Fd opened, OpenAt(dir.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    const bool opaque = IsOpaque(opened.get());
    node.dirs.push_back(std::move(opened));
    if (opaque) break;
  }
  return node;
}

// Of the directories on the way only the last is open: an image may have as many as it likes in
// each of its layers. ".." begins again at the root.
absl::StatusOr<MergedTree::Node> MergedTree::Walk(absl::string_view path) const {
  std::deque<std::string> left;
  PushFront(path, left);
  std::vector<std::string> done;
  std::vector<Fd> opened;
  const std::vector<Fd>* here = &layers_;  // or `opened`
  const auto begin_again = [&] {
    left.insert(left.begin(), done.begin(), done.end());
    done.clear();
    here = &layers_;
  };
  int links = 0;
  for (size_t steps = 0; !left.empty(); ++steps) {
    if (steps == kMaxParts) {
      return absl::FailedPreconditionError(absl::StrCat(path.substr(0, kMaxShown), ": too long"));
    }
    const std::string name = std::move(left.front());
    left.pop_front();
    if (name == ".") continue;
    if (name == "..") {
      if (!done.empty()) done.pop_back();
      begin_again();
      continue;
    }
    ASSIGN_OR_RETURN(Node node, Step(*here, name));
    if (!node.dirs.empty()) {
      done.push_back(name);
      opened = std::move(node.dirs);
      here = &opened;
      continue;
    }
    if (!node.file) return Missing(path);
    struct stat info = {};
    if (::fstat(node.file.get(), &info) != 0) return ErrnoStatus(path);
    if (S_ISLNK(info.st_mode)) {
      const std::string text = LinkText(node.file.get());
      if (++links > kMaxLinks) {
        return absl::FailedPreconditionError(absl::StrCat(path, ": too many symbolic links"));
      }
      if (text.empty()) return Missing(path);
      if (text.front() == '/') {
        done.clear();
        here = &layers_;
      }
      PushFront(text, left);
      continue;
    }
    if (!left.empty()) return Missing(path);
    done.push_back(name);
    node.resolved = absl::StrCat("/", absl::StrJoin(done, "/"));
    return node;
  }
  Node node;
  if (here == &layers_) {
    ASSIGN_OR_RETURN(node.dirs, DuplicateAll(layers_));
  } else {
    node.dirs = std::move(opened);
  }
  node.resolved = absl::StrCat("/", absl::StrJoin(done, "/"));
  return node;
}

absl::StatusOr<std::string> MergedTree::Resolve(absl::string_view path) const {
  ASSIGN_OR_RETURN(Node node, Walk(path));
  return std::move(node.resolved);
}

absl::StatusOr<std::string> MergedTree::ReadFile(absl::string_view path, size_t limit) const {
  ASSIGN_OR_RETURN(const Node node, Walk(path));
  struct stat info = {};
  if (!node.file || ::fstat(node.file.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is no file"));
  }
  // A file of a published layer: nobody changes it, and it is no link.
  ASSIGN_OR_RETURN(const Fd file,
                   OpenFile(absl::StrCat("/proc/self/fd/", node.file.get()), O_RDONLY));
  return ReadAll(file.get(), limit);
}

bool MergedTree::IsProgram(absl::string_view path) const {
  const absl::StatusOr<Node> node = Walk(path);
  struct stat info = {};
  return node.ok() && node->file && ::fstat(node->file.get(), &info) == 0 &&
         S_ISREG(info.st_mode) && (info.st_mode & 0111) != 0;
}

std::vector<std::string> MergedTree::List(absl::string_view path) const {
  const absl::StatusOr<Node> node = Walk(path);
  if (!node.ok()) return {};
  std::set<std::string> names;
  for (const Fd& dir : node->dirs) {
    absl::StatusOr<Fd> own = OpenAt(dir.get(), ".", O_RDONLY | O_DIRECTORY);
    if (!own.ok()) continue;
    DIR* const stream = ::fdopendir(own->get());
    if (stream == nullptr) continue;
    own->Release();
    const absl::Cleanup close = [stream] { ::closedir(stream); };
    while (const dirent* entry = ::readdir(stream)) {
      const std::string name = entry->d_name;
      if (name != "." && name != ".." && names.size() < kMaxNames) names.insert(name);
    }
  }
  std::vector<std::string> there;
  for (const std::string& name : names) {
    const absl::StatusOr<Node> entry = Step(node->dirs, name);
    if (entry.ok() && (!entry->dirs.empty() || entry->file)) there.push_back(name);
  }
  return there;
}

}  // namespace jenkins_agent
