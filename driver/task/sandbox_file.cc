#include "driver/task/sandbox_file.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {

absl::StatusOr<std::string> ReadSandboxFile(const std::string& path, const std::string& alloc_dir,
                                            const std::string& task_name) {
  const std::string task_dir = absl::StrCat(alloc_dir, "/", task_name);
  const std::pair<absl::string_view, std::string> roots[] = {
      {"/secrets/", absl::StrCat(task_dir, "/secrets")},
      {"/local/", absl::StrCat(task_dir, "/local")},
      {"/alloc/", absl::StrCat(alloc_dir, "/alloc")},
  };
  for (const auto& [prefix, host_dir] : roots) {
    absl::string_view rest = path;
    if (!absl::ConsumePrefix(&rest, prefix)) continue;
    ASSIGN_OR_RETURN(const Fd root, OpenFile(host_dir, O_PATH | O_DIRECTORY));
    // O_NONBLOCK: a FIFO of the job's making must not hold us up.
    ASSIGN_OR_RETURN(const Fd file, OpenAt2(root.get(), std::string(rest), O_RDONLY | O_NONBLOCK,
                                            RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS));
    struct stat info;
    if (::fstat(file.get(), &info) != 0) return ErrnoStatus(absl::StrCat("stat ", path));
    if (!S_ISREG(info.st_mode)) {
      return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
    }
    ASSIGN_OR_RETURN(std::string content, ReadAll(file.get(), kMaxSandboxFile), path);
    return content;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      path,
      " is not in /secrets, /local or /alloc; put the file there with a template or artifact"));
}

}  // namespace jenkins_agent
