// The environment names of the official inbound-agent image as a second source of agent options.
// Pure.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// Fills what `agent` leaves out from JENKINS_URL, JENKINS_NAME or JENKINS_AGENT_NAME,
// JENKINS_SECRET, JENKINS_TUNNEL, JENKINS_WEB_SOCKET (only the literal "true"),
// JENKINS_AGENT_WORKDIR, JENKINS_DIRECT_CONNECTION, JENKINS_INSTANCE_IDENTITY and REMOTING_OPTS
// (split as a shell would; unknown options go to extra_args). What may carry the secret
// (JENKINS_SECRET, REMOTING_OPTS) is wiped and erased from `env`, also when it was not needed.
absl::Status MergeEnvironment(std::map<std::string, std::string>& env, pb::AgentSpec& agent);

// JENKINS_JAVA_OPTS, else JAVA_OPTS, split at white space as the image's script does.
std::vector<std::string> JvmOptionsFromEnvironment(const std::map<std::string, std::string>& env);

}  // namespace jenkins_agent
