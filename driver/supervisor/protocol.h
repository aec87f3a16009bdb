// Numbers that plugin, spawner and supervisor agree on beside proto/supervisor.proto.
#pragma once

#include <cstddef>
#include <cstdint>

namespace jenkins_agent {

// Version of LaunchSpec, SpawnRequest, Hello and TaskStatus. Raised with every additive change that
// the other side has to know about.
inline constexpr uint32_t kSpecVersion = 1;
// Version of TaskRecord that this build writes and the newest that it reads.
inline constexpr uint32_t kRecordVersion = 1;
// Environment and command line of a task: Linux's own limit for both together is 2 MiB (execve(2)),
// the rest of the specification is small.
inline constexpr size_t kMaxSpecBytes = 8 << 20;
// Keys of Event.details, for what the plugin counts.
inline constexpr char kRestartReason[] = "restart_reason";       // RestartReasonName
inline constexpr char kOomKills[] = "oom_kills";                 // of processes beside the payload
inline constexpr char kDroppedLogBytes[] = "dropped_log_bytes";  // since the last event of the kind

}  // namespace jenkins_agent
