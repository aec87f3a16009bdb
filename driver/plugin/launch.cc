#include "driver/plugin/launch.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr char kCookieName[] = "NOMAD_PLUGIN_MAGIC_COOKIE";
constexpr char kCookie[] = "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255";
constexpr char kVersionsName[] = "PLUGIN_PROTOCOL_VERSIONS";
constexpr char kProtocolVersion[] = "2";
constexpr char kClientCertName[] = "PLUGIN_CLIENT_CERT";

bool Contains(const std::string& comma_list, const std::string& item) {
  const std::vector<std::string> items = absl::StrSplit(comma_list, ',');
  return std::any_of(items.begin(), items.end(), [&item](const std::string& candidate) {
    return absl::StripAsciiWhitespace(candidate) == item;
  });
}

// A descriptor that we open must never become our stdout.
absl::Status OpenMissingStdio() {
  while (true) {
    ASSIGN_OR_RETURN(Fd null, OpenFile("/dev/null", O_RDWR));
    if (null.get() > STDERR_FILENO) return absl::OkStatus();
    const int fd = null.Release();
    if (::fcntl(fd, F_SETFD, 0) != 0) return ErrnoStatus("fcntl F_SETFD");
  }
}

absl::Status DetachStdin() {
  ASSIGN_OR_RETURN(const Fd null, OpenFile("/dev/null", O_RDONLY));
  if (::dup2(null.get(), STDIN_FILENO) < 0) return ErrnoStatus("dup2 /dev/null over stdin");
  return absl::OkStatus();
}

// A task costs the plugin a descriptor and more, and the usual soft limit is 1024: Go gives the
// agent the hard one, but its children get the soft one back (syscall/rlimit.go, Go 1.26).
void RaiseOpenFiles() {
  rlimit limit;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);  // up to the hard limit everybody may
}

}  // namespace

std::optional<std::string> ProcessEnv(const char* name) {
  const char* value = ::getenv(name);
  if (value == nullptr) return std::nullopt;
  return value;
}

bool LaunchedByNomad(const EnvGetter& env) { return env(kCookieName).has_value(); }

absl::Status CheckLaunchEnvironment(const EnvGetter& env) {
  if (env(kCookieName).value_or("") != kCookie) {
    return absl::FailedPreconditionError(absl::StrCat(
        "this program is a Nomad task driver plugin: put it into the agent's plugin_dir and let "
        "Nomad start it (",
        kCookieName, " is missing or is not Nomad's)"));
  }
  const std::string versions = env(kVersionsName).value_or("");
  if (!Contains(versions, kProtocolVersion)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the host offers plugin protocol versions '", versions, "' (", kVersionsName,
        "), this plugin speaks ", kProtocolVersion, "; use a supported Nomad version"));
  }
  if (!env(kClientCertName).value_or("").empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        kClientCertName,
        " is set: the host wants TLS on the plugin's socket, which this plugin does "
        "not offer; Nomad does not set it, so remove it from the agent's environment"));
  }
  return absl::OkStatus();
}

absl::Status PrepareProcess() {
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGINT, SIG_IGN);
  RaiseOpenFiles();
  ::umask(022);  // nobody else may connect to our socket, and our modes mean what they say
  RETURN_IF_ERROR(OpenMissingStdio());
  RETURN_IF_ERROR(DetachStdin());
  if (::syscall(SYS_close_range, 3U, ~0U, 0U) != 0) return ErrnoStatus("close_range");
  return absl::OkStatus();
}

}  // namespace jenkins_agent
