// Nomad's task, and the parts of a LaunchSpec that are worked on without effects. The first byte
// chooses which.
#include <map>
#include <string>

#include "driver/agent/command.h"
#include "driver/agent/environment.h"
#include "driver/config/agent_check.h"
#include "driver/task/request_check.h"
#include "proto/nomad_driver.pb.h"
#include "proto/supervisor.pb.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace jenkins_agent;
  if (size == 0) return 0;
  const int count = static_cast<int>(size) - 1;
  if (data[0] % 2 == 0) {
    hashicorp::nomad::plugins::drivers::proto::TaskConfig task;
    if (!task.ParseFromArray(data + 1, count) || !CheckStartRequest(task).ok()) return 0;
    Require(task.name().find('/') == std::string::npos && task.name() != "..");
    Require(task.resources().allocated_resources().memory().memory_mb() >= 0);
    pb::AgentSpec agent;
    std::map<std::string, std::string> env(task.env().begin(), task.env().end());
    (void)MergeEnvironment(env, agent);
    Require(env.count("JENKINS_SECRET") == 0);
    (void)CheckAgent(agent);
    return 0;
  }
  pb::LaunchSpec spec;
  if (!spec.ParseFromArray(data + 1, count)) return 0;
  (void)CheckExecSize(spec.program(), 8 << 20);
  pb::JarInfo jar;
  jar.set_path("/agent.jar");
  jar.set_main_class(spec.agent().name());
  jar.set_generation(spec.version() % 2 == 0 ? pb::LAUNCHER_JENKINS : pb::LAUNCHER_HUDSON);
  if (CheckAgent(spec.agent()).ok()) (void)BuildAgentCommand(spec.agent(), jar);
  return 0;
}
