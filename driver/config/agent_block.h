// The task's `agent { }`: an inbound Jenkins agent whose command line the driver builds.
// agent_check.h looks at the values when those of the environment are known too.
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
inline constexpr char kModeReconnect[] = "reconnect";
inline constexpr char kModeOneShot[] = "one_shot";

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
  std::string mode = kModeReconnect;
  std::string max_age = "";  // a duration
};

// The rows point into `agent`.
std::vector<Option> OptionsFor(AgentBlock& agent);

// Of what the environment cannot change. Errors start with "agent.".
absl::Status ValidateAgentBlock(const AgentBlock& agent);

}  // namespace jenkins_agent
