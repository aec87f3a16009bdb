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
  std::string phase_detail = {};
  char process_state = 'S';  // /proc/PID/stat, field 3 (proc(5))
  bool frozen = false;       // by the task's freezer: then the state says nothing
  double cpu_seconds = 0;    // user and system, since its start
  uint64_t threads = 0;      // its own
  std::chrono::milliseconds age{0};

  enum class Socket { kUnknown, kMissing, kEstablished, kClosing };
  Socket socket = Socket::kUnknown;         // to the controller; kClosing: CLOSE-WAIT and the like
  uint32_t unread_bytes = 0;                // in its receive queue
  uint64_t read_bytes = 0;                  // that the JVM has taken out of it so far
  std::chrono::milliseconds since_data{0};  // since the peer last sent something
  std::chrono::milliseconds since_sent{0};  // since the JVM did

  uint64_t pids = 0;          // processes and threads of the task
  uint64_t pids_limit = 0;    // 0: unknown
  uint64_t memory_bytes = 0;  // of the task, without page cache that nobody uses
  uint64_t memory_limit = 0;  // 0: unknown
  // Asked only while the agent is not connected; nothing: not asked.
  std::optional<bool> controller_answers = {};
};

struct HealthLimits {
  // Without a sign of life for that long a JVM is wedged. Counted from the last sample that was in
  // order, so it is found within this time and not later.
  std::chrono::milliseconds wedge_timeout = std::chrono::seconds(60);
  // Not connected for that long while the controller answers: wedged. An agent reconnects by itself
  // before.
  std::chrono::milliseconds controller_grace = std::chrono::minutes(10);
  // Not connected for that long: worth an event. One that has not even said by then that it looks
  // for its controller is wedged.
  std::chrono::milliseconds start_timeout = std::chrono::minutes(5);
  // From that many processes and threads on the task is crowded; 0: 80 % of pids_limit.
  uint64_t thread_limit = 0;
  // An older JVM is worn out; 0: never.
  std::chrono::milliseconds max_age{0};
};

struct Health {
  enum Kind {
    kGood,
    kSuspect,  // not in order, for less than the limit: look again soon
    kWedged,   // restart it
    kWorn,     // in order, with nothing to do, and better replaced now than amid a build
  };
  Kind kind = kGood;
  std::string cause = {};  // one line, but for kGood: "its process is stopped (state T)"
  // Told once: one line for the operator about something that is not in order, or soon will not be.
  std::string news = {};
  bool crowded = false;  // the news is that the task came to thread_limit
};

class HealthWatch {
 public:
  // Both ends of a healthy channel hear from each other at least every 5 minutes, and an agent
  // notices a dead controller after 14 (controller.md 3.5): this is beyond both.
  static constexpr std::chrono::minutes kDeadPeer{20};
  // Less CPU than that and bytes unread: a JVM at rest uses about a thousandth.
  static constexpr double kIdleCpuShare = 0.01;

  // Of a JVM that was in order at `begin`, as far as anybody knows; its successor gets another one.
  HealthWatch(HealthLimits limits, std::chrono::steady_clock::time_point begin)
      : limits_(limits), last_good_(begin), phase_since_(begin), connected_last_(begin) {}

  Health Judge(const HealthSample& sample);
  // When the next look is due, from the last one on: rarely while all is well, often while not.
  std::chrono::milliseconds NextLook(Health::Kind last) const;
  // How often the controller is asked while the agent is not connected: a process each time.
  std::chrono::milliseconds AskInterval() const { return limits_.controller_grace / 5; }
  const HealthLimits& limits() const { return limits_; }

 private:
  std::string Disconnected(const HealthSample& sample);
  std::string Symptom(const HealthSample& sample) const;
  std::string SocketSymptom(const HealthSample& sample) const;
  bool Idle(const HealthSample& sample) const;
  std::string Worn(const HealthSample& sample) const;
  uint64_t CrowdedFrom(const HealthSample& sample) const;
  std::string News(const HealthSample& sample, bool& came_to_limit);

  HealthLimits limits_;
  std::optional<HealthSample> last_;
  std::chrono::steady_clock::time_point last_good_;
  std::optional<std::chrono::steady_clock::time_point> bad_since_;
  std::chrono::steady_clock::time_point phase_since_;     // as far as it was looked at
  std::chrono::steady_clock::time_point connected_last_;  // or looked at for the first time
  std::optional<std::chrono::steady_clock::time_point> answering_since_;
  uint64_t first_threads_ = 0;  // of the JVM, when it was seen connected for the first time
  bool told_crowded_ = false;
  bool told_full_ = false;
  bool told_late_ = false;  // of this time without a connection
};

}  // namespace jenkins_agent
