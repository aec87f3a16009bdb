// From the description of an agent and of its jar to what is executed: `java @file`.
//
// Everything behind `java`, the secret too, stands in a JDK argument file, so /proc/PID/cmdline
// shows neither. The file is the supervisor's to write, 0400, anew before each launch (current
// agents of permanent nodes execute themselves again with the same argv). Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/base/sandbox_paths.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

struct AgentCommand {
  std::vector<std::string> argv;  // {"<java_home>/bin/java", "@/run/jenkins-agent/args"}
  std::string arguments_file;     // content of kArgumentsFile; holds the secret: keep it off disks
  std::string java_home;          // the one chosen, for JAVA_HOME
};

// InvalidArgument when the agent of this jar has no such option; FailedPrecondition when no JDK
// fits. Messages never quote the secret.
absl::StatusOr<AgentCommand> BuildAgentCommand(const pb::AgentSpec& agent, const pb::JarInfo& jar);

// The first (best) home that can run the jar. A home of unknown version (feature 0) fits.
absl::StatusOr<pb::JavaHome> ChooseJava(const std::vector<pb::JavaHome>& java_homes,
                                        pb::LauncherGeneration generation, uint32_t min_java);

// The launchers of both generations, as the main class of a jar or of a command line.
inline constexpr char kLauncherMainClass[] = "hudson.remoting.Launcher";
inline constexpr char kInboundMainClass[] = "hudson.remoting.jnlp.Main";
bool IsAgentMainClass(absl::string_view main_class);

// What a launcher's arguments, the job's own, say that its supervision needs: url, name, WebSocket,
// and whether the end of the channel is to be the agent's. Nothing of them is checked.
pb::AgentSpec AgentOfArguments(const std::vector<std::string>& arguments);

// One argument as a line of a JDK argument file ("java" command, section "java Command-Line
// Argument Files").
std::string QuoteArgument(absl::string_view argument);

}  // namespace jenkins_agent
