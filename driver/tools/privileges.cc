#include "driver/tools/privileges.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/nobody.h"
#include "driver/base/status.h"
#include "driver/tools/fetch.h"

namespace jenkins_agent {
namespace {

constexpr rlim_t kMaxOpenFiles = 64;
constexpr rlim_t kMaxCpuSeconds = 60;
constexpr size_t kMaxCertificateFileBytes = 1 << 20;
constexpr char kResolvConf[] = "/etc/resolv.conf";

absl::Status UseResolver(const std::string& resolv_conf) {
  if (::unshare(CLONE_NEWNS) != 0) return ErrnoStatus("unshare the mount namespace");
  // Slave, not private: a later unmount on the host must not be held up by this copy.
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) {
    return ErrnoStatus("make / a slave mount");
  }
  if (::mount(resolv_conf.c_str(), kResolvConf, nullptr, MS_BIND, nullptr) != 0) {
    return ErrnoStatus(absl::StrCat("bind ", resolv_conf, " over ", kResolvConf));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status EnterTaskNetwork(const std::string& network_namespace,
                              const std::string& resolv_conf) {
  if (!network_namespace.empty()) {
    ASSIGN_OR_RETURN(const Fd fd, OpenFile(network_namespace, O_RDONLY),
                     "the task's network namespace");
    if (::setns(fd.get(), CLONE_NEWNET) != 0) {
      return ErrnoStatus(absl::StrCat("join network namespace ", network_namespace));
    }
  }
  return resolv_conf.empty() ? absl::OkStatus() : UseResolver(resolv_conf);
}

absl::StatusOr<Fd> OpenJobFile(const std::string& path, int root_pid) {
  const std::string root_path = root_pid > 0 ? absl::StrCat("/proc/", root_pid, "/root") : "/";
  ASSIGN_OR_RETURN(const Fd root, OpenFile(root_path, O_PATH | O_DIRECTORY));
  // First without opening: an open alone can have effects on a device.
  ASSIGN_OR_RETURN(const Fd place, OpenAt2(root.get(), path, O_PATH, RESOLVE_IN_ROOT), path);
  struct stat status = {};
  if (::fstat(place.get(), &status) != 0) return ErrnoStatus(path);
  if (!S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  if (static_cast<size_t>(status.st_size) > kMaxJarBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is longer than ", kMaxJarBytes >> 20, " MiB"));
  }
  return OpenFile(absl::StrCat("/proc/self/fd/", place.get()), O_RDONLY);
}

absl::StatusOr<std::string> ReadCaFile(const std::string& path, int root_pid) {
  if (path.empty()) return std::string();
  ASSIGN_OR_RETURN(const Fd file, OpenJobFile(path, root_pid), "agent.ca_file");
  ASSIGN_OR_RETURN(std::string pem, ReadAll(file.get(), kMaxCertificateFileBytes), "agent.ca_file");
  if (absl::StrContains(pem, "-----BEGIN CERTIFICATE-----")) return pem;
  return absl::InvalidArgumentError(
      absl::StrCat("agent.ca_file: ", path, " holds no certificate in PEM form"));
}

absl::Status BecomeNobody() {
  RETURN_IF_ERROR(DropToNobody());
  // Behind setresuid, which clears it.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return ErrnoStatus("PR_SET_PDEATHSIG");
  RETURN_IF_ERROR(LowerLimit(RLIMIT_CORE, 0));
  RETURN_IF_ERROR(LowerLimit(RLIMIT_NOFILE, kMaxOpenFiles));
  RETURN_IF_ERROR(LowerLimit(RLIMIT_CPU, kMaxCpuSeconds));
  return LowerLimit(RLIMIT_FSIZE, kMaxJarBytes);
}

}  // namespace jenkins_agent
