// What kind of agent a jar holds, found from facts in the file. The file may be anything.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// Main class, version, generation and min_java; path and sha256 are left empty. Reads `fd` from its
// beginning. InvalidArgument when it is no jar or holds no known agent.
absl::StatusOr<pb::JarInfo> InspectJar(int fd);

// Hex digest of the whole file, whatever the descriptor's position.
absl::StatusOr<std::string> Sha256OfFile(int fd);
absl::StatusOr<std::string> Sha256OfText(absl::string_view text);

}  // namespace jenkins_agent
