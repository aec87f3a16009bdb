// The kernel's clocks in nanoseconds (clock_gettime(2)). Any thread; also between fork and exec.
#pragma once

#include <time.h>

#include <cstdint>

namespace jenkins_agent {

inline int64_t ClockNs(clockid_t clock) {
  timespec now = {};
  ::clock_gettime(clock, &now);
  return now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
}

// The same for all processes of a host, until it boots again.
inline int64_t MonotonicNs() { return ClockNs(CLOCK_MONOTONIC); }
// Since 1970; may jump.
inline int64_t RealtimeNs() { return ClockNs(CLOCK_REALTIME); }

}  // namespace jenkins_agent
