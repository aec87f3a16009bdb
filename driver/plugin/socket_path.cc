#include "driver/plugin/socket_path.h"

#include <sys/un.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace jenkins_agent {

absl::StatusOr<std::string> SocketPath(const EnvGetter& env, uint64_t random) {
  constexpr size_t kLongest = sizeof(sockaddr_un::sun_path) - 1;
  std::string dir = "/tmp";
  for (const char* name : {"PLUGIN_UNIX_SOCKET_DIR", "TMPDIR"}) {
    const std::string value = env(name).value_or("");
    if (value.empty()) continue;
    if (!absl::StartsWith(value, "/")) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " '", value, "' is not an absolute path"));
    }
    dir = value;
    break;
  }
  const std::string path = absl::StrFormat("%s/plugin%016x", dir, random);
  if (path.size() > kLongest) {
    return absl::InvalidArgumentError(absl::StrCat("socket path '", path, "' has ", path.size(),
                                                   " bytes, a unix socket's at most ", kLongest,
                                                   "; give the agent a shorter TMPDIR"));
  }
  return path;
}

// Core protocol | app protocol | network | address | protocol | server certificate | multiplexing.
// Older hosts take a seventh field for part of the certificate, so it is there only when asked for.
std::string HandshakeLine(const EnvGetter& env, const std::string& socket_path) {
  const bool multiplex_asked = !env("PLUGIN_MULTIPLEX_GRPC").value_or("").empty();
  return absl::StrCat("1|2|unix|", socket_path, "|grpc|", multiplex_asked ? "|false" : "", "\n");
}

}  // namespace jenkins_agent
