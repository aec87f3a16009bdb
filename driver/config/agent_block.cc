#include "driver/config/agent_block.h"

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {

std::vector<Option> OptionsFor(AgentBlock& agent) {
  return {
      {"url", &agent.url,
       "the controller's root URL; left out: `JENKINS_URL` of the task's environment"},
      {"name", &agent.name,
       "the agent's name at the controller; left out: `JENKINS_NAME` or `JENKINS_AGENT_NAME`"},
      {"secret_file", &agent.secret_file,
       "absolute path of a file with the secret, such as `/secrets/agent`; left out: "
       "`JENKINS_SECRET`, which is taken out of the environment"},
      {"tunnel", &agent.tunnel,
       "`HOST:PORT`, `HOST:` or `:PORT` to use instead of what the controller advertises; left "
       "out: `JENKINS_TUNNEL`"},
      {"web_socket", &agent.web_socket,
       "connect through a WebSocket at the controller's URL; left out: `JENKINS_WEB_SOCKET`"},
      {"web_socket_headers", &agent.web_socket_headers,
       "HTTP headers of the WebSocket request, `{ NAME = \"VALUE\" }`"},
      {"direct", &agent.direct,
       "`HOST:PORT` of the controller's agent port, which is then not asked for over HTTP; left "
       "out: "
       "`JENKINS_DIRECT_CONNECTION`"},
      {"instance_identity", &agent.instance_identity,
       "the controller's public key in base64, needed with `direct`; left out: "
       "`JENKINS_INSTANCE_IDENTITY`"},
      {"ca_file", &agent.ca_file,
       "absolute path of a PEM file with a certificate to trust for the controller's URL"},
      {"extra_args", &agent.extra_args, "further options of `agent.jar`, added at the end"},
      {"root_dir", &agent.root_dir,
       "the agent's work directory in the sandbox; left at the default: `JENKINS_AGENT_WORKDIR` if "
       "set"},
      {"jar", &agent.jar,
       "path of an `agent.jar` in the sandbox; `auto`: the controller's, kept on the node"},
      {"mode", &agent.mode,
       "`reconnect`, or `one_shot`: the task is complete when the agent's channel has ended while "
       "the controller is there"},
      {"max_age", &agent.max_age,
       "an older JVM is replaced in place once it is idle and no build has a process; left out: "
       "never; at least `1m`"},
  };
}

absl::Status ValidateAgentBlock(const AgentBlock& agent) {
  if (agent.mode != kModeReconnect && agent.mode != kModeOneShot) {
    return absl::InvalidArgumentError(absl::StrCat("agent.mode: ", Quoted(agent.mode),
                                                   " is unknown (allowed: \"", kModeReconnect,
                                                   "\", \"", kModeOneShot, "\")"));
  }
  if (agent.max_age.empty()) return absl::OkStatus();
  return Annotate(CheckDuration(agent.max_age, absl::Minutes(1)), "agent.max_age");
}

}  // namespace jenkins_agent
