// The operator's commands for the node's image store: images ls, pull, inspect, verify, du, gc,
// rm, pin, unpin. Each works on the store's files, beside a running plugin and beside each other.
#pragma once

#include <CLI/CLI.hpp>

namespace jenkins_agent {

// Adds `images` to the program. What a command prints goes to stdout, progress to stderr; its exit
// code to `exit_code`.
void AddImageCommands(CLI::App& app, int& exit_code);

}  // namespace jenkins_agent
