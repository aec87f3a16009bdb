// The kernel's own word on whom it killed for want of memory, for kills that were over before
// anybody could look: its log names victim and cgroup (dump_oom_victim in mm/oom_kill.c, since
// Linux 5.0; at most ten in five seconds for the whole host).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "driver/supervisor/oom_story.h"

namespace jenkins_agent {

struct OomLogRecord {
  int64_t time_us = 0;               // of the log's own clock
  std::optional<OomProcess> victim;  // a process of the cgroup
};

// One record as /dev/kmsg hands it out (Documentation/ABI/testing/dev-kmsg): "6,1234,56789,-;oom-
// kill:constraint=...,task_memcg=/nomad/NAME,task=tail,pid=4242,uid=20001". `cgroup`: the last part
// of its path. Nothing: it is no record. Names are the processes' own choice and deceive nobody.
std::optional<OomLogRecord> ParseOomLogRecord(absl::string_view record, absl::string_view cgroup);

// The victims in this cgroup of the last seconds before the log's end, oldest first: an earlier
// start of the task had the same cgroup. Reads the whole log: milliseconds. Nobody where it may not
// be read.
std::vector<OomProcess> ReadOomLog(absl::string_view cgroup);

}  // namespace jenkins_agent
