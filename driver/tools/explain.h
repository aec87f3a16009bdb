// The command `explain`: why is a job not placed, in numbers.
#pragma once

#include <CLI/App.hpp>
#include <string>

namespace jenkins_agent {

struct ExplainOptions {
  std::string subject;  // a job or an evaluation
  bool all_blocked = false;
  std::string prefix;  // of job ids, with all_blocked
  bool watch = false;
  bool json = false;
};

// Adds the command to `app`; `options` is filled when the line is parsed and outlives it.
CLI::App* AddExplain(CLI::App& app, ExplainOptions& options);

// Exit code: 0 nothing waits, 2 something waits, 1 error (told on stderr).
int RunExplain(const ExplainOptions& options);

}  // namespace jenkins_agent
