#include "driver/config/agent_block.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

using Check = absl::Status (*)(absl::string_view);

absl::Status CheckJar(absl::string_view jar) {
  if (jar == kAutoJar) return absl::OkStatus();
  return Annotate(CheckAbsolutePath(jar), "neither \"auto\" nor the path of an agent.jar");
}

// Options of the launcher that the driver writes itself; twice is a usage error of the agent, which
// then exits with 0 (jenkins-agent.md 1.1, 1.4).
struct OwnedOption {
  absl::string_view flag;
  absl::string_view instead;
};
constexpr OwnedOption kOwnedOptions[] = {
    {"-url", "agent.url"},
    {"-secret", "agent.secret_file or JENKINS_SECRET in the task's environment"},
    {"-name", "agent.name"},
    {"-workDir", "agent.root_dir"},
    {"-tunnel", "agent.tunnel"},
    {"-webSocket", "agent.web_socket"},
    {"-webSocketHeader", "agent.web_socket_headers"},
    {"-direct", "agent.direct"},
    {"-directConnection", "agent.direct"},
    {"-instanceIdentity", "agent.instance_identity"},
    {"-jnlpUrl", "agent.url"},
};

absl::Status CheckExtraArgs(const std::vector<std::string>& extra_args) {
  for (const std::string& arg : extra_args) {
    if (arg.empty()) return Invalid("contains an empty string; remove it");
    for (const OwnedOption& owned : kOwnedOptions) {
      if (arg == owned.flag) {
        return Invalid("contains ", arg, ", which the driver writes; set ", owned.instead,
                       " instead");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckHeaders(const std::map<std::string, std::string>& headers) {
  for (const auto& [name, value] : headers) RETURN_IF_ERROR(CheckHeader(name, value), Quoted(name));
  return absl::OkStatus();
}

absl::Status CheckValues(const AgentBlock& agent) {
  struct Row {
    absl::string_view path;
    const std::string& value;
    Check check;
  };
  const Row rows[] = {
      {"agent.url", agent.url, CheckControllerUrl},
      {"agent.name", agent.name, CheckAgentName},
      {"agent.secret_file", agent.secret_file, CheckAbsolutePath},
      {"agent.tunnel", agent.tunnel, CheckTunnel},
      {"agent.direct", agent.direct, CheckHostPort},
      {"agent.instance_identity", agent.instance_identity, CheckInstanceIdentity},
      {"agent.ca_file", agent.ca_file, CheckAbsolutePath},
  };
  for (const Row& row : rows) {
    if (!row.value.empty()) RETURN_IF_ERROR(row.check(row.value), row.path);
  }
  // These have defaults, so empty was written by the user.
  RETURN_IF_ERROR(CheckAbsolutePath(agent.root_dir), "agent.root_dir");
  RETURN_IF_ERROR(CheckJar(agent.jar), "agent.jar");
  RETURN_IF_ERROR(CheckHeaders(agent.web_socket_headers), "agent.web_socket_headers");
  return Annotate(CheckExtraArgs(agent.extra_args), "agent.extra_args");
}

bool HasArg(const AgentBlock& agent, absl::string_view flag) {
  return std::find(agent.extra_args.begin(), agent.extra_args.end(), flag) !=
         agent.extra_args.end();
}

// The launcher's own "forbids" rules (jenkins-agent.md 1.1).
absl::Status CheckCombinations(const AgentBlock& agent) {
  const bool web_socket = agent.web_socket.value_or(false);
  const bool direct = !agent.direct.empty();
  const bool no_certificate_check =
      HasArg(agent, "-noCertificateCheck") || HasArg(agent, "-disableHttpsCertValidation");
  struct Pair {
    bool both;
    absl::string_view names;
    absl::string_view reason;
  };
  const Pair pairs[] = {
      {web_socket && direct, "agent.web_socket and agent.direct",
       "a WebSocket goes to agent.url; remove one of them"},
      {web_socket && !agent.tunnel.empty(), "agent.web_socket and agent.tunnel",
       "a WebSocket goes to agent.url and needs no tunnel; remove one of them"},
      {direct && !agent.url.empty(), "agent.direct and agent.url",
       "a direct connection asks no URL for the port; remove one of them"},
      {direct && !agent.tunnel.empty(), "agent.direct and agent.tunnel",
       "agent.direct already names the host and port; remove agent.tunnel"},
      {direct && !agent.ca_file.empty(), "agent.direct and agent.ca_file",
       "a direct connection trusts agent.instance_identity only; remove agent.ca_file"},
      {!agent.ca_file.empty() && no_certificate_check,
       "agent.ca_file and -noCertificateCheck in agent.extra_args",
       "the agent accepts only one of them"},
      {web_socket && (HasArg(agent, "-credentials") || HasArg(agent, "-jnlpCredentials")),
       "agent.web_socket and -credentials in agent.extra_args",
       "the agent accepts only one of them"},
      {web_socket && HasArg(agent, "-noKeepAlive"),
       "agent.web_socket and -noKeepAlive in agent.extra_args",
       "the agent accepts only one of them"},
  };
  for (const Pair& pair : pairs) {
    if (pair.both) return Invalid(pair.names, " are both set; ", pair.reason);
  }
  if (agent.web_socket == false && !agent.web_socket_headers.empty()) {
    return Invalid(
        "agent.web_socket_headers are set and agent.web_socket is false; set it to true");
  }
  return absl::OkStatus();
}

}  // namespace

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
       "`HOST:PORT` of the controller's agent port, without any HTTP request; left out: "
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
  };
}

absl::Status ValidateAgent(const AgentBlock& agent) {
  RETURN_IF_ERROR(CheckValues(agent));
  return CheckCombinations(agent);
}

absl::Status ValidateMergedAgent(const AgentBlock& agent) {
  RETURN_IF_ERROR(ValidateAgent(agent));
  const bool direct = !agent.direct.empty();
  if (agent.url.empty() && !direct) {
    return Invalid("agent.url: not set; set it or JENKINS_URL in the task's environment");
  }
  if (agent.name.empty()) {
    return Invalid("agent.name: not set; set it or JENKINS_AGENT_NAME in the task's environment");
  }
  if (direct && agent.instance_identity.empty()) {
    return Invalid(
        "agent.direct needs agent.instance_identity (or JENKINS_INSTANCE_IDENTITY in the "
        "task's environment): without HTTP it is the only proof of the controller");
  }
  if (!direct && !agent.instance_identity.empty()) {
    return Invalid("agent.instance_identity is only used with agent.direct; remove it");
  }
  if (direct && agent.jar == kAutoJar) {
    return Invalid(
        "agent.jar: \"auto\" fetches the jar from agent.url, which agent.direct does "
        "without; set the path of an agent.jar");
  }
  if (!agent.web_socket.value_or(false) && !agent.web_socket_headers.empty()) {
    return Invalid("agent.web_socket_headers need agent.web_socket = true");
  }
  return absl::OkStatus();
}

}  // namespace jenkins_agent
