#include "driver/image/image_files.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/image/layer_dir.h"
#include "driver/image/tar.h"

namespace jenkins_agent {
namespace {

constexpr int kMaxLinks = 8;  // to one file

absl::StatusOr<std::string> ReadText(ByteSource& source, size_t limit) {
  std::string text;
  char block[16 << 10];
  for (;;) {
    ASSIGN_OR_RETURN(const size_t count, source.Read(block, sizeof(block)));
    if (count == 0) return text;
    text.append(block, count);
    if (text.size() > limit) {
      return absl::OutOfRangeError(absl::StrCat("is longer than ", limit, " bytes"));
    }
  }
}

// A file with its descriptor.
class OwnedFileSource : public ByteSource {
 public:
  explicit OwnedFileSource(Fd fd) : fd_(std::move(fd)), source_(fd_.get()) {}
  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    return source_.Read(buffer, size);
  }

 private:
  const Fd fd_;
  FileSource source_;
};

class DirectoryFiles : public ImageFiles {
 public:
  explicit DirectoryFiles(Fd dir) : dir_(std::move(dir)) {}

  absl::StatusOr<std::string> Text(const std::string& name, size_t limit) override {
    ASSIGN_OR_RETURN(const Fd file, Open(name));
    return ReadAll(file.get(), limit);
  }
  absl::StatusOr<std::unique_ptr<ByteSource>> Stream(const std::string& name) override {
    ASSIGN_OR_RETURN(Fd file, Open(name));
    return std::make_unique<OwnedFileSource>(std::move(file));
  }
  absl::StatusOr<int64_t> Size(const std::string& name) override {
    ASSIGN_OR_RETURN(const Fd file, Open(name));
    struct stat info = {};
    if (::fstat(file.get(), &info) != 0) return ErrnoStatus(name);
    return static_cast<int64_t>(info.st_size);
  }

 private:
  // O_NONBLOCK: a FIFO does not make anybody wait.
  absl::StatusOr<Fd> Open(const std::string& name) const {
    return OpenAt2(dir_.get(), name, O_RDONLY | O_NONBLOCK,
                   RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
  }

  const Fd dir_;
};

// Where in the archive a file's content lies.
struct Extent {
  int64_t offset = 0;
  int64_t size = 0;
};

class ExtentSource : public ByteSource {
 public:
  ExtentSource(int fd, Extent extent) : fd_(fd), left_(extent) {}
  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    const auto wanted = static_cast<size_t>(std::min<int64_t>(left_.size, size));
    for (;;) {
      const ssize_t count = ::pread(fd_, buffer, wanted, left_.offset);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return ErrnoStatus("read");
      if (count == 0 && wanted > 0) return absl::DataLossError("the archive was cut meanwhile");
      left_ = {.offset = left_.offset + count, .size = left_.size - count};
      return static_cast<size_t>(count);
    }
  }

 private:
  const int fd_;
  Extent left_;
};

class ArchiveFiles : public ImageFiles {
 public:
  explicit ArchiveFiles(Fd file) : file_(std::move(file)) {}

  absl::Status Index() {
    RETURN_IF_ERROR(CheckIsPlain());
    FileSource source(file_.get());
    TarReader tar(source);
    TarEntry entry;
    for (size_t count = 0;; ++count) {
      ASSIGN_OR_RETURN(const bool more, tar.Next(entry));
      if (!more) return absl::OkStatus();
      if (count == kMaxArchiveEntries) {
        return absl::OutOfRangeError(
            absl::StrCat("has more than ", kMaxArchiveEntries, " entries: no archive of images"));
      }
      Add(entry, tar.content_offset());
    }
  }

  absl::StatusOr<std::string> Text(const std::string& name, size_t limit) override {
    ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> source, Stream(name));
    return ReadText(*source, limit);
  }
  absl::StatusOr<std::unique_ptr<ByteSource>> Stream(const std::string& name) override {
    ASSIGN_OR_RETURN(const Extent extent, Find(name));
    return std::make_unique<ExtentSource>(file_.get(), extent);
  }
  absl::StatusOr<int64_t> Size(const std::string& name) override {
    ASSIGN_OR_RETURN(const Extent extent, Find(name));
    return extent.size;
  }

 private:
  // What is behind a decompressor cannot be read in any order.
  absl::Status CheckIsPlain() const {
    char magic[6] = {};
    if (::pread(file_.get(), magic, sizeof(magic), 0) < 0) return ErrnoStatus("read");
    const absl::string_view begin(magic, sizeof(magic));
    for (const auto& [bytes, program] :
         {std::pair<absl::string_view, const char*>{"\x1f\x8b", "gunzip"},
          {"\x28\xb5\x2f\xfd", "unzstd"},
          {"\xfd"
           "7zXZ",
           "unxz"},
          {"BZh", "bunzip2"}}) {
      if (absl::StartsWith(begin, bytes)) {
        return absl::InvalidArgumentError(
            absl::StrCat("is compressed as a whole: unpack it first (", program, ")"));
      }
    }
    return absl::OkStatus();
  }

  // The last entry of a name counts, as for who unpacks the archive.
  void Add(const TarEntry& entry, int64_t offset) {
    std::vector<std::string> parts = CleanPath(entry.path);
    const std::string name = absl::StrJoin(parts, "/");
    files_.erase(name);
    links_.erase(name);
    if (entry.type == TarType::kFile) {
      files_[name] = {.offset = offset, .size = entry.size};
    } else if (entry.type == TarType::kHardLink) {
      links_[name] = absl::StrJoin(CleanPath(entry.link), "/");
    } else if (entry.type == TarType::kSymlink && !parts.empty()) {
      parts.pop_back();
      // CleanPath stays within the archive, wherever the link leads.
      links_[name] =
          absl::StrJoin(CleanPath(absl::StrCat(absl::StrJoin(parts, "/"), "/", entry.link)), "/");
    }
  }

  absl::StatusOr<Extent> Find(std::string name) const {
    for (int links = 0; links <= kMaxLinks; ++links) {
      if (const auto file = files_.find(name); file != files_.end()) return file->second;
      const auto link = links_.find(name);
      if (link == links_.end()) break;
      name = link->second;
    }
    return absl::NotFoundError(absl::StrCat("has no file '", name, "'"));
  }

  const Fd file_;
  std::map<std::string, Extent> files_;
  std::map<std::string, std::string> links_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> OpenFileSource(const std::string& path) {
  ASSIGN_OR_RETURN(Fd fd, OpenFile(path, O_RDONLY | O_NONBLOCK));
  return std::make_unique<OwnedFileSource>(std::move(fd));
}

absl::StatusOr<std::unique_ptr<ImageFiles>> OpenDirectoryFiles(const std::string& dir) {
  ASSIGN_OR_RETURN(Fd fd, OpenFile(dir, O_PATH | O_DIRECTORY));
  return std::make_unique<DirectoryFiles>(std::move(fd));
}

absl::StatusOr<std::unique_ptr<ImageFiles>> OpenArchiveFiles(const std::string& file) {
  ASSIGN_OR_RETURN(Fd fd, OpenFile(file, O_RDONLY | O_NONBLOCK));
  struct stat info = {};
  if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(file);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(file, " is no regular file"));
  }
  auto files = std::make_unique<ArchiveFiles>(std::move(fd));
  RETURN_IF_ERROR(files->Index(), file);
  return files;
}

}  // namespace jenkins_agent
