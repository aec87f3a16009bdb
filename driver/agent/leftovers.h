// Which processes outlive their agent's JVM. Pure.
#pragma once

#include "absl/strings/string_view.h"

namespace jenkins_agent {

// Whether a process asked, by its environment (/proc/PID/environ: NUL-terminated NAME=VALUE), to
// live on without its agent: a durable build step, which the next JVM takes up again, or one whose
// job has told the controller not to kill it (jenkins-agent.md 4). The kernel shows at most the
// environment that the program was started with, and the program may overwrite it: advisory, it
// decides over a restart only, never over a stop.
bool OutlivesItsAgent(absl::string_view environment);

}  // namespace jenkins_agent
