// One look at an agent's JVM from outside, in some ten microseconds: process, threads, memory,
// freezer, and the connection to its controller. Nothing of it can wait for the job.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cgroups/cgroup.h"
#include "driver/agent/health.h"
#include "driver/task/socket_diag.h"

namespace jenkins_agent {

class AgentProbe {
 public:
  struct Target {
    pid_t pid = 0;
    uint64_t start_time = 0;  // /proc/PID/stat field 22: with the pid it names the process for good
    std::string network_namespace = {};  // path; "": the host's
    std::vector<std::string> cgroup_dirs = {};
  };
  explicit AgentProbe(Target target) : target_(std::move(target)) {}

  // All of the sample but the phase. `connected`: by its own words, so that a connection is looked
  // for. NotFound: this process has ended.
  absl::StatusOr<HealthSample> Look(bool connected);

 private:
  void OpenGauges();
  void LookAtCgroup(HealthSample& sample);
  void LookAtSocket(HealthSample& sample);
  absl::StatusOr<std::optional<TcpSocket>> FindSocket();

  const Target target_;
  std::optional<cgroups::Gauges> gauges_;
  std::optional<SocketDiag> diag_;
  std::optional<TcpSocket> socket_;  // the one to the controller
};

// Of a JVM's connections the one to its controller, which has keep-alive on (remoting's Engine) and
// is older than those that plugins and builds make. A tunnel, a proxy or a WebSocket change the
// peer's port, so that says nothing. Pure.
std::optional<TcpSocket> ControllerSocket(const std::vector<TcpSocket>& sockets);

}  // namespace jenkins_agent
