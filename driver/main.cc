// nomad-driver-jenkins-agent: launched by Nomad it serves the driver, started by a person it is the
// operator's command line (the tools program).
#include <stdlib.h>
#include <unistd.h>

#include <iostream>

#include "driver/base/file.h"
#include "driver/base/log.h"
#include "driver/base/status.h"
#include "driver/config/hclspec.h"
#include "driver/plugin/launch.h"
#include "driver/plugin/serve.h"
#include "driver/service/base_service.h"
#include "driver/service/driver_service.h"
#include "driver/service/fingerprint.h"
#include "driver/service/runtime.h"

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

// Becomes the tools program; returns only when that fails.
absl::Status RunCommandLine(char** argv) {
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

int main(int, char** argv) {
  const absl::Status status = jenkins_agent::LaunchedByNomad()
                                  ? jenkins_agent::ServeDriver()
                                  : jenkins_agent::RunCommandLine(argv);
  if (status.ok()) return EXIT_SUCCESS;
  std::cerr << "nomad-driver-jenkins-agent: " << status.message() << std::endl;
  return EXIT_FAILURE;
}
