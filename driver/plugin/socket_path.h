// Where the plugin's socket lies and what is said about it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "driver/plugin/launch.h"

namespace jenkins_agent {

// An absolute path with a name of its own, from `random`, in the directory that the environment
// names. InvalidArgument when it is too long for a unix socket.
absl::StatusOr<std::string> SocketPath(const EnvGetter& env, uint64_t random);

// The only line that is ever written to stdout, with its line feed.
std::string HandshakeLine(const EnvGetter& env, const std::string& socket_path);

}  // namespace jenkins_agent
