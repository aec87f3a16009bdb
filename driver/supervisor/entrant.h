// A process that comes into the sandbox from without, born in the task's cgroup: for a restart in
// place or an exec session where pid 1 can bear none there (Hierarchy::namespaces_delegate). A
// child of pid 1's would have to move, which waits for an RCU grace period after a rest
// (isolation.md 2.5): a supervisor may clone into the cgroup, and waits for nothing.
//
//   supervisor
//     `- midwife    bears in pid 1's pid namespace; sees to the usher's end
//          `- usher      born in the cgroup; joins pid 1's other namespaces, drops what is the
//          host's
//               `- entrant    drops all privileges that pid 1 has not, and waits for pid 1's order
//
// The usher ends when it has forked, so pid 1 inherits the entrant, as any orphan of its namespace
// (pid_namespaces(7)). For some system calls the usher is root with all capabilities among the
// job's processes. It is not dumpable, and no process has its real user id: only CAP_SYS_PTRACE
// would let one of them look into it, only CAP_KILL stop it. So a task whose payload has
// capabilities takes no entrants.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cgroups/cgroup.h"
#include "driver/base/fd.h"
#include "driver/supervisor/init_protocol.h"
#include "driver/supervisor/launch.h"

namespace jenkins_agent {

struct Birth {
  Fd midwife;  // pidfd; a child of the caller, who reaps it; ends within seconds
  Fd channel;  // non-blocking; ReadEntrant, once the midwife has ended
};

// For a supervisor, single-threaded. Does not wait.
absl::StatusOr<Birth> BearEntrant(const cgroups::Cgroup& cgroup, int init_pidfd);
// Of a birth that is over. Without an order the entrant ends when its channel is closed.
absl::StatusOr<Entrant> ReadEntrant(Fd channel);

// For pid 1: the entrant executes request.program as a child of the caller's, which it is, would.
// Unavailable: it has died. pid 1 alone reaps: once an order was sent, the number is the entrant's.
absl::Status OrderEntrant(const LaunchContext& context, const InitRequest& request);
// The same for the payload; takes the channel.
absl::StatusOr<StartingPayload> LaunchEntrant(const LaunchContext& context, InitRequest& request);

}  // namespace jenkins_agent
