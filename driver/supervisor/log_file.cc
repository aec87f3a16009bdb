#include "driver/supervisor/log_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr uint64_t kJobsReach = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
constexpr uint64_t kAnySize = std::numeric_limits<uint64_t>::max();

// A second name could be a file of somebody else (fs.protected_hardlinks may be off).
bool IsPlain(const struct stat& info) { return S_ISREG(info.st_mode) && info.st_nlink == 1; }

}  // namespace

size_t PartForThisFile(absl::string_view bytes, uint64_t room, uint64_t capacity,
                       bool at_line_start) {
  if (bytes.size() <= room) return bytes.size();
  const size_t line_end = bytes.substr(0, room).rfind('\n');
  if (line_end != absl::string_view::npos) return line_end + 1;
  const size_t line_bytes = std::min(bytes.find('\n'), bytes.size() - 1) + 1;
  const bool fits_elsewhere =
      line_bytes <= capacity && line_bytes <= RotatedFile::kMaxWholeLine && room < capacity;
  return at_line_start && fits_elsewhere ? 0 : room;
}

std::string RotatedFile::Name(uint32_t index) const {
  return absl::StrCat(files_.base_name, ".", index);
}

absl::StatusOr<Fd> RotatedFile::OpenDirectory() const {
  ASSIGN_OR_RETURN(const Fd root, OpenFile(files_.root, O_PATH | O_DIRECTORY));
  return OpenAt2(root.get(), files_.directory, O_RDONLY | O_DIRECTORY, kJobsReach);
}

absl::Status RotatedFile::Open() {
  RETURN_IF_ERROR(OpenDirectory().status(), "log directory");
  OpenNewest().IgnoreError();  // a full disk is no reason not to start; Append tries again
  return absl::OkStatus();
}

absl::Status RotatedFile::OpenNewest() {
  ASSIGN_OR_RETURN(const Fd directory, OpenDirectory());
  ASSIGN_OR_RETURN(const std::vector<uint32_t> indexes, Indexes(directory));
  return OpenFrom(directory, indexes.empty() ? 0 : indexes.back(), kAnySize);
}

absl::Status RotatedFile::OpenNext() {
  file_.Reset();  // what fails here starts anew with OpenNewest
  ASSIGN_OR_RETURN(const Fd directory, OpenDirectory());
  RETURN_IF_ERROR(OpenFrom(directory, index_ + 1, files_.max_file_bytes));
  RemoveOldest(directory);
  return absl::OkStatus();
}

// The first name from `first` on that is free, or a plain file of less than `size_limit` bytes.
absl::Status RotatedFile::OpenFrom(const Fd& directory, uint32_t first, uint64_t size_limit) {
  const uint32_t end = std::min(first + kMaxPassedOver, kMaxIndex + 1);
  for (uint32_t index = first; index < end; ++index) {
    const std::string name = Name(index);
    struct stat info;
    if (::fstatat(directory.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 &&
        (!IsPlain(info) || static_cast<uint64_t>(info.st_size) >= size_limit)) {
      continue;
    }
    // O_NONBLOCK: should the name have become a FIFO since.
    ASSIGN_OR_RETURN(Fd file,
                     OpenAt2(directory.get(), name, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK,
                             kJobsReach, kMode));
    if (::fstat(file.get(), &info) != 0) return ErrnoStatus(name);
    if (!IsPlain(info)) continue;
    file_ = std::move(file);
    index_ = index;
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("no usable name from ", Name(first), " to ", Name(end - 1)));
}

absl::StatusOr<std::vector<uint32_t>> RotatedFile::Indexes(const Fd& directory) const {
  ASSIGN_OR_RETURN(Fd fd, OpenAt(directory.get(), ".", O_RDONLY | O_DIRECTORY));
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(fd.get()), ::closedir);
  if (stream == nullptr) return ErrnoStatus("fdopendir");
  fd.Release();  // the stream's now
  const std::string prefix = absl::StrCat(files_.base_name, ".");
  std::vector<uint32_t> indexes;
  for (size_t seen = 0; seen < kMaxEntries; ++seen) {
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr) break;
    absl::string_view number = entry->d_name;
    uint32_t index;
    if (!absl::ConsumePrefix(&number, prefix) || !absl::SimpleAtoi(number, &index)) continue;
    if (index <= kMaxIndex && entry->d_name == Name(index)) indexes.push_back(index);
  }
  std::sort(indexes.begin(), indexes.end());
  return indexes;
}

void RotatedFile::RemoveOldest(const Fd& directory) const {
  const absl::StatusOr<std::vector<uint32_t>> indexes = Indexes(directory);
  if (!indexes.ok()) return;  // the next rotation finds them
  for (size_t i = 0; i + files_.max_files < indexes->size(); ++i) {
    // A directory with such a name stays: it is not ours.
    ::unlinkat(directory.get(), Name((*indexes)[i]).c_str(), 0);
  }
}

// Left in the current file, which is opened anew when somebody has deleted it.
absl::StatusOr<uint64_t> RotatedFile::Room() {
  struct stat info;
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (!file_) RETURN_IF_ERROR(OpenNewest());
    if (::fstat(file_.get(), &info) != 0) return ErrnoStatus(Name(index_));
    const auto size = static_cast<uint64_t>(info.st_size);
    if (info.st_nlink > 0) return files_.max_file_bytes - std::min(size, files_.max_file_bytes);
    file_.Reset();
  }
  return absl::NotFoundError(absl::StrCat(Name(index_), " was deleted"));
}

absl::StatusOr<size_t> RotatedFile::WriteSome(absl::string_view bytes) {
  ASSIGN_OR_RETURN(uint64_t room, Room());
  size_t part = PartForThisFile(bytes, room, files_.max_file_bytes, at_line_start_);
  if (part == 0) {
    RETURN_IF_ERROR(OpenNext());
    ASSIGN_OR_RETURN(room, Room());
    part = PartForThisFile(bytes, room, files_.max_file_bytes, at_line_start_);
    if (part == 0) part = room;  // a short file of somebody else: no third one for this line
  }
  ssize_t size;
  do {
    size = ::write(file_.get(), bytes.data(), part);
  } while (size < 0 && errno == EINTR);
  if (size < 0) return ErrnoStatus(absl::StrCat("write ", Name(index_)));
  if (size == 0) return absl::DataLossError(absl::StrCat("write ", Name(index_), ": no progress"));
  at_line_start_ = bytes[size - 1] == '\n';
  return size;
}

void RotatedFile::Append(absl::string_view bytes) {
  if (const absl::Status marker = WriteMarker(); !marker.ok()) return Drop(bytes.size(), marker);
  while (!bytes.empty()) {
    const absl::StatusOr<size_t> size = WriteSome(bytes);
    if (!size.ok()) return Drop(bytes.size(), size.status());
    bytes.remove_prefix(*size);
  }
}

void RotatedFile::Drop(size_t bytes, const absl::Status& why) {
  dropped_bytes_ += bytes;
  dropped_total_ += bytes;
  dropped_because_ = std::string(why.message());
}

absl::Status RotatedFile::WriteMarker() {
  while (dropped_bytes_ > 0 || !marker_rest_.empty()) {
    const bool begins = marker_rest_.empty();
    std::string text = begins ? absl::StrCat(at_line_start_ ? "" : "\n",
                                             "[nomad-driver-jenkins-agent: ", dropped_bytes_,
                                             " bytes of output dropped: ", dropped_because_, "]\n")
                              : marker_rest_;
    ASSIGN_OR_RETURN(const size_t size, WriteSome(text));
    if (begins) dropped_bytes_ = 0;
    marker_rest_ = text.substr(size);
  }
  return absl::OkStatus();
}

}  // namespace jenkins_agent
