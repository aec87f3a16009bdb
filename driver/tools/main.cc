// The operator's commands and the plugin's workers that need shared libraries (libcurl, libarchive,
// libcrypto). Carried inside the plugin's file and run from a memfd.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/tools/agents.h"
#include "driver/tools/controller_check.h"
#include "driver/tools/describe.h"
#include "driver/tools/doctor.h"
#include "driver/tools/explain.h"
#include "driver/tools/image_worker.h"
#include "driver/tools/images.h"
#include "driver/tools/preflight.h"
#include "driver/tools/worker.h"

int main(int argc, char** argv) {
  CLI::App app("Runs Jenkins agents under Nomad: the operator's commands.",
               "nomad-driver-jenkins-agent");
  app.require_subcommand(1);
  int exit_code = 0;
  jenkins_agent::AddAgentsCommand(app, exit_code);
  jenkins_agent::AddImageCommands(app, exit_code);
  jenkins_agent::AddDoctorCommand(app, exit_code);
  jenkins_agent::ExplainOptions explain_options;
  const CLI::App* explain = jenkins_agent::AddExplain(app, explain_options);
  const std::string version = absl::StrCat("nomad-driver-jenkins-agent ", PROJECT_VERSION);
  app.set_version_flag("--version", version)->group("");  // beside the command
  app.add_subcommand("version", "Print the version")->callback([&version] {
    std::cout << version << "\n";
  });
  jenkins_agent::AddDescribe(app, PROJECT_VERSION);
  // For the plugin only: see worker.h, preflight.h and image_worker.h. An empty group hides it from
  // the help.
  app.add_subcommand("agent-jar", "Fetch agent.jar")->group("")->callback([&exit_code] {
    ::signal(SIGPIPE, SIG_IGN);
    exit_code = jenkins_agent::RunAgentJarWorker(STDIN_FILENO, STDOUT_FILENO);
  });
  app.add_subcommand("controller-check", "Ask a controller")->group("")->callback([&exit_code] {
    ::signal(SIGPIPE, SIG_IGN);
    exit_code = jenkins_agent::RunControllerCheck(STDIN_FILENO, STDOUT_FILENO);
  });
  app.add_subcommand("preflight", "Look at a way to a controller")->group("")->callback([&] {
    ::signal(SIGPIPE, SIG_IGN);
    exit_code = jenkins_agent::RunPreflightWorker(STDIN_FILENO, STDOUT_FILENO);
  });
  app.add_subcommand("image-pull", "Fetch an image")->group("")->callback([&exit_code] {
    ::signal(SIGPIPE, SIG_IGN);
    exit_code = jenkins_agent::RunImageWorker(STDIN_FILENO, STDOUT_FILENO);
  });
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& error) {
    const std::vector<std::string> words = app.remaining();
    if (words.empty() || !app.get_subcommands().empty()) return app.exit(error) == 0 ? 0 : 1;
    std::cerr << "there is no command '" << words.front()
              << "'\nRun with --help for more information." << std::endl;
    return 1;
  } catch (const CLI::ParseError& error) {
    // CLI11's own codes say nothing to an operator, and 2 means something else for `explain`.
    return app.exit(error) == 0 ? 0 : 1;
  }
  return explain->parsed() ? jenkins_agent::RunExplain(explain_options) : exit_code;
}
