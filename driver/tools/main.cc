// The operator's commands and the plugin's workers that need shared libraries (libcurl, libarchive,
// libcrypto). Carried inside the plugin's file and run from a memfd.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "driver/tools/explain.h"
#include "driver/tools/worker.h"

int main(int argc, char** argv) {
  CLI::App app("Runs Jenkins agents under Nomad: the operator's commands.",
               "nomad-driver-jenkins-agent");
  app.require_subcommand(1);
  app.add_subcommand("version", "Print the version");
  // For the plugin only: see worker.h. An empty group hides it from the help.
  const CLI::App* agent_jar = app.add_subcommand("agent-jar", "Fetch agent.jar")->group("");
  jenkins_agent::ExplainOptions explain_options;
  const CLI::App* explain = jenkins_agent::AddExplain(app, explain_options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // CLI11's own codes say nothing to an operator, and 2 means something else for `explain`.
    return app.exit(error) == 0 ? 0 : 1;
  }
  if (explain->parsed()) return jenkins_agent::RunExplain(explain_options);
  if (agent_jar->parsed()) {
    ::signal(SIGPIPE, SIG_IGN);
    return jenkins_agent::RunAgentJarWorker(STDIN_FILENO, STDOUT_FILENO);
  }
  std::cout << "nomad-driver-jenkins-agent " << PROJECT_VERSION << "\n";
  return 0;
}
