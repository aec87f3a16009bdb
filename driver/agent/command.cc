#include "driver/agent/command.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

// JDK 24 removed the Security Manager that the old launcher's main class installs (JEP 486).
constexpr uint32_t kFirstJavaWithoutSecurityManager = 24;

using Arguments = std::vector<std::string>;

void AddIfSet(const std::string& option, const std::string& value, Arguments& arguments) {
  if (value.empty()) return;
  arguments.push_back(option);
  arguments.push_back(value);
}

absl::Status RefuseForOldAgent(bool given, absl::string_view option) {
  if (!given) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("agent.", option,
                   " is set, but the controller's agent is of the Hudson "
                   "generation, which does not know it; leave it out"));
}

absl::Status AddOldProgram(const pb::AgentSpec& agent, const pb::JarInfo& jar,
                           Arguments& arguments) {
  RETURN_IF_ERROR(RefuseForOldAgent(agent.web_socket(), "web_socket"));
  RETURN_IF_ERROR(RefuseForOldAgent(!agent.direct().empty(), "direct"));
  RETURN_IF_ERROR(RefuseForOldAgent(!agent.instance_identity().empty(), "instance_identity"));
  RETURN_IF_ERROR(RefuseForOldAgent(!agent.ca_file().empty(), "ca_file"));
  if (absl::StartsWith(agent.secret(), "@")) {
    return absl::InvalidArgumentError(
        "the secret is given as @file, which agents of the Hudson generation do not read; use "
        "agent.secret_file or put the secret itself into JENKINS_SECRET");
  }
  arguments.insert(arguments.end(), {"-cp", jar.path(), kInboundMainClass, "-headless"});
  for (const std::string& url : agent.urls()) AddIfSet("-url", url, arguments);
  AddIfSet("-tunnel", agent.tunnel(), arguments);
  arguments.insert(arguments.end(), agent.extra_args().begin(), agent.extra_args().end());
  arguments.push_back(agent.secret());
  arguments.push_back(agent.name());
  return absl::OkStatus();
}

void AddCurrentProgram(const pb::AgentSpec& agent, const pb::JarInfo& jar, Arguments& arguments) {
  arguments.insert(arguments.end(), {"-jar", jar.path()});
  if (agent.direct().empty()) {
    for (const std::string& url : agent.urls()) AddIfSet("-url", url, arguments);
  } else {
    // -direct forbids -url; the url serves to fetch agent.jar only.
    AddIfSet("-direct", agent.direct(), arguments);
    AddIfSet("-instanceIdentity", agent.instance_identity(), arguments);
  }
  AddIfSet("-secret", agent.secret(), arguments);
  AddIfSet("-name", agent.name(), arguments);
  AddIfSet("-tunnel", agent.tunnel(), arguments);
  if (agent.web_socket()) arguments.push_back("-webSocket");
  for (const std::string& header : agent.web_socket_headers()) {
    AddIfSet("-webSocketHeader", header, arguments);
  }
  // One word: the agent's option parser replaces a word that begins with @ by the file's lines.
  if (!agent.ca_file().empty()) arguments.push_back(absl::StrCat("-cert=@", agent.ca_file()));
  AddIfSet("-workDir", agent.root_dir(), arguments);
  arguments.insert(arguments.end(), agent.extra_args().begin(), agent.extra_args().end());
}

bool Mentions(const Arguments& arguments, absl::string_view text) {
  for (const std::string& argument : arguments) {
    if (absl::StrContains(argument, text)) return true;
  }
  return false;
}

}  // namespace

std::string QuoteArgument(absl::string_view argument) {
  std::string quoted = "\"";
  for (const char c : argument) {
    switch (c) {
      case '\n':
        quoted += "\\n";
        break;
      case '\r':
        quoted += "\\r";
        break;
      case '\t':
        quoted += "\\t";
        break;
      case '\f':
        quoted += "\\f";
        break;
      case '\\':
      case '"':
        quoted += '\\';
        [[fallthrough]];
      default:
        quoted += c;
    }
  }
  return quoted + "\"";
}

absl::StatusOr<pb::JavaHome> ChooseJava(const std::vector<pb::JavaHome>& java_homes,
                                        pb::LauncherGeneration generation, uint32_t min_java) {
  const bool old = generation == pb::LAUNCHER_HUDSON;
  std::vector<std::string> found;
  for (const pb::JavaHome& home : java_homes) {
    const uint32_t feature = home.feature();
    if (feature == 0) return home;
    if (feature >= min_java && !(old && feature >= kFirstJavaWithoutSecurityManager)) return home;
    found.push_back(absl::StrCat(feature, " (", home.path(), ")"));
  }
  std::string needs = absl::StrCat("this agent.jar needs Java ", min_java, " or newer");
  if (old) absl::StrAppend(&needs, " and older than ", kFirstJavaWithoutSecurityManager);
  return absl::FailedPreconditionError(absl::StrCat(
      "no Java for the agent: ", needs, "; ",
      found.empty() ? "none was found" : absl::StrCat("found only ", absl::StrJoin(found, ", ")),
      "; install one or set java_home"));
}

bool IsAgentMainClass(absl::string_view main_class) {
  return main_class == kLauncherMainClass || main_class == kInboundMainClass;
}

pb::AgentSpec AgentOfArguments(const std::vector<std::string>& arguments) {
  pb::AgentSpec agent;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& option = arguments[i];
    const std::string value = i + 1 < arguments.size() ? arguments[i + 1] : "";
    if ((option == "-url" || option == "-jnlpUrl") && absl::StartsWith(value, "http")) {
      // http://c.example/computer/NAME/jenkins-agent.jnlp
      agent.add_urls(value.substr(0, option == "-url" ? value.npos : value.find("computer/")));
    } else if (option == "-name") {
      agent.set_name(value);
    } else if (option == "-webSocket") {
      agent.set_web_socket(true);
    } else if (absl::StartsWithIgnoreCase(option, "-noReconnect")) {
      agent.set_one_shot(true);
    }
  }
  // Of old launchers the last argument, behind the secret.
  const size_t count = arguments.size();
  if (agent.name().empty() && count > 1 && !absl::StartsWith(arguments[count - 1], "-") &&
      !absl::StartsWith(arguments[count - 2], "-")) {
    agent.set_name(arguments.back());
  }
  return agent;
}

absl::StatusOr<AgentCommand> BuildAgentCommand(const pb::AgentSpec& agent, const pb::JarInfo& jar) {
  if (jar.path().empty() || jar.generation() == pb::LAUNCHER_UNKNOWN) {
    return absl::InvalidArgumentError(
        absl::StrCat("agent.jar '", jar.path(), "' is not a Jenkins or Hudson agent"));
  }
  ASSIGN_OR_RETURN(const pb::JavaHome java,
                   ChooseJava({agent.java_homes().begin(), agent.java_homes().end()},
                              jar.generation(), jar.min_java()));
  Arguments arguments(agent.jvm_options().begin(), agent.jvm_options().end());
  // Without it the JVM publishes its whole command line in /tmp/hsperfdata_USER/PID.
  if (!Mentions(arguments, "UsePerfData")) arguments.push_back("-XX:-UsePerfData");
  if (jar.generation() == pb::LAUNCHER_HUDSON) {
    RETURN_IF_ERROR(AddOldProgram(agent, jar, arguments));
  } else {
    AddCurrentProgram(agent, jar, arguments);
  }

  AgentCommand command;
  command.java_home = java.path();
  command.argv = {absl::StrCat(java.path(), "/bin/java"), absl::StrCat("@", kArgumentsFile)};
  for (const std::string& argument : arguments) {
    absl::StrAppend(&command.arguments_file, QuoteArgument(argument), "\n");
  }
  return command;
}

}  // namespace jenkins_agent
