// Whether a state directory can be used.
#pragma once

#include <string>

namespace jenkins_agent {

// "is on a read-only file system", "cannot be written", "is on a full disk"; "": it can be used. A
// directory that is not there yet is made with the first task: then the nearest one above it
// counts. A fixed text without numbers: it is part of the fingerprint.
std::string StateDirTrouble(const std::string& state_dir);

}  // namespace jenkins_agent
