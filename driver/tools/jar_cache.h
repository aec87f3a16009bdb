// The node's agent jars, by digest, and what is known of where each came from, so that a jar that
// has not changed is not transferred again.
//
//   <cache_dir>/<sha256>.jar       root's, 0444, hard-linked into the tasks that run it
//   <cache_dir>/<32 hex>.origin    JSON: digest and validators (RFC 9110 8.8) of one url's last
//   answer
//
// Where nobody proved who answered (anything but https with the host's own certificates) an origin
// holds for one job only: another job's url may lead to another server of the same name. Functions
// of the worker's privileged half; several workers may run at once.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "driver/tools/fetch.h"
#include "driver/tools/request.h"

namespace jenkins_agent {

inline constexpr size_t kMaxCachedJars = 32;
inline constexpr size_t kMaxOrigins = 256;

struct CachedJar {
  Fd file;
  std::string sha256;
  JarValidators validators;
};
// By the url of the jar.
using CachedJars = std::map<std::string, CachedJar>;

// What the cache has of the request's urls. Only jars whose content still has their digest: a
// damaged one is removed.
CachedJars FindCachedJars(int cache_fd, const AgentJarRequest& request);

// Keeps a finished file, which nobody can write to any more, under its digest; its path. The oldest
// of too many go; tasks keep theirs by their links.
absl::StatusOr<std::string> KeepJar(int cache_fd, const AgentJarRequest& request, int jar_fd,
                                    const std::string& sha256);

// Remembers where it came from. Without a validator there is nothing to ask with.
absl::Status KeepOrigin(int cache_fd, const AgentJarRequest& request, const FetchedJar& fetched,
                        const std::string& sha256);

}  // namespace jenkins_agent
