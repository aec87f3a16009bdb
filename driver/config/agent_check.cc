#include "driver/config/agent_check.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/status.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

bool IsControlOrBlank(char c) {
  return absl::ascii_iscntrl(static_cast<unsigned char>(c)) || c == ' ';
}

// ---- what has to be there ----

absl::Status CheckComplete(const pb::AgentSpec& agent) {
  constexpr absl::string_view kOrEnvironment = " in the task's environment";
  const bool direct = !agent.direct().empty();
  if (agent.urls().empty() && !direct) {
    return Invalid("agent.url is missing: set agent { url } or JENKINS_URL", kOrEnvironment);
  }
  if (agent.name().empty()) {
    return Invalid("agent.name is missing: set agent { name } or JENKINS_AGENT_NAME",
                   kOrEnvironment);
  }
  if (agent.secret().empty()) {
    return Invalid("agent.secret is missing: set agent { secret_file } or JENKINS_SECRET",
                   kOrEnvironment);
  }
  if (direct && agent.instance_identity().empty()) {
    return Invalid("agent.direct needs agent.instance_identity or JENKINS_INSTANCE_IDENTITY",
                   kOrEnvironment, ": without HTTP it is the only proof of the controller");
  }
  if (agent.urls().empty() && agent.jar().empty()) {
    return Invalid(
        "agent.jar is missing: with agent.direct alone there is no URL to fetch it from; set the "
        "path of an agent.jar, or agent.url");
  }
  return absl::OkStatus();
}

// ---- single values ----

// The launcher would take these for an option or for a file of options.
absl::Status CheckNoOption(absl::string_view text) {
  if (absl::StartsWith(text, "-") || absl::StartsWith(text, "@")) {
    return Invalid(Quoted(text), " begins with '", text.substr(0, 1),
                   "', which the agent takes for an option");
  }
  return absl::OkStatus();
}

absl::Status CheckSecret(absl::string_view secret) {
  if (absl::StartsWith(secret, "-") ||
      std::any_of(secret.begin(), secret.end(), IsControlOrBlank)) {
    return Invalid("it must be one word that does not begin with '-'; it is not quoted here");
  }
  return absl::OkStatus();
}

// NAME=VALUE, as the launcher takes it.
absl::Status CheckHeaderOption(absl::string_view header) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(header, absl::MaxSplits('=', 1));
  return Annotate(CheckHeader(parts.first, parts.second), Quoted(parts.first));
}

// Options of the launcher that the driver writes itself; twice is a usage error of the agent.
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

absl::Status CheckExtraArg(absl::string_view arg) {
  if (arg.empty()) return Invalid("contains an empty string; remove it");
  for (const OwnedOption& owned : kOwnedOptions) {
    if (arg != owned.flag) continue;
    return Invalid("contains ", arg, ", which the driver writes; set ", owned.instead, " instead");
  }
  return absl::OkStatus();
}

using Check = absl::Status (*)(absl::string_view);

template <typename Values>
absl::Status CheckEach(const Values& values, Check check, absl::string_view path) {
  for (const std::string& value : values) RETURN_IF_ERROR(check(value), path);
  return absl::OkStatus();
}

absl::Status CheckValues(const pb::AgentSpec& agent) {
  struct Row {
    absl::string_view path;
    const std::string& value;
    Check check;
  };
  const Row rows[] = {
      {"agent.name", agent.name(), CheckAgentName},
      {"agent.name", agent.name(), CheckNoOption},
      {"agent.secret", agent.secret(), CheckSecret},
      {"agent.tunnel", agent.tunnel(), CheckTunnel},
      {"agent.direct", agent.direct(), CheckHostPort},
      {"agent.instance_identity", agent.instance_identity(), CheckInstanceIdentity},
      {"agent.ca_file", agent.ca_file(), CheckAbsolutePath},
      {"agent.root_dir", agent.root_dir(), CheckAbsolutePath},
      {"agent.jar", agent.jar(), CheckAbsolutePath},
  };
  for (const Row& row : rows) {
    if (!row.value.empty()) RETURN_IF_ERROR(row.check(row.value), row.path);
  }
  RETURN_IF_ERROR(CheckEach(agent.urls(), CheckControllerUrl, "agent.url"));
  RETURN_IF_ERROR(
      CheckEach(agent.web_socket_headers(), CheckHeaderOption, "agent.web_socket_headers"));
  return CheckEach(agent.extra_args(), CheckExtraArg, "agent.extra_args");
}

// ---- together ----

bool HasArg(const pb::AgentSpec& agent, absl::string_view flag) {
  const auto& args = agent.extra_args();
  return std::find(args.begin(), args.end(), flag) != args.end();
}

// The launcher's own "forbids" and "needs" (jenkins-agent.md 1.1). A URL beside agent.direct is no
// such case: it serves to fetch agent.jar and is not passed on (agent/command.cc).
absl::Status CheckCombinations(const pb::AgentSpec& agent) {
  const bool web_socket = agent.web_socket();
  const bool direct = !agent.direct().empty();
  const bool tunnel = !agent.tunnel().empty();
  const bool ca_file = !agent.ca_file().empty();
  struct Pair {
    bool both;
    absl::string_view names;
    absl::string_view reason;
  };
  const Pair pairs[] = {
      {web_socket && direct, "agent.web_socket and agent.direct",
       "a WebSocket goes to agent.url; remove one of them"},
      {web_socket && tunnel, "agent.web_socket and agent.tunnel",
       "a WebSocket goes to agent.url and needs no tunnel; remove one of them"},
      {direct && tunnel, "agent.direct and agent.tunnel",
       "agent.direct already names the host and port; remove agent.tunnel"},
      {direct && ca_file && agent.urls().empty(), "agent.direct and agent.ca_file",
       "a direct connection trusts agent.instance_identity only; remove agent.ca_file"},
      {ca_file &&
           (HasArg(agent, "-noCertificateCheck") || HasArg(agent, "-disableHttpsCertValidation")),
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
  if (!direct && !agent.instance_identity().empty()) {
    return Invalid("agent.instance_identity is only used with agent.direct; remove it");
  }
  if (web_socket && agent.urls_size() != 1) {
    return Invalid("agent.web_socket needs exactly one agent.url; there are ", agent.urls_size());
  }
  if (!web_socket && !agent.web_socket_headers().empty()) {
    return Invalid("agent.web_socket_headers need agent.web_socket = true");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckAgent(const pb::AgentSpec& agent) {
  RETURN_IF_ERROR(CheckValues(agent));
  RETURN_IF_ERROR(CheckComplete(agent));
  return CheckCombinations(agent);
}

}  // namespace jenkins_agent
