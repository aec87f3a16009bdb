// What Nomad tells a plugin through its environment, and the state of the process it starts in.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace jenkins_agent {

// Looks up one environment variable.
using EnvGetter = std::function<std::optional<std::string>(const char* name)>;
std::optional<std::string> ProcessEnv(const char* name);

// Whether this is a launch by a plugin host and not by a person at a shell.
bool LaunchedByNomad(const EnvGetter& env = ProcessEnv);

// Whether we can talk to the host that launched us. The message is for the operator.
absl::Status CheckLaunchEnvironment(const EnvGetter& env = ProcessEnv);

// Makes the process independent of how it was started: SIGINT (the agent's process group gets the
// terminal's Ctrl-C) and SIGPIPE are ignored, descriptors 0 to 2 are open, stdin is /dev/null, all
// others are closed, umask is 022, and as many descriptors may be open as the hard limit allows.
// Call it first in main, before anything opens a descriptor.
absl::Status PrepareProcess();

}  // namespace jenkins_agent
