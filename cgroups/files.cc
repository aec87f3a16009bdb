#include "cgroups/files.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "cgroups/usage.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent::cgroups {
namespace {

constexpr size_t kMaxFileBytes = 4 << 20;  // cgroup.procs of half a million processes
constexpr int kMakeAttempts = 64;
constexpr int kRemoveAttempts = 64;

// 0 or the errno of the first mkdir that fails.
int MakeEach(const std::string& floor, const std::string& dir, std::vector<std::string>* made) {
  if (::mkdir(dir.c_str(), 0755) == 0) {
    if (std::find(made->begin(), made->end(), dir) == made->end()) made->push_back(dir);
    return 0;
  }
  if (errno != ENOENT) return errno == EEXIST ? 0 : errno;
  std::string path = floor;
  const absl::string_view below = absl::StripPrefix(absl::string_view(dir), floor);
  for (absl::string_view component : absl::StrSplit(below, '/', absl::SkipEmpty())) {
    absl::StrAppend(&path, "/", component);
    if (::mkdir(path.c_str(), 0755) == 0) {
      if (std::find(made->begin(), made->end(), path) == made->end()) made->push_back(path);
    } else if (errno != EEXIST) {
      return errno;
    }
  }
  return 0;
}

}  // namespace

int WriteValue(const std::string& dir, absl::string_view file, absl::string_view value) {
  const Fd fd(::open(absl::StrCat(dir, "/", file).c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return errno;
  return ::write(fd.get(), value.data(), value.size()) < 0 ? errno : 0;
}

absl::Status WriteFileIn(const std::string& dir, absl::string_view file, absl::string_view value) {
  const int error = WriteValue(dir, file, value);
  return error == 0 ? absl::OkStatus() : ErrnoStatus(file, error);
}

absl::StatusOr<std::string> ReadFileIn(const std::string& dir, absl::string_view file) {
  const Fd fd(::open(absl::StrCat(dir, "/", file).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return ErrnoStatus(file);
  ASSIGN_OR_RETURN(std::string content, ReadAll(fd.get(), kMaxFileBytes), file);
  absl::StripAsciiWhitespace(&content);
  return content;
}

absl::StatusOr<std::vector<pid_t>> ReadMembers(const std::string& dir) {
  absl::StatusOr<std::string> text = ReadFileIn(dir, "cgroup.procs");
  // ENOENT before the open, ENODEV between open and read.
  if (absl::IsNotFound(text.status()) || (!text.ok() && ::access(dir.c_str(), F_OK) != 0)) {
    return std::vector<pid_t>();
  }
  RETURN_IF_ERROR(text.status());
  return ParsePids(*text);
}

absl::Status MakeDirsBelow(const std::string& floor, const std::string& dir,
                           std::vector<std::string>* made) {
  for (int attempt = 0;; ++attempt) {
    const int error = MakeEach(floor, dir, made);
    if (error == 0) return absl::OkStatus();
    // Another task's Remove took the parent away between two mkdirs. ENODEV: while it was at it.
    if ((error == ENOENT || error == ENODEV) && attempt < kMakeAttempts) continue;
    return ErrnoStatus("mkdir", error);
  }
}

absl::Status RemoveDir(const std::string& dir) {
  for (int attempt = 0;; ++attempt) {
    if (::rmdir(dir.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
    const int error = errno;
    if (error != EBUSY) return ErrnoStatus("rmdir", error);
    ASSIGN_OR_RETURN(const std::vector<pid_t> members, ReadMembers(dir));
    if (!members.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("rmdir: ", members.size(), " processes are still inside, the first is pid ",
                       members.front()));
    }
    if (attempt >= kRemoveAttempts) return ErrnoStatus("rmdir", error);
    ::sched_yield();  // the last process is on its way out of the kernel's books
  }
}

}  // namespace jenkins_agent::cgroups
