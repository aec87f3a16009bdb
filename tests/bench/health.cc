// Many agents that the plugin watches from outside, and one of them that hangs. The agents are
// stand-ins: a process that says that it is connected, with a connection that is at rest.
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "tests/bench/fleet.h"
#include "tests/bench/process.h"
#include "tests/bench/scenarios.h"
#include "tests/support/temp_dir.h"
#include "tests/tools/fake_jar.h"

namespace jenkins_agent::bench {
namespace {

constexpr double kFoundTargetSeconds = 60;
constexpr int kConnectPatienceSeconds = 60;

// Takes every connection and leaves it alone.
class Controller {
 public:
  Controller() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    ::listen(listener_.get(), 1024);
    sockaddr_in address = {};
    socklen_t size = sizeof(address);
    ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      for (;;) {
        Fd agent(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!agent) return;
        agents_.push_back(std::move(agent));
      }
    });
  }
  ~Controller() {
    ::shutdown(listener_.get(), SHUT_RDWR);  // ends accept()
    thread_.join();
  }
  uint16_t port() const { return port_; }

 private:
  const Fd listener_;
  uint16_t port_ = 0;
  std::vector<Fd> agents_;  // the thread's
  std::thread thread_;
};

absl::Status MakeJava(const std::string& home, uint16_t port) {
  RETURN_IF_ERROR(MakeDirs(home + "/bin"));
  RETURN_IF_ERROR(WriteFileAtomic(home + "/release", "JAVA_VERSION=\"17.0.1\"\n", 0644));
  return WriteFileAtomic(home + "/bin/java",
                         absl::StrCat("#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/", port,
                                      "\necho 'INFO: Connected' >&2\nexec sleep 1000000\n"),
                         0755);
}

void Rest(int seconds) {
  const timespec rest = {seconds, 0};
  ::nanosleep(&rest, nullptr);
}

absl::Status AwaitConnected(Fleet& fleet) {
  for (int waited = 0; waited < kConnectPatienceSeconds; ++waited) {
    ASSIGN_OR_RETURN(const Fleet::Agents agents, fleet.LookAtAgents());
    if (agents.connected == fleet.size()) return absl::OkStatus();
    Rest(1);
  }
  return absl::DeadlineExceededError("not all agents say that they are connected");
}

struct AtRest {
  double cpu_ms_per_minute = 0;
  double rss_mb = 0;
};

absl::StatusOr<AtRest> MeasureRest(int seconds, const Fleet& fleet) {
  ASSIGN_OR_RETURN(const double begin, CpuSecondsOf(fleet.plugin()));
  Rest(seconds);
  ASSIGN_OR_RETURN(const double end, CpuSecondsOf(fleet.plugin()));
  ASSIGN_OR_RETURN(const ProcessMemory memory, MemoryOf(fleet.plugin()));
  return AtRest{(end - begin) * 1000 * 60 / seconds, memory.rss_kb / 1024};
}

// Seconds from the stop of one JVM to the decision about it.
absl::StatusOr<double> FindStopped(Fleet& fleet) {
  ASSIGN_OR_RETURN(const Fleet::Agents before, fleet.LookAtAgents());
  if (::kill(before.payloads.front(), SIGSTOP) != 0) return ErrnoStatus("SIGSTOP");
  const double begin = NowMs();
  for (;;) {
    Rest(1);
    ASSIGN_OR_RETURN(const Fleet::Agents now, fleet.LookAtAgents());
    const double waited = (NowMs() - begin) / 1000;
    if (now.restarts > before.restarts) return waited;
    if (waited > 3 * kFoundTargetSeconds) {
      return absl::DeadlineExceededError("a stopped agent was not found");
    }
  }
}

absl::StatusOr<AtRest> Run(const HealthOptions& options, bool watched, double* found_seconds) {
  const TempDir dir;
  const Controller controller;
  const std::string java = dir.path() + "/jdk";
  RETURN_IF_ERROR(MakeJava(java, controller.port()));
  RETURN_IF_ERROR(MakeDirs(dir.path() + "/fleet"));
  ASSIGN_OR_RETURN(const std::unique_ptr<Fleet> fleet,
                   Fleet::Launch(dir.path() + "/fleet", {.own_logs = true}));
  RETURN_IF_ERROR(fleet->StartAgents(options.agents, java, CurrentAgentJar(), watched));
  RETURN_IF_ERROR(AwaitConnected(*fleet));
  ASSIGN_OR_RETURN(const AtRest rest, MeasureRest(options.seconds, *fleet));
  if (watched) {
    ASSIGN_OR_RETURN(*found_seconds, FindStopped(*fleet));
  }
  RETURN_IF_ERROR(fleet->DestroyAll());
  return rest;
}

}  // namespace

absl::Status BenchHealth(const HealthOptions& options, Report& report) {
  double found_seconds = 0;
  ASSIGN_OR_RETURN(const AtRest plain, Run(options, /*watched=*/false, nullptr));
  ASSIGN_OR_RETURN(const AtRest watched, Run(options, /*watched=*/true, &found_seconds));
  const std::string conditions = absl::StrCat(options.agents, " agents at rest");
  report.Add({"health_plugin_cpu_ms_per_minute", conditions, watched.cpu_ms_per_minute,
              "health.enabled = false", plain.cpu_ms_per_minute});
  report.Add(
      {"health_plugin_rss_mb", conditions, watched.rss_mb, "health.enabled = false", plain.rss_mb});
  report.Add({"health_wedge_found_s",
              "a stopped JVM, idle, default options",
              found_seconds,
              "",
              {},
              "<= 60 s",
              found_seconds <= kFoundTargetSeconds + 1});  // looked at each second
  return absl::OkStatus();
}

}  // namespace jenkins_agent::bench
