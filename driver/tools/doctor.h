// `doctor`: whether this node can run agents, check by check, each with its reason and what to do.
// Needs no Nomad; with one that answers it also checks what Nomad knows.
#pragma once

namespace CLI {
class App;
}

namespace jenkins_agent {

// Exit codes of the command.
inline constexpr int kDoctorFine = 0;  // warnings included
inline constexpr int kDoctorError = 1;
inline constexpr int kDoctorFailures = 2;

// Adds the subcommand; once it was parsed and run, its exit code is in `exit_code`.
void AddDoctorCommand(CLI::App& app, int& exit_code);

}  // namespace jenkins_agent
