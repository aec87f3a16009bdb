// The spawner: a small resident process that forks one supervisor per task, without an exec.
//
// Started once by the plugin with a SEQPACKET socket; ends with it. Supervisors live on.
#pragma once

#include "driver/base/fd.h"

namespace jenkins_agent {

// Where the plugin puts the socket.
inline constexpr int kSpawnerSocket = 3;

// Finds a supervisor for every SpawnRequest until end of file: the one that stands by (standby.h),
// else a new one. In a forked child it runs the whole supervisor. -> exit code of the process.
int RunSpawner(Fd plugin);

}  // namespace jenkins_agent
