// Whether a state directory can be used.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace jenkins_agent {

// "is on a read-only file system", "is no directory", "belongs to another user than root", "cannot
// be written", "is on a full disk"; "": it can be used. A directory that is not there yet is made
// with the first task: then the nearest one above it counts. A fixed text without numbers: it is
// part of the fingerprint.
std::string StateDirTrouble(const std::string& state_dir);

// The same but for the room, which CheckDiskSpace tells with numbers. FailedPrecondition and
// recoverable: who mends it need not restart anything.
absl::Status CheckStateDir(const std::string& state_dir);

}  // namespace jenkins_agent
