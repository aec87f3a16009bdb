// Whom the kernel killed for want of memory, and the sentence that says so. Pure.
//
// The kernel counts its kills per cgroup but names the victim in its log only, which a driver may
// not read everywhere, and in which some are left out. So the victim is found out from outside: the
// process of the task that was on its way out when the kill was counted; the log comes second. What
// cannot be known is not guessed.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace jenkins_agent {

struct OomProcess {
  pid_t pid = 0;     // on the host, as in the kernel's log
  std::string name;  // as the process calls itself (at most 15 bytes), made printable
  // Has SIGKILL pending, has given its memory back, or is a zombie.
  bool dying = false;
};

// From the text of /proc/PID/status (proc(5)). `pid` is the caller's.
OomProcess ParseOomProcess(pid_t pid, absl::string_view status);

struct OomFigures {
  int64_t limit_bytes = 0;  // 0: none
  std::optional<uint64_t> peak_bytes;
};

// `killed` processes of the task, `known` of them by name:
//   "out of memory: the kernel killed cc1plus (pid 4242); limit 512 MiB, peak 512 MiB"
//   "out of memory: the kernel killed 3 processes, among them java (pid 7); limit ..."
//   "out of memory: the kernel killed a process that ended before it could be named; limit ..."
// A task that was far below its limit paid for the host: "the host is out of memory: ...".
std::string DescribeOom(uint64_t killed, const std::vector<OomProcess>& known,
                        const OomFigures& figures);

}  // namespace jenkins_agent
