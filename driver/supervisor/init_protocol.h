// What the supervisor and pid 1 of its sandbox say to each other over their SEQPACKET pair.
//
// Both ends are the same program, one a fork of the other, so there is no version. Signals go from
// the supervisor straight to the payload's pidfd.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cgroups/cgroup.h"
#include "driver/base/fd.h"
#include "driver/sandbox/root.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

inline constexpr int kMaxJavaHomes = 32;  // that are looked at: bits of InitReport::number

struct InitReport {
  enum class Kind : char {
    kReady = 'R',           // the sandbox stands; `number`: bit i = java_homes[i] can be executed
    kSetupFailed = 'F',     // `error`; pid 1 ends
    kLaunched = 'L',        // exec succeeded; `payload` is a pidfd
    kLaunchFailed = 'N',    // `error`; pid 1 goes on
    kExited = 'X',          // the payload ended; `number`: wait status as of waitpid(2)
    kSessionStarted = 'S',  // `stdio`: the far ends, in the order of ControlRequest.Exec;
                            // `number`: its leader and session id, as the sandbox numbers them
    kSessionFailed = 'D',   // `error`; nothing is left of it
    kSessionExited = 'E',   // its leader ended; `number`: wait status
  };
  Kind kind = Kind::kReady;
  uint32_t number = 0;
  bool takes_entrants = false;  // kReady: entrant.h
  uint32_t session = 0;         // of the last three kinds
  // kReady: CLOCK_MONOTONIC in ns, when pid 1 began to run and when the sandbox stood.
  int64_t began_ns = 0;
  int64_t built_ns = 0;
  absl::Status error;
  Fd payload;
  std::vector<Fd> stdio;
};

// A process in the sandbox that waits for pid 1 to say what it shall execute (entrant.h).
struct Entrant {
  pid_t pid = 0;  // as the sandbox numbers it; 0: none
  Fd channel;     // SEQPACKET
};

struct InitRequest {
  enum class Kind : char {
    kLaunch = 'L',          // the payload: `program`
    kStartSession = 'S',    // `program` beside it, under this number, with a terminal if `tty`
    kKillSession = 'K',     // SIGKILL to all of its processes; it is forgotten with its leader
    kReleaseSession = 'R',  // it is forgotten with its leader; no report any more
  };
  Kind kind = Kind::kLaunch;
  bool tty = false;
  bool merge_stderr = false;
  uint32_t session = 0;
  pb::ProgramSpec program;
  Entrant entrant;    // who shall execute it; none: pid 1 forks one
  Fd packed_program;  // received only: `program` as it came, for a process that reads it anew
};

// What pid 1 is told first.
struct SandboxOrder {
  Fd spec;           // sealed memfd with a LaunchSpec, to be read from where it stands
  Fd root_template;  // mount namespace that the sandbox is a copy of
};

// The task's cgroups, once there are some.
struct InitCgroups {
  std::vector<std::string> doors;  // Cgroup::Doors
  std::vector<Fd> door_fds;
  std::vector<CgroupTree> trees;
};

absl::Status SendReport(int socket, const InitReport& report);
// OutOfRange when pid 1 is gone, ResourceExhausted when there is nothing now.
absl::StatusOr<InitReport> ReceiveReport(int socket);

// The program travels in a sealed memfd: an environment may be larger than a packet.
absl::Status SendRequest(int socket, const InitRequest& request);
absl::Status SendLaunch(int socket, const pb::ProgramSpec& program, Entrant entrant = {});
absl::StatusOr<InitRequest> ReceiveRequest(int socket);

absl::Status SendOrder(int socket, int spec, int root_template);
// OutOfRange when the supervisor is gone.
absl::StatusOr<SandboxOrder> ReceiveOrder(int socket);

// From where the host's cgroup tree is seen.
absl::Status SendCgroups(int socket, const cgroups::Cgroup& cgroup);
absl::StatusOr<InitCgroups> ReceiveCgroups(int socket);

}  // namespace jenkins_agent
