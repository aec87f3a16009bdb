// What the supervisor and pid 1 of its sandbox say to each other over their SEQPACKET pair.
//
// Both ends are the same program, one a fork of the other, so there is no version. The supervisor
// knows one request (launch); signals go from the supervisor straight to the payload's pidfd.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

inline constexpr int kMaxJavaHomes = 32;  // that are looked at: bits of InitReport::number

struct InitReport {
  enum class Kind : char {
    kReady = 'R',         // the sandbox stands; `number`: bit i = java_homes[i] can be executed
    kSetupFailed = 'F',   // `error`; pid 1 ends
    kLaunched = 'L',      // exec succeeded; `payload` is a pidfd
    kLaunchFailed = 'N',  // `error`; pid 1 goes on
    kExited = 'X',        // the payload ended; `number`: wait status as of waitpid(2)
  };
  Kind kind = Kind::kReady;
  uint32_t number = 0;
  absl::Status error;
  Fd payload;
};

absl::Status SendReport(int socket, const InitReport& report);
// OutOfRange when pid 1 is gone, ResourceExhausted when there is nothing now.
absl::StatusOr<InitReport> ReceiveReport(int socket);

// The program travels in a sealed memfd: an environment may be larger than a packet.
absl::Status SendLaunch(int socket, const pb::ProgramSpec& program);
absl::StatusOr<pb::ProgramSpec> ReceiveLaunch(int socket);

}  // namespace jenkins_agent
