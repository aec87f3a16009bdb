// The task's `agent { }`: an inbound Jenkins agent whose command line the driver builds.
// Values and pure checks.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "driver/config/options.h"

namespace jenkins_agent {

inline constexpr char kDefaultAgentRootDir[] = "/local/agent";
inline constexpr char kAutoJar[] = "auto";

// Strings are empty when left out: then the task's environment may give the value. root_dir cannot
// tell its default from being left out (Nomad fills it in): JENKINS_AGENT_WORKDIR may replace the
// default.
struct AgentBlock {
  std::string url = "";
  std::string name = "";
  std::string secret_file = "";
  std::string tunnel = "";
  std::optional<bool> web_socket = {};  // nothing: JENKINS_WEB_SOCKET decides
  std::map<std::string, std::string> web_socket_headers = {};
  std::string direct = "";
  std::string instance_identity = "";
  std::string ca_file = "";
  std::vector<std::string> extra_args = {};
  std::string root_dir = kDefaultAgentRootDir;
  std::string jar = kAutoJar;  // or an absolute path in the sandbox
};

// The rows point into `agent`.
std::vector<Option> OptionsFor(AgentBlock& agent);

// Each value that is set, and the combinations that no environment can make right. Errors start
// with "agent.".
absl::Status ValidateAgent(const AgentBlock& agent);

// The same and what has to be there in the end, for a block into which the values of the task's
// environment have been merged. The secret is not looked at.
absl::Status ValidateMergedAgent(const AgentBlock& agent);

}  // namespace jenkins_agent
