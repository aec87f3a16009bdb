// nomad-driver-jenkins-agent: launched by Nomad it serves the driver, started by a person it is the
// operator's command line (the tools program).
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <string>
#include <system_error>

#include "driver/base/file.h"
#include "driver/base/log.h"
#include "driver/base/programs.h"
#include "driver/base/status.h"
#include "driver/config/hclspec.h"
#include "driver/plugin/launch.h"
#include "driver/plugin/serve.h"
#include "driver/service/base_service.h"
#include "driver/service/driver_service.h"
#include "driver/service/fingerprint.h"
#include "driver/service/runtime.h"
#include "driver/service/trial.h"

extern "C" {
extern const char embedded_supervisor_begin[];
extern const char embedded_supervisor_end[];
extern const char embedded_tools_begin[];
extern const char embedded_tools_end[];
extern const char embedded_exporter_begin[];
extern const char embedded_exporter_end[];
}

namespace jenkins_agent {
namespace {

EmbeddedPrograms Programs() {
  return {
      .supervisor = absl::string_view(embedded_supervisor_begin,
                                      embedded_supervisor_end - embedded_supervisor_begin),
      .tools = absl::string_view(embedded_tools_begin, embedded_tools_end - embedded_tools_begin),
      .exporter = absl::string_view(embedded_exporter_begin,
                                    embedded_exporter_end - embedded_exporter_begin),
  };
}

// Becomes the tools program; returns only when that fails. doctor finds this file again for a
// trial.
absl::Status RunCommandLine(char** argv) {
  std::error_code error;
  const std::string own_file = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) ::setenv(kPluginFileVariable, own_file.c_str(), /*overwrite=*/1);
  ASSIGN_OR_RETURN(const Fd program,
                   MakeSealedMemfd("nomad-driver-jenkins-agent", Programs().tools));
  ::fexecve(program.get(), argv, environ);
  return ErrnoStatus("start the command line");
}

absl::Status ServeDriver() {
  RETURN_IF_ERROR(PrepareProcess());
  RETURN_IF_ERROR(CheckLaunchEnvironment());
  InitLog(kDriverName);
  Runtime runtime(Programs());
  BaseService base({
      .name = kDriverName,
      .version = kDriverVersion,
      .config_schema = PluginConfigSpec,
      .set_config =
          [&runtime](const std::string& msgpack,
                     const std::optional<BaseService::NomadConfig>& nomad_config) {
            return runtime.Configure(msgpack, nomad_config);
          },
  });
  DriverService driver(&runtime);
  return Serve({&base, &driver});
}

}  // namespace
}  // namespace jenkins_agent

int main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == jenkins_agent::kTrialRole) {
    return jenkins_agent::RunTrial(jenkins_agent::Programs(), std::cin, std::cout);
  }
  const absl::Status status = jenkins_agent::LaunchedByNomad()
                                  ? jenkins_agent::ServeDriver()
                                  : jenkins_agent::RunCommandLine(argv);
  if (status.ok()) return EXIT_SUCCESS;
  std::cerr << "nomad-driver-jenkins-agent: " << status.message() << std::endl;
  return EXIT_FAILURE;
}
