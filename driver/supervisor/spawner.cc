#include "driver/supervisor/spawner.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <utility>

#include "cgroups/hierarchy.h"
#include "driver/base/fault.h"
#include "driver/base/file.h"
#include "driver/base/idle_memory.h"
#include "driver/base/packet.h"
#include "driver/base/status.h"
#include "driver/sandbox/privileges.h"
#include "driver/supervisor/protocol.h"
#include "driver/supervisor/supervisor.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {
namespace {

struct Order {
  pb::SpawnRequest request;
  Fd spec;
  Fd connection;
};

absl::StatusOr<Order> ReceiveOrder(int plugin) {
  ASSIGN_OR_RETURN(Packet packet, ReceivePacket(plugin));
  Order order;
  if (packet.fds.size() != 2 || !order.request.ParseFromString(packet.data) ||
      order.request.version() != kSpecVersion) {
    return absl::InvalidArgumentError("not a spawn request of this version");
  }
  order.spec = std::move(packet.fds[0]);
  order.connection = std::move(packet.fds[1]);
  return order;
}

absl::StatusOr<pb::LaunchSpec> ReadSpec(Fd memfd) {
  ASSIGN_OR_RETURN(const std::string bytes, ReadAll(memfd.get(), kMaxSpecBytes),
                   "task description");
  pb::LaunchSpec spec;
  if (!spec.ParseFromString(bytes))
    return absl::InvalidArgumentError("task description is garbled");
  return spec;
}

// SIG_IGN of the spawner's SIGCHLD would make every wait of the supervisor fail with ECHILD.
void LeaveSpawner() {
  ::signal(SIGCHLD, SIG_DFL);
  for (int signal : {SIGHUP, SIGPIPE, SIGINT, SIGTERM}) ::signal(signal, SIG_IGN);
  ::setsid();
  (void)::prctl(PR_SET_NAME, "ja-supervisor");
}

[[noreturn]] void BecomeSupervisor(Order order,
                                   const absl::StatusOr<cgroups::Hierarchy>& hierarchy) {
  LeaveSpawner();
  FaultPoint("supervisor.start.forked");
  absl::StatusOr<pb::LaunchSpec> spec = ReadSpec(std::move(order.spec));
  const absl::Status usable = spec.ok() ? hierarchy.status() : spec.status();
  if (!usable.ok()) {
    SendStartError(order.connection.get(), usable);
    ::_exit(1);
  }
  {
    Supervisor supervisor(*std::move(spec), *hierarchy, std::move(order.connection),
                          order.request.received_monotonic_ns());
    supervisor.Run();
  }
  ::_exit(0);
}

void Spawn(Fd& plugin, const absl::StatusOr<cgroups::Hierarchy>& hierarchy, Order order) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    plugin.Reset();
    BecomeSupervisor(std::move(order), hierarchy);
  }
  if (pid < 0) SendStartError(order.connection.get(), ErrnoStatus("fork of the supervisor"));
}

}  // namespace

int RunSpawner(Fd plugin) {
  ::signal(SIGCHLD, SIG_IGN);  // supervisors are reaped by the kernel
  ::setsid();
  (void)::prctl(PR_SET_NAME, "ja-spawner");
  (void)::prctl(PR_SET_DUMPABLE, 0);  // specifications with secrets pass through; forks inherit it
  // Once for all tasks, whose pid 1 checks it. It limits what an exec can gain, and none of ours
  // does.
  DropBoundingSet().IgnoreError();
  // Once: mountinfo of a node with many mounts takes milliseconds to read.
  absl::StatusOr<cgroups::Hierarchy> detected = cgroups::Hierarchy::Detect();
  // The copy lies in the holes that detection left in the heap. Without it every fork would fill
  // them and so get private copies of these pages.
  const absl::StatusOr<cgroups::Hierarchy> hierarchy = detected;
  detected = absl::UnknownError("");
  ReleaseIdleMemory();
  for (;;) {
    absl::StatusOr<Order> order = ReceiveOrder(plugin.get());
    if (order.ok()) {
      Spawn(plugin, hierarchy, *std::move(order));
    } else if (!absl::IsInvalidArgument(order.status())) {
      return absl::IsOutOfRange(order.status()) ? 0 : 1;
    }
  }
}

}  // namespace jenkins_agent
