// The operator's commands and the plugin's workers that need shared libraries (libcurl, libarchive,
// libcrypto). Carried inside the plugin's file and run from a memfd.
#include <fcntl.h>
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

namespace {

// What was typed where a command should stand, with the commands before it; empty: nothing was.
std::string UnknownCommand(const CLI::App& app) {
  const CLI::App* last = &app;
  std::string words;
  while (!last->get_subcommands().empty()) {
    last = last->get_subcommands().front();
    absl::StrAppend(&words, last->get_name(), " ");
  }
  const std::vector<std::string> rest = last->remaining();
  if (rest.empty() || rest.front().empty() || rest.front()[0] == '-') return "";
  return words + rest.front();
}

// A standard descriptor that is closed would be the next file that is opened, and what is printed
// would be written into it. Read-only: what nobody can read is an error in the end.
void OpenClosedStandardDescriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) < 0) ::open("/dev/null", O_RDONLY);  // takes the lowest that is free
  }
}

int Run(int argc, char** argv) {
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
    const std::string unknown = UnknownCommand(app);
    if (unknown.empty()) return app.exit(error) == 0 ? 0 : 1;
    std::cerr << "there is no command '" << unknown << "'\nRun with --help for more information."
              << std::endl;
    return 1;
  } catch (const CLI::ParseError& error) {
    // CLI11's own codes say nothing to an operator, and 2 means something else for `explain`.
    return app.exit(error) == 0 ? 0 : 1;
  }
  return explain->parsed() ? jenkins_agent::RunExplain(explain_options) : exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  OpenClosedStandardDescriptors();
  const int exit_code = Run(argc, argv);
  if (std::cout.flush()) return exit_code;
  std::cerr << "nomad-driver-jenkins-agent: the output could not be written, not all of it is there"
            << std::endl;
  return 1;
}
