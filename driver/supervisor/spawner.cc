#include "driver/supervisor/spawner.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "cgroups/cgroup.h"
#include "cgroups/hierarchy.h"
#include "driver/base/fault.h"
#include "driver/base/file.h"
#include "driver/base/idle_memory.h"
#include "driver/base/packet.h"
#include "driver/base/status.h"
#include "driver/sandbox/privileges.h"
#include "driver/sandbox/root_template.h"
#include "driver/supervisor/protocol.h"
#include "driver/supervisor/supervisor.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {
namespace {

struct Order {
  int64_t received_ns = 0;
  pb::SpawnRequest request;
  Fd spec;
  Fd connection;
};

int64_t MonotonicNs() {
  timespec now = {};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
}

absl::StatusOr<Order> ParseOrder(Packet packet) {
  Order order;
  order.received_ns = MonotonicNs();
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

[[noreturn]] void BecomeSupervisor(Order order, Fd root_template,
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
    Supervisor supervisor(*std::move(spec), *hierarchy, std::move(root_template),
                          std::move(order.connection), order.request.received_monotonic_ns(),
                          order.received_ns);
    supervisor.Run();
  }
  ::_exit(0);
}

// What a sandbox binds below /sys/fs/cgroup, each in a directory of its own; on v2 there is one.
std::vector<std::string> CgroupNames(const absl::StatusOr<cgroups::Hierarchy>& hierarchy) {
  if (!hierarchy.ok() || hierarchy->version() != cgroups::Version::kV1) return {};
  return cgroups::Cgroup::ViewNames();
}

// Everything that a plugin asks for, one after the other.
class SpawnLoop {
 public:
  SpawnLoop(Fd plugin, const absl::StatusOr<cgroups::Hierarchy>& hierarchy)
      : plugin_(std::move(plugin)), hierarchy_(hierarchy), templates_(CgroupNames(hierarchy)) {}

  // -> exit code of the process.
  int Run() {
    for (;;) {
      pollfd fds[] = {{plugin_.get(), POLLIN, 0}, {templates_.mounts_fd(), POLLPRI, 0}};
      if (::poll(fds, 2, -1) < 0) continue;  // EINTR
      if (fds[1].revents != 0) OnMountsChanged();
      if (fds[0].revents == 0) continue;
      // An error ends it: what a job finds at this descriptor when it executes our file is no
      // socket, and would be readable for ever.
      absl::StatusOr<Packet> packet = ReceivePacket(plugin_.get());
      if (!packet.ok()) return absl::IsOutOfRange(packet.status()) ? 0 : 1;
      absl::StatusOr<Order> order = ParseOrder(*std::move(packet));
      if (order.ok()) CarryOut(*std::move(order));
    }
  }

 private:
  void OnMountsChanged() {
    templates_.OnMountsChanged();
    ReleaseIdleMemory();
  }

  void CarryOut(Order order) {
    absl::StatusOr<Fd> root_template = templates_.Get(order.request.root_template());
    const absl::Status spawned = root_template.ok()
                                     ? Fork(order, *std::move(root_template))
                                     : Annotate(root_template.status(), "sandbox: template");
    if (!spawned.ok()) SendStartError(order.connection.get(), spawned);
  }

  absl::Status Fork(Order& order, Fd root_template) {
    const pid_t pid = ::fork();
    if (pid < 0) return ErrnoStatus("fork of the supervisor");
    if (pid > 0) return absl::OkStatus();
    plugin_.Reset();
    templates_.Clear();
    BecomeSupervisor(std::move(order), std::move(root_template), hierarchy_);
  }

  Fd plugin_;
  const absl::StatusOr<cgroups::Hierarchy>& hierarchy_;
  RootTemplates templates_;
};

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
  return SpawnLoop(std::move(plugin), hierarchy).Run();
}

}  // namespace jenkins_agent
