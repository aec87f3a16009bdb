// Judges what probes see of an agent's JVM from outside: "alive" and "connected" are not enough. A
// JVM whose reader thread has died, or that somebody stopped, keeps its process and its socket for
// ever (jenkins-agent.md 0.2, controller.md 3.5).
//
// One per agent, owned by whoever samples. Not thread-safe. Pure: time is passed in, monotonic.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// One look at a JVM.
struct HealthSample {
  std::chrono::steady_clock::time_point time;
  pb::AgentPhase phase = pb::PHASE_NONE;
  char process_state = 'S';  // /proc/PID/stat, field 3 (proc(5))
  bool frozen = false;       // by the task's freezer: then the state says nothing
  uint64_t cpu_ticks = 0;    // user and system, as /proc/PID/stat counts them

  enum class Socket { kUnknown, kMissing, kEstablished, kClosing };
  Socket socket = Socket::kUnknown;         // to the controller; kClosing: CLOSE-WAIT and the like
  uint32_t unread_bytes = 0;                // in its receive queue
  std::chrono::milliseconds since_data{0};  // since the peer last sent something

  uint64_t pids = 0;        // processes and threads of the task
  uint64_t pids_limit = 0;  // 0: unknown
  // Asked only while the agent is not connected; nothing: not asked.
  std::optional<bool> controller_answers;
};

struct HealthLimits {
  // Without a sign of life for that long a JVM is wedged. Counted from the last sample that was in
  // order, so it is found within this time and not later.
  std::chrono::milliseconds wedge_timeout = std::chrono::seconds(60);
  // Disconnected for that long while the controller answers; the agent reconnects by itself before.
  std::chrono::milliseconds controller_grace = std::chrono::minutes(10);
  // Share of pids_limit from which on the task is crowded.
  int crowded_percent = 80;
};

struct Health {
  enum Kind {
    kGood,
    kCrowded,  // works, but soon cannot start threads: worth an event
    kSuspect,  // not in order, for less than the limit: look again soon
    kWedged,   // restart it
  };
  Kind kind = kGood;
  std::string cause;  // one line, but for kGood: "its process is stopped (state T)"
};

class HealthWatch {
 public:
  // Both ends of a healthy channel hear from each other at least every 5 minutes, and an agent
  // notices a dead controller after 14 (controller.md 3.5): this is beyond both.
  static constexpr std::chrono::minutes kDeadPeer{20};

  explicit HealthWatch(HealthLimits limits) : limits_(limits) {}

  // Another JVM is looked at from now on.
  void OnLaunch() { *this = HealthWatch(limits_); }
  Health Judge(const HealthSample& sample);

 private:
  std::string Symptom(const HealthSample& sample) const;
  std::string Disconnected(const HealthSample& sample);

  HealthLimits limits_;
  std::optional<HealthSample> last_;
  std::chrono::steady_clock::time_point last_good_;
  std::optional<std::chrono::steady_clock::time_point> answering_since_;
};

}  // namespace jenkins_agent
