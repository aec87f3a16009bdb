#include "driver/supervisor/spawner.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "cgroups/cgroup.h"
#include "cgroups/hierarchy.h"
#include "driver/base/clock.h"
#include "driver/base/idle_memory.h"
#include "driver/base/packet.h"
#include "driver/base/status.h"
#include "driver/sandbox/privileges.h"
#include "driver/sandbox/root_template.h"
#include "driver/supervisor/protocol.h"
#include "driver/supervisor/standby.h"
#include "driver/supervisor/supervisor.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {
namespace {

struct Order {
  std::string root_template;
  Assignment assignment;  // without its template
};

absl::StatusOr<Order> ParseOrder(Packet packet) {
  Order order;
  order.assignment.ordered_ns = MonotonicNs();
  pb::SpawnRequest request;
  if (packet.fds.size() != 2 || !request.ParseFromString(packet.data) ||
      request.version() != kSpecVersion) {
    return absl::InvalidArgumentError("not a spawn request of this version");
  }
  order.root_template = std::move(*request.mutable_root_template());
  order.assignment.received_ns = request.received_monotonic_ns();
  order.assignment.spec = std::move(packet.fds[0]);
  order.assignment.connection = std::move(packet.fds[1]);
  return order;
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
      pollfd fds[] = {{plugin_.get(), POLLIN, 0},
                      {templates_.mounts_fd(), POLLPRI, 0},
                      {starting_.get(), 0, 0}};
      if (::poll(fds, 3, -1) < 0) continue;  // EINTR
      if (fds[1].revents != 0) OnMountsChanged();
      if (fds[2].revents != 0) OnStarted();
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
    const absl::Status begun = Begin(order);
    if (!begun.ok()) SendStartError(order.assignment.connection.get(), begun);
  }

  absl::Status Begin(Order& order) {
    ASSIGN_OR_RETURN(order.assignment.root_template, templates_.Get(order.root_template),
                     "sandbox: template");
    absl::Status assigned = absl::UnavailableError("no supervisor stands by");
    if (standby_) assigned = Assign(standby_.get(), order.assignment);
    if (absl::IsUnavailable(assigned)) {
      RETURN_IF_ERROR(ForkStandby());
      assigned = Assign(standby_.get(), order.assignment);
    }
    starting_ = std::move(standby_);
    return assigned;
  }

  // Not before: it would take the CPU from what is starting.
  void OnStarted() {
    starting_.Reset();
    ForkStandby().IgnoreError();  // the next start tries again, and tells
  }

  absl::Status ForkStandby() {
    ASSIGN_OR_RETURN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
    const pid_t pid = ::fork();
    if (pid < 0) return ErrnoStatus("fork of the supervisor");
    if (pid == 0) {
      plugin_.Reset();
      standby_.Reset();
      starting_.Reset();
      templates_.Clear();
      sockets.first.Reset();
      RunStandby(std::move(sockets.second), hierarchy_);
    }
    standby_ = std::move(sockets.first);
    return absl::OkStatus();
  }

  Fd plugin_;
  Fd standby_;   // whom the next task is assigned to; none before the first
  Fd starting_;  // the latest start; none when it is over
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
