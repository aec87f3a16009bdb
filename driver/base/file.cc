#include "driver/base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "driver/base/fault.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr int kMaxTreeDepth = 512;

// Removes what is below `dir`, on the file system `device` only. A mount point found inside is left
// alone and makes the rmdir of its parent fail, which the caller reports.
absl::Status RemoveChildren(Fd dir, dev_t device, int depth) {
  if (depth > kMaxTreeDepth) return absl::ResourceExhaustedError("directory tree too deep");
  DIR* stream = ::fdopendir(dir.get());
  if (stream == nullptr) return ErrnoStatus("fdopendir");
  const int dir_fd = dir.Release();  // owned by the stream now
  absl::Status status;
  while (status.ok()) {
    errno = 0;
    const dirent* entry = ::readdir(stream);
    if (entry == nullptr) {
      if (errno != 0) status = ErrnoStatus("readdir");
      break;
    }
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (::unlinkat(dir_fd, name.c_str(), 0) == 0) continue;
    if (errno != EISDIR && errno != EPERM) {
      status = ErrnoStatus(absl::StrCat("unlink ", name));
      break;
    }
    absl::StatusOr<Fd> child = OpenAt(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    struct stat info;
    if (!child.ok()) {
      status = child.status();
    } else if (::fstat(child->get(), &info) != 0) {
      status = ErrnoStatus(absl::StrCat("stat ", name));
    } else if (info.st_dev != device) {
      status = absl::FailedPreconditionError(absl::StrCat(name, " is a mount point"));
    } else {
      status = Annotate(RemoveChildren(*std::move(child), device, depth + 1), name);
      if (status.ok() && ::unlinkat(dir_fd, name.c_str(), AT_REMOVEDIR) != 0) {
        status = ErrnoStatus(absl::StrCat("rmdir ", name));
      }
    }
  }
  ::closedir(stream);
  return status;
}

absl::Status Replace(int dir_fd, const std::string& name, absl::string_view data, mode_t mode,
                     bool durable) {
  const std::string temporary = absl::StrCat(name, ".tmp");
  ASSIGN_OR_RETURN(Fd fd,
                   OpenAt(dir_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode));
  RETURN_IF_ERROR(WriteAll(fd.get(), data), temporary);
  if (durable && ::fsync(fd.get()) != 0) return ErrnoStatus(absl::StrCat("fsync ", temporary));
  FaultPoint("file.replace.written");
  if (::renameat(dir_fd, temporary.c_str(), dir_fd, name.c_str()) != 0) {
    return ErrnoStatus(absl::StrCat("rename ", temporary));
  }
  if (durable && ::fsync(dir_fd) != 0) {
    return ErrnoStatus(absl::StrCat("fsync directory of ", name));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Fd> OpenFile(const std::string& path, int flags, mode_t mode) {
  return OpenAt(AT_FDCWD, path, flags, mode);
}

absl::StatusOr<Fd> OpenAt(int dir_fd, const std::string& path, int flags, mode_t mode) {
  const int fd = ::openat(dir_fd, path.c_str(), flags | O_CLOEXEC, mode);
  if (fd < 0) return ErrnoStatus(absl::StrCat("open ", path));
  return Fd(fd);
}

absl::StatusOr<Fd> OpenAt2(int dir_fd, const std::string& path, uint64_t flags, uint64_t resolve,
                           mode_t mode) {
  open_how how = {};
  how.flags = flags | O_CLOEXEC;
  how.mode = mode;
  how.resolve = resolve;
  const long fd = ::syscall(SYS_openat2, dir_fd, path.c_str(), &how, sizeof(how));
  if (fd < 0) return ErrnoStatus(absl::StrCat("open ", path));
  return Fd(static_cast<int>(fd));
}

absl::StatusOr<std::string> ReadAll(int fd, size_t limit) {
  std::string content;
  char buffer[16384];
  for (;;) {
    const ssize_t n = ::read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus("read");
    if (n == 0) return content;
    if (content.size() + n > limit) {
      return absl::OutOfRangeError(absl::StrCat("longer than ", limit, " bytes"));
    }
    content.append(buffer, n);
  }
}

absl::StatusOr<std::string> ReadFileAt(int dir_fd, const std::string& path, size_t limit) {
  ASSIGN_OR_RETURN(Fd fd, OpenAt(dir_fd, path, O_RDONLY));
  ASSIGN_OR_RETURN(std::string content, ReadAll(fd.get(), limit), path);
  return content;
}

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t limit) {
  return ReadFileAt(AT_FDCWD, path, limit);
}

absl::Status WriteAll(int fd, absl::string_view data) {
  while (!data.empty()) {
    const ssize_t n = ::write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus("write");
    data.remove_prefix(n);
  }
  return absl::OkStatus();
}

absl::Status WriteFileAtomicAt(int dir_fd, const std::string& name, absl::string_view data,
                               mode_t mode) {
  return Replace(dir_fd, name, data, mode, /*durable=*/true);
}

absl::Status ReplaceFileAt(int dir_fd, const std::string& name, absl::string_view data,
                           mode_t mode) {
  return Replace(dir_fd, name, data, mode, /*durable=*/false);
}

absl::Status WriteFileAtomic(const std::string& path, absl::string_view data, mode_t mode) {
  const std::filesystem::path full(path);
  ASSIGN_OR_RETURN(Fd dir, OpenFile(full.parent_path().string(), O_RDONLY | O_DIRECTORY));
  return Annotate(WriteFileAtomicAt(dir.get(), full.filename().string(), data, mode), path);
}

absl::Status MakeDirs(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) == 0 || errno == EEXIST) return absl::OkStatus();
  std::string prefix;
  for (const auto& part : std::filesystem::path(path)) {
    prefix = prefix.empty() ? part.string() : (std::filesystem::path(prefix) / part).string();
    if (::mkdir(prefix.c_str(), mode) != 0 && errno != EEXIST) {
      return ErrnoStatus(absl::StrCat("mkdir ", prefix));
    }
  }
  return absl::OkStatus();
}

absl::Status RemoveTree(const std::string& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  absl::StatusOr<Fd> dir = OpenFile(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (absl::IsNotFound(dir.status())) return absl::OkStatus();
  RETURN_IF_ERROR(dir.status());
  struct stat info;
  if (::fstat(dir->get(), &info) != 0) return ErrnoStatus(absl::StrCat("stat ", path));
  RETURN_IF_ERROR(RemoveChildren(*std::move(dir), info.st_dev, 0), "remove ", path);
  if (::rmdir(path.c_str()) != 0) return ErrnoStatus(absl::StrCat("rmdir ", path));
  return absl::OkStatus();
}

absl::StatusOr<Fd> MakeSealedMemfd(const std::string& name, absl::string_view content) {
  Fd fd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return ErrnoStatus(absl::StrCat("memfd_create ", name));
  RETURN_IF_ERROR(WriteAll(fd.get(), content), name);
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) !=
      0) {
    return ErrnoStatus(absl::StrCat("seal ", name));
  }
  if (::lseek(fd.get(), 0, SEEK_SET) != 0) return ErrnoStatus(absl::StrCat("lseek ", name));
  return fd;
}

}  // namespace jenkins_agent
