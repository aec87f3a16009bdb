// What `agents` shows of a task, and how. Pure.
//
// Names, addresses and events come from jobs and from agents' logs: the table shows them with
// Plain(), and no address with the user and password that a url may have.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cgroups/usage.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

// What was found out about one task directory.
struct TaskFindings {
  std::string task_dir;
  std::optional<pb::TaskRecord> record = {};  // of handle.pb; empty: there is none, or damaged
  bool earlier_boot = false;                  // says the record
  bool supervisor_alive = false;              // by the record's pid and start time
  absl::StatusOr<pb::TaskStatus> status = absl::UnknownError("not asked");
  std::optional<pb::ExitRecord> exit = {};
  std::optional<cgroups::Usage> usage = {};
  std::optional<cgroups::Ceiling> ceiling = {};
  std::optional<cgroups::Stalls> stalls = {};
  std::optional<std::vector<pid_t>> members = {};  // of the task's cgroup
};

struct AgentRow {
  enum class State {
    kAnswered,
    kSilent,  // the supervisor runs and does not answer
    kExited,
    kLost,        // it runs no more and left no exit record
    kUnreadable,  // nobody answers and there is no readable record
  };
  std::string name;  // the agent's, else the task's
  std::string alloc_id;
  std::string task;
  std::string task_dir;
  bool agent = false;  // else any other program
  std::vector<std::string> controllers;
  State state = State::kAnswered;
  std::string phase;
  std::string detail;               // of the phase, or why the state is what it is
  std::optional<int64_t> since_ns;  // CLOCK_REALTIME
  std::optional<int64_t> started_ns;
  pb::Timings timings;               // of the start
  std::optional<uint32_t> restarts;  // in place
  std::optional<uint32_t> launches;
  std::optional<uint64_t> threads;  // and processes, of the whole task
  std::optional<uint64_t> threads_limit;
  std::optional<uint64_t> memory_bytes;  // without what the kernel gives up first
  std::optional<uint64_t> memory_peak_bytes;
  std::optional<uint64_t> memory_limit_bytes;
  std::optional<uint64_t> cpu_throttled_ns;  // by cpu_hard_limit
  cgroups::Stalls stalls;
  std::optional<uint64_t> build_processes;  // all but the JVM
  int supervisor_pid = 0;
  int jvm_pid = 0;
  std::optional<int64_t> event_ns;
  std::string event;
};

AgentRow MakeRow(const TaskFindings& findings);

// All on this node, by name.
struct AgentList {
  std::string state_dir;
  std::optional<pid_t> plugin_pid;  // of the plugin that owns the state directory
  std::vector<AgentRow> rows;
};
void SortByName(std::vector<AgentRow>& rows);

// `width`: see FormatTable.
std::string AgentsTable(const AgentList& list, int64_t now_ns, size_t width);
std::string AgentsJson(const AgentList& list);
// Whether some task is in no order: silent, lost or unreadable.
bool AnyTrouble(const AgentList& list);

// The one task whose agent has this name, or whose allocation's id begins with it (4 characters at
// least), among those that run. NotFound, InvalidArgument (several): the message says which there
// are.
absl::StatusOr<AgentRow> FindAgent(const AgentList& list, absl::string_view name);

}  // namespace jenkins_agent
