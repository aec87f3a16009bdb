// For processes that do a lot once and then wait for years: one supervisor and one pid 1 per task.
#pragma once

namespace jenkins_agent {

// Gives the kernel back what the heap does not use and what deeper calls left on the stack. Call it
// where the process goes idle, not where it works: the pages come back by faults. Single-threaded
// processes only.
void ReleaseIdleMemory();

}  // namespace jenkins_agent
