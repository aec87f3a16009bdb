// The smallest plugin: the transport and a BaseService. What it does besides is chosen by argv:
//   hang     main hangs after Serve
//   block    SetConfig blocks until the process ends
#include <sys/resource.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "driver/base/log.h"
#include "driver/plugin/launch.h"
#include "driver/plugin/serve.h"
#include "driver/service/base_service.h"

namespace jenkins_agent {
namespace {

BaseService::Spec Schema() {
  BaseService::Spec spec;
  spec.mutable_object();
  return spec;
}

int Fail(const absl::Status& status) {
  Log(LogLevel::kError, status.ToString());
  return 1;
}

int Main(const std::string& mode) {
  InitLog("test-plugin");
  if (const absl::Status prepared = PrepareProcess(); !prepared.ok()) return Fail(prepared);
  if (const absl::Status checked = CheckLaunchEnvironment(); !checked.ok()) return Fail(checked);
  BaseService base({.name = "test",
                    .version = "0.1.0",
                    .config_schema = Schema,
                    .set_config = [&mode](const std::string& msgpack, const auto&) {
                      if (mode == "block") {
                        Log(LogLevel::kInfo, "blocked");
                        while (true) ::pause();
                      }
                      Log(LogLevel::kInfo, absl::StrCat("config of ", msgpack.size(), " bytes"));
                      return absl::OkStatus();
                    }});
  const absl::Status served = Serve({&base}, [] { Log(LogLevel::kInfo, "asked to end"); });
  if (!served.ok()) return Fail(served);
  while (mode == "hang") ::pause();
  return 0;
}

}  // namespace
}  // namespace jenkins_agent

int main(int argc, char** argv) { return jenkins_agent::Main(argc > 1 ? argv[1] : ""); }
