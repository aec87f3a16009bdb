#include "driver/image/tree_tar.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/image/layer_dir.h"
#include "driver/image/tar.h"

namespace jenkins_agent {
namespace {

constexpr size_t kBlock = 512;
constexpr size_t kXattrBytes = 64 << 10;     // of one list, and of one value: XATTR_SIZE_MAX
constexpr size_t kContentBytes = 256 << 10;  // read at once
constexpr char kWhiteoutPrefix[] = ".wh.";

// "<length> <key>=<value>\n", where the length counts itself.
std::string Record(absl::string_view key, absl::string_view value) {
  const size_t rest = key.size() + value.size() + 3;
  size_t length = rest + absl::StrCat(rest).size();
  if (absl::StrCat(length).size() > absl::StrCat(rest).size()) ++length;
  return absl::StrCat(length, " ", key, "=", value, "\n");
}

std::string Octal(uint64_t value, int digits) { return absl::StrFormat("%0*o", digits, value); }

void Put(std::string& block, size_t offset, absl::string_view text) {
  text.copy(block.data() + offset, std::min(text.size(), block.size() - offset));
}

// Offsets of pax(1), "ustar Header Block". Numbers and names that do not fit are in the PAX header.
std::string Header(char type, absl::string_view name, uint64_t size, mode_t mode, dev_t device) {
  std::string block(kBlock, '\0');
  Put(block, 0, name.substr(0, 99));
  Put(block, 100, Octal(mode, 7));
  Put(block, 108, Octal(0, 7));
  Put(block, 116, Octal(0, 7));
  Put(block, 124, Octal(size, 11));
  Put(block, 136, Octal(0, 11));
  block[156] = type;
  Put(block, 257,
      absl::string_view("ustar\0"
                        "00",
                        8));
  Put(block, 329, Octal(major(device), 7));
  Put(block, 337, Octal(minor(device), 7));
  Put(block, 148, std::string(8, ' '));
  uint64_t sum = 0;
  for (const char c : block) sum += static_cast<uint8_t>(c);
  Put(block, 148, absl::string_view(absl::StrCat(Octal(sum, 6), absl::string_view("\0 ", 2))));
  return block;
}

std::string Padded(std::string content) {
  content.resize((content.size() + kBlock - 1) / kBlock * kBlock);
  return content;
}

// What a tree becomes: a layer, or what its digest is made of, which has every attribute of a layer
// in the store, and no contents.
enum class TreeForm { kLayer, kDigest };

absl::StatusOr<std::string> XattrRecords(int fd, TreeForm form) {
  // Most have none: no memory for them.
  ssize_t size = ::flistxattr(fd, nullptr, 0);
  if (size == 0 || (size < 0 && errno == EOPNOTSUPP)) return std::string();
  std::string names(kXattrBytes, '\0');
  size = ::flistxattr(fd, names.data(), names.size());
  if (size < 0) return ErrnoStatus("list its attributes");
  names.resize(size);
  std::vector<std::string> sorted = absl::StrSplit(names, '\0', absl::SkipEmpty());
  std::sort(sorted.begin(), sorted.end());
  std::string records;
  for (const std::string& name : sorted) {
    const bool of_store = form == TreeForm::kDigest && name == kOpaqueXattr;
    if (!MayHaveXattr(name) && !of_store) continue;
    std::string value(kXattrBytes, '\0');
    const ssize_t length = ::fgetxattr(fd, name.c_str(), value.data(), value.size());
    if (length < 0) return ErrnoStatus(absl::StrCat("read its attribute ", name));
    records += Record(absl::StrCat("SCHILY.xattr.", name), value.substr(0, length));
  }
  return records;
}

// The names in an open directory, sorted.
absl::StatusOr<std::vector<std::string>> List(int dir) {
  ASSIGN_OR_RETURN(Fd own, OpenAt(dir, ".", O_RDONLY | O_DIRECTORY));
  DIR* const stream = ::fdopendir(own.get());
  if (stream == nullptr) return ErrnoStatus("list it");
  (void)own.Release();  // closed with the stream
  const absl::Cleanup close = [stream] { ::closedir(stream); };
  std::vector<std::string> names;
  for (errno = 0; const dirent* entry = ::readdir(stream); errno = 0) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (names.size() == static_cast<size_t>(kMaxLayerEntries)) {
      return absl::OutOfRangeError("holds too many names");
    }
    names.push_back(name);
  }
  if (errno != 0) return ErrnoStatus("list it");
  std::sort(names.begin(), names.end());
  return names;
}

class TreeTar : public ByteSource {
 public:
  // `known`, which must outlive it: files of which a digest need not read the content.
  TreeTar(Fd root, TreeForm form, const FileSums* known = nullptr)
      : root_(std::move(root)), form_(form), known_(known), content_(kContentBytes) {}

  absl::Status Begin() {
    struct stat info = {};
    if (::fstat(root_.get(), &info) != 0) return ErrnoStatus("stat");
    device_ = info.st_dev;
    RETURN_IF_ERROR(AddHeader(root_.get(), "./", "", '5', info));
    return Enter("");
  }

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    for (;;) {
      if (position_ < ready_.size()) {
        const size_t count = ready_.copy(buffer, size, position_);
        position_ += count;
        return count;
      }
      if (content_left_ > 0) return ReadContent(buffer, size);
      ready_.clear();
      position_ = 0;
      if (levels_.empty()) {
        if (ended_) return size_t{0};
        ended_ = true;
        ready_.assign(2 * kBlock, '\0');
        continue;
      }
      RETURN_IF_ERROR(Next());
    }
  }

 private:
  struct Level {
    std::string path;  // "" or ends with '/'
    std::vector<std::string> names;
    size_t next = 0;
  };

  // One descriptor however deep it goes: the way up is looked up anew.
  absl::Status Open(const std::string& path) {
    ASSIGN_OR_RETURN(dir_, OpenAt2(root_.get(), path.empty() ? "." : path, O_RDONLY | O_DIRECTORY,
                                   RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS));
    return absl::OkStatus();
  }

  absl::Status Enter(const std::string& path) {
    RETURN_IF_ERROR(Open(path));
    ASSIGN_OR_RETURN(std::vector<std::string> names, List(dir_.get()));
    levels_.push_back({.path = path, .names = std::move(names), .next = 0});
    return absl::OkStatus();
  }

  // Of the open file's content.
  absl::StatusOr<size_t> ReadPiece(char* buffer, size_t size) {
    const ssize_t count =
        ::read(file_.get(), buffer, std::min<uint64_t>(size, static_cast<uint64_t>(content_left_)));
    if (count < 0 && errno == EINTR) return ReadPiece(buffer, size);
    if (count < 0) return ErrnoStatus(absl::StrCat("read ", absl::CHexEscape(file_path_)));
    if (count == 0) {
      return absl::AbortedError(
          absl::StrCat("'", absl::CHexEscape(file_path_), "' became shorter while it was read"));
    }
    content_left_ -= count;
    return static_cast<size_t>(count);
  }

  absl::StatusOr<size_t> ReadContent(char* buffer, size_t size) {
    ASSIGN_OR_RETURN(const size_t count, ReadPiece(buffer, size));
    if (content_left_ == 0) {
      ready_.assign(padding_, '\0');
      position_ = 0;
    }
    return count;
  }

  absl::StatusOr<uint64_t> SumContent(ino_t inode) {
    const auto before = [](const FileSum& file, ino_t wanted) { return file.inode < wanted; };
    const auto known = std::lower_bound(known_->begin(), known_->end(), inode, before);
    if (known != known_->end() && known->inode == inode) {
      content_left_ = 0;
      return known->sum;
    }
    while (content_left_ > 0) {
      ASSIGN_OR_RETURN(const size_t count, ReadPiece(content_.data(), content_.size()));
      sum_.Add({content_.data(), count});
    }
    return sum_.Finish();
  }

  absl::Status Next() {
    Level& level = levels_.back();
    if (level.next == level.names.size()) {
      levels_.pop_back();
      return levels_.empty() ? absl::OkStatus() : Open(levels_.back().path);
    }
    const std::string name = level.names[level.next++];
    const std::string path = level.path + name;
    return Annotate(AddEntry(dir_.get(), name, path),
                    absl::StrCat("'", absl::CHexEscape(path), "'"));
  }

  absl::Status AddEntry(int dir, const std::string& name, const std::string& path) {
    struct stat info = {};
    if (::fstatat(dir, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return ErrnoStatus("stat");
    if (S_ISSOCK(info.st_mode)) return absl::OkStatus();
    if (absl::StartsWith(name, kWhiteoutPrefix)) {
      return absl::InvalidArgumentError("has a name that in layers of images means a deletion");
    }
    if (++entries_ > kMaxLayerEntries) return absl::OutOfRangeError("is one entry too many");
    if (!S_ISDIR(info.st_mode) && info.st_nlink > 1) {
      const auto [first, is_new] = linked_.try_emplace({info.st_dev, info.st_ino}, path);
      if (!is_new) return AddHeader(-1, path, first->second, '1', info);
    }
    switch (info.st_mode & S_IFMT) {
      case S_IFDIR:
        return AddDirectory(dir, name, path, info);
      case S_IFREG:
        return AddFile(dir, name, path, info);
      case S_IFLNK:
        return AddSymlink(dir, name, path, info);
      case S_IFIFO:
        return AddHeader(-1, path, "", '6', info);
      default:
        return AddHeader(-1, path, "", S_ISCHR(info.st_mode) ? '3' : '4', info);
    }
  }

  absl::Status AddDirectory(int dir, const std::string& name, const std::string& path,
                            const struct stat& info) {
    ASSIGN_OR_RETURN(const Fd fd, OpenAt(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    RETURN_IF_ERROR(AddHeader(fd.get(), path + "/", "", '5', info));
    if (info.st_dev != device_) return absl::OkStatus();
    return Enter(path + "/");
  }

  absl::Status AddFile(int dir, const std::string& name, const std::string& path,
                       const struct stat& info) {
    ASSIGN_OR_RETURN(file_, OpenAt(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    file_path_ = path;
    RETURN_IF_ERROR(AddHeader(file_.get(), path, "", '0', info));
    content_left_ = info.st_size;
    if (form_ == TreeForm::kDigest) {
      ASSIGN_OR_RETURN(const uint64_t sum, SumContent(info.st_ino));
      ready_ += Record("content", absl::StrCat(absl::Hex(sum, absl::kZeroPad16)));
      return absl::OkStatus();
    }
    padding_ = static_cast<size_t>(-static_cast<uint64_t>(info.st_size) & (kBlock - 1));
    return absl::OkStatus();
  }

  absl::Status AddSymlink(int dir, const std::string& name, const std::string& path,
                          const struct stat& info) {
    std::string target(PATH_MAX, '\0');
    const ssize_t size = ::readlinkat(dir, name.c_str(), target.data(), target.size());
    if (size < 0) return ErrnoStatus("readlink");
    target.resize(size);
    return AddHeader(-1, path, target, '2', info);
  }

  // `fd`: what may have attributes; -1: it has none that count.
  absl::Status AddHeader(int fd, const std::string& path, const std::string& link, char type,
                         const struct stat& info) {
    const int64_t size = type == '0' ? info.st_size : 0;
    if (path.size() > kMaxTarPathBytes) return absl::OutOfRangeError("has too long a path");
    std::string records = Record("path", path);
    if (!link.empty()) records += Record("linkpath", link);
    records +=
        Record("uid", absl::StrCat(info.st_uid)) + Record("gid", absl::StrCat(info.st_gid)) +
        Record("size", absl::StrCat(size)) +
        Record("mtime", absl::StrFormat("%d.%09d", info.st_mtim.tv_sec, info.st_mtim.tv_nsec));
    if (fd >= 0) {
      ASSIGN_OR_RETURN(const std::string xattrs, XattrRecords(fd, form_));
      records += xattrs;
    }
    const bool device = type == '3' || type == '4';
    if (form_ == TreeForm::kDigest) {
      ready_ += Record("type", absl::StrCat(absl::string_view(&type, 1), " ", info.st_mode & 07777,
                                            " ", device ? info.st_rdev : 0)) +
                records;
      return absl::OkStatus();
    }
    ready_ += Header('x', "PaxHeader", records.size(), 0644, 0);
    ready_ += Padded(records);
    // A size beyond the field's 11 digits counts in the PAX record only.
    ready_ += Header(type, path, static_cast<uint64_t>(size) >> 33 == 0 ? size : 0,
                     info.st_mode & 07777, device ? info.st_rdev : 0);
    return absl::OkStatus();
  }

  const Fd root_;
  const TreeForm form_;
  const FileSums* const known_;
  std::vector<char> content_;
  ContentSum sum_;
  Fd dir_;  // of the last level
  dev_t device_ = 0;
  std::vector<Level> levels_;
  int64_t entries_ = 0;
  std::map<std::pair<dev_t, ino_t>, std::string> linked_;  // to their first names
  std::string ready_;
  size_t position_ = 0;
  Fd file_;
  std::string file_path_;
  int64_t content_left_ = 0;
  size_t padding_ = 0;
  bool ended_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> TarOfTree(Fd root) {
  auto tar = std::make_unique<TreeTar>(std::move(root), TreeForm::kLayer);
  RETURN_IF_ERROR(tar->Begin());
  return tar;
}

absl::StatusOr<Digest> DigestOfTree(Fd root, const FileSums& known) {
  TreeTar tree(std::move(root), TreeForm::kDigest, &known);
  RETURN_IF_ERROR(tree.Begin());
  HashingSource hashed(tree, std::numeric_limits<int64_t>::max() - 1);
  RETURN_IF_ERROR(Drain(hashed));
  return hashed.Finish();
}

}  // namespace jenkins_agent
