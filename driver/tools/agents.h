// `agents`: this node's agents as their supervisors see them, whether a plugin runs or not.
#pragma once

#include <chrono>
#include <iosfwd>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/tools/agents_view.h"

namespace CLI {
class App;
}

namespace jenkins_agent {

// How long a supervisor may take to answer; it only has to look at what it holds.
inline constexpr std::chrono::milliseconds kAnswerLimit{2000};

// Exit codes of the command.
inline constexpr int kAgentsShown = 0;
inline constexpr int kAgentsFailed = 1;
inline constexpr int kAgentsInTrouble = 2;  // shown, and some are silent, lost or unreadable

// Reads the state directory and asks each supervisor. The error is a sentence for the operator:
// NotFound (no such directory), PermissionDenied.
absl::StatusOr<AgentList> LookAtAgents(const std::string& state_dir);

// Adds the subcommand; once it was parsed and run, its exit code is in `exit_code`.
void AddAgentsCommand(CLI::App& app, int& exit_code);

}  // namespace jenkins_agent
