// What kind of agent a jar holds, found from facts in the file. The file may be anything.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

struct JarReport {
  pb::JarInfo agent;  // main class, version, generation and min_java; path and sha256 are empty
  bool is_signed = false;
};

// One visit to the jar's entries, which takes a part of each start. Reads `fd` from its beginning.
// InvalidArgument when it is no jar or holds no known agent.
absl::StatusOr<JarReport> InspectJar(int fd);

// Writes the jar without its signature to the empty file `copy_fd`. A JVM that runs a signed jar
// checks each class against a certificate that nobody asks for, which takes a third of an agent's
// start, and shares none of its classes by an archive; the jar is held by its own digest here.
// InvalidArgument when an entry is damaged (CRC-32) or the whole is larger than any agent. ("JAR
// File Specification", Signed JAR File.)
absl::Status CopyWithoutSignature(int jar_fd, int copy_fd);

// Hex digest of the whole file, whatever the descriptor's position.
absl::StatusOr<std::string> Sha256OfFile(int fd);
absl::StatusOr<std::string> Sha256OfText(absl::string_view text);

}  // namespace jenkins_agent
