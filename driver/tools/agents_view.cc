#include "driver/tools/agents_view.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "driver/agent/phases.h"
#include "driver/base/text_table.h"
#include "driver/tools/http.h"

namespace jenkins_agent {
namespace {

using State = AgentRow::State;
using Json = nlohmann::ordered_json;

constexpr size_t kAllocCharacters = 8;  // as Nomad shows it
constexpr size_t kMinAllocPrefix = 4;
constexpr int64_t kNsPerMs = 1'000'000;
constexpr char kNone[] = "-";

// ---- findings -> row ---------------------------------------------------------------------------

const char* StateName(State state) {
  switch (state) {
    case State::kAnswered:
      return "answered";
    case State::kSilent:
      return "no answer";
    case State::kExited:
      return "exited";
    case State::kLost:
      return "lost";
    case State::kUnreadable:
      return "unreadable";
  }
  return "";
}

State StateOf(const TaskFindings& findings) {
  if (findings.status.ok()) return State::kAnswered;
  if (!absl::IsUnavailable(findings.status.status())) return State::kSilent;
  if (findings.exit.has_value()) return State::kExited;
  if (!findings.record.has_value()) return State::kUnreadable;
  return findings.supervisor_alive ? State::kSilent : State::kLost;
}

// Older supervisors tell the agent's name only while its jar is waited for.
bool IsAgent(const pb::TaskStatus& status) {
  return !status.agent_name().empty() || status.phase() != pb::PHASE_NONE;
}

std::string PhaseOf(const pb::TaskStatus& status) {
  switch (status.state()) {
    case pb::WAITING_FOR_JAR:
      return "waiting for agent.jar";
    case pb::RUNNING:
      return IsAgent(status) ? std::string(PhaseName(status.phase())) : "running";
    case pb::BACKING_OFF:
      return "waiting to restart";
    case pb::STOPPING:
      return "stopping";
    case pb::EXITED:
      return "exited";
    default:
      return "setting up";
  }
}

void TakeStatus(const pb::TaskStatus& status, AgentRow& row) {
  row.agent = IsAgent(status);
  if (!status.agent_name().empty()) row.name = status.agent_name();
  for (const std::string& url : status.agent_urls()) row.controllers.push_back(DisplayUrl(url));
  if (!status.agent_direct().empty()) row.controllers.push_back(status.agent_direct());
  row.phase = PhaseOf(status);
  row.detail = status.phase_detail();
  row.started_ns = status.started_at_ns();
  row.since_ns = status.phase_since_ns() != 0 ? status.phase_since_ns() : status.started_at_ns();
  row.timings = status.timings();
  row.restarts = status.restarts();
  row.launches = status.launches();
  row.supervisor_pid = status.supervisor_pid();
  row.jvm_pid = status.payload_pid();
  if (status.has_last_event()) {
    row.event_ns = status.last_event().time_ns();
    row.event = status.last_event().message();
  }
}

void TakeExit(const pb::ExitRecord& exit, AgentRow& row) {
  row.phase = "exited";
  row.since_ns = exit.finished_at_ns();
  row.started_ns = exit.started_at_ns();
  row.restarts = exit.restarts();
  row.launches = exit.launches();
  row.event_ns = exit.finished_at_ns();
  row.event = absl::StrCat("exit code ", exit.exit_code(), exit.message().empty() ? "" : ": ",
                           exit.message());
}

// What is said where nobody answers.
void Explain(const TaskFindings& findings, AgentRow& row) {
  row.phase = StateName(row.state);
  if (row.state == State::kSilent) {
    row.detail = absl::StrCat("its supervisor runs and does not answer: ",
                              findings.status.status().message());
  } else if (row.state == State::kLost) {
    row.detail = findings.earlier_boot
                     ? "the host was rebooted since; the plugin's next start removes it"
                     : "its supervisor was killed; Nomad is told when it asks, and the plugin's "
                       "next start removes it";
  } else {
    row.detail = absl::StrCat("no readable handle.pb in ", findings.task_dir,
                              " and nobody answers: a start that was broken off, or a damaged "
                              "disk; the plugin's next start removes it");
  }
}

void TakeCgroup(const TaskFindings& findings, AgentRow& row) {
  if (findings.usage.has_value()) {
    row.threads = findings.usage->pids;
    row.memory_bytes = MemoryInUse(*findings.usage);
    row.memory_peak_bytes = findings.usage->memory_peak_bytes;
    row.cpu_throttled_ns = findings.usage->cpu_throttled_ns;
  }
  if (findings.ceiling.has_value()) {
    row.threads_limit = findings.ceiling->pids;
    row.memory_limit_bytes = findings.ceiling->memory_bytes;
  }
  row.stalls = findings.stalls.value_or(cgroups::Stalls());
  if (!findings.members.has_value() || !findings.status.ok()) return;
  const pb::TaskStatus& status = *findings.status;
  row.build_processes = 0;
  if (status.launches() == 0) return;  // the agent's process waits inside for its program
  // pid 1 of the sandbox is outside, except for the moment in which it starts something.
  row.build_processes = std::count_if(
      findings.members->begin(), findings.members->end(),
      [&status](pid_t pid) { return pid != status.payload_pid() && pid != status.init_pid(); });
}

// ---- rows -> text ------------------------------------------------------------------------------

std::string Shorten(const std::string& alloc_id) { return alloc_id.substr(0, kAllocCharacters); }

std::string OrNone(const std::string& text) { return text.empty() ? kNone : Plain(text); }

std::string Controllers(const AgentRow& row) {
  if (row.controllers.empty()) return kNone;
  const size_t others = row.controllers.size() - 1;
  return absl::StrCat(Plain(row.controllers.front()),
                      others == 0 ? "" : absl::StrCat(" +", others));
}

std::string AgainstLimit(std::optional<uint64_t> value, std::optional<uint64_t> limit,
                         std::string (*format)(uint64_t)) {
  if (!value.has_value()) return kNone;
  return limit.has_value() ? absl::StrCat(format(*value), "/", format(*limit)) : format(*value);
}

std::string Count(uint64_t number) { return absl::StrCat(number); }

std::string Since(std::optional<int64_t> since_ns, int64_t now_ns) {
  if (!since_ns.has_value()) return kNone;
  return HumanDuration(std::chrono::nanoseconds(now_ns - *since_ns));
}

// What the operator has to know first.
std::string LastEvent(const AgentRow& row, int64_t now_ns) {
  if (row.state != State::kAnswered && row.state != State::kExited) return Plain(row.detail);
  if (row.event.empty()) return OrNone(row.detail);
  return absl::StrCat(Plain(row.event), " (", Since(row.event_ns, now_ns), " ago)");
}

std::vector<std::string> Cells(const AgentRow& row, int64_t now_ns) {
  return {OrNone(row.name),
          OrNone(Shorten(row.alloc_id)),
          Controllers(row),
          row.phase,
          Since(row.since_ns, now_ns),
          row.restarts.has_value() ? Count(*row.restarts) : kNone,
          AgainstLimit(row.threads, row.threads_limit, Count),
          AgainstLimit(row.memory_bytes, row.memory_limit_bytes, HumanBytes),
          row.build_processes.has_value() ? Count(*row.build_processes) : kNone,
          LastEvent(row, now_ns)};
}

// ---- rows -> JSON ------------------------------------------------------------------------------

template <typename Number>
Json OrNull(const std::optional<Number>& number) {
  return number.has_value() ? Json(*number) : Json();
}

template <typename Number>
Json Milliseconds(const std::optional<Number>& ns) {
  return ns.has_value() ? Json(*ns / kNsPerMs) : Json();
}

Json PidOrNull(int pid) { return pid != 0 ? Json(pid) : Json(); }

// Since StartTask; what has not been reached is null.
Json StartTimes(const pb::Timings& timings) {
  const auto reached = [](double ms) { return ms > 0 ? Json(ms) : Json(); };
  return {{"sandbox", reached(timings.sandbox_ms())},
          {"agent_jar", reached(timings.jar_ms())},
          {"launched", reached(timings.launched_ms())},
          {"connected", reached(timings.connected_ms())}};
}

Json ToJson(const AgentRow& row) {
  return {{"name", row.name},
          {"alloc_id", row.alloc_id},
          {"task", row.task},
          {"task_dir", row.task_dir},
          {"kind", row.agent ? "agent" : "program"},
          {"controllers", Json(row.controllers)},
          {"state", StateName(row.state)},
          {"phase", row.phase},
          {"detail", row.detail},
          {"since_unix_ms", Milliseconds(row.since_ns)},
          {"started_unix_ms", Milliseconds(row.started_ns)},
          {"start_ms", StartTimes(row.timings)},
          {"restarts", OrNull(row.restarts)},
          {"launches", OrNull(row.launches)},
          {"threads", OrNull(row.threads)},
          {"threads_limit", OrNull(row.threads_limit)},
          {"memory_bytes", OrNull(row.memory_bytes)},
          {"memory_peak_bytes", OrNull(row.memory_peak_bytes)},
          {"memory_limit_bytes", OrNull(row.memory_limit_bytes)},
          {"cpu_throttled_ms", Milliseconds(row.cpu_throttled_ns)},
          {"cpu_stalled_ms", Milliseconds(row.stalls.cpu_ns)},
          {"memory_stalled_ms", Milliseconds(row.stalls.memory_ns)},
          {"io_stalled_ms", Milliseconds(row.stalls.io_ns)},
          {"build_processes", OrNull(row.build_processes)},
          {"supervisor_pid", PidOrNull(row.supervisor_pid)},
          {"jvm_pid", PidOrNull(row.jvm_pid)},
          {"last_event", row.event},
          {"last_event_unix_ms", Milliseconds(row.event_ns)}};
}

// ---- one of them -------------------------------------------------------------------------------

bool Runs(const AgentRow& row) {
  return row.state == State::kAnswered || row.state == State::kSilent;
}

std::string Names(const std::vector<AgentRow>& rows) {
  return absl::StrJoin(rows, ", ", [](std::string* out, const AgentRow& row) {
    absl::StrAppend(out, Plain(row.name), " (allocation ", Plain(Shorten(row.alloc_id)), ")");
  });
}

}  // namespace

AgentRow MakeRow(const TaskFindings& findings) {
  AgentRow row;
  row.task_dir = findings.task_dir;
  row.state = StateOf(findings);
  if (findings.record.has_value()) {
    row.alloc_id = findings.record->alloc_id();
    row.task = findings.record->task_name();
    row.name = row.task;
    row.supervisor_pid = findings.supervisor_alive ? findings.record->supervisor_pid() : 0;
    if (findings.record->started_at_ns() != 0) row.started_ns = findings.record->started_at_ns();
  }
  if (row.state == State::kAnswered) {
    TakeStatus(*findings.status, row);
  } else if (row.state == State::kExited) {
    TakeExit(*findings.exit, row);
  } else {
    Explain(findings, row);
  }
  TakeCgroup(findings, row);
  return row;
}

void SortByName(std::vector<AgentRow>& rows) {
  std::sort(rows.begin(), rows.end(), [](const AgentRow& a, const AgentRow& b) {
    return std::tie(a.name, a.alloc_id, a.task_dir) < std::tie(b.name, b.alloc_id, b.task_dir);
  });
}

std::string AgentsTable(const AgentList& list, int64_t now_ns, size_t width) {
  std::vector<std::vector<std::string>> rows;
  rows.reserve(list.rows.size());
  for (const AgentRow& row : list.rows) rows.push_back(Cells(row, now_ns));
  return FormatTable({"NAME", "ALLOC", "CONTROLLER", "PHASE", "SINCE", "RESTARTS", "THREADS",
                      "MEMORY", "BUILD PROCESSES", "LAST EVENT"},
                     rows, width);
}

std::string AgentsJson(const AgentList& list) {
  Json agents = Json::array();
  for (const AgentRow& row : list.rows) agents.push_back(ToJson(row));
  const Json json = {{"state_dir", list.state_dir},
                     {"plugin_pid", OrNull(list.plugin_pid)},
                     {"agents", std::move(agents)}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

bool AnyTrouble(const AgentList& list) {
  return std::any_of(list.rows.begin(), list.rows.end(), [](const AgentRow& row) {
    return row.state != State::kAnswered && row.state != State::kExited;
  });
}

absl::StatusOr<AgentRow> FindAgent(const AgentList& list, absl::string_view name) {
  std::vector<AgentRow> running;
  std::vector<AgentRow> found;
  for (const AgentRow& row : list.rows) {
    if (!Runs(row)) continue;
    running.push_back(row);
    const bool by_alloc = name.size() >= kMinAllocPrefix && absl::StartsWith(row.alloc_id, name);
    if (row.name == name || by_alloc) found.push_back(row);
  }
  if (found.size() == 1) return found.front();
  if (found.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat(found.size(), " agents are meant by '",
                                                   Plain(name), "': ", Names(found),
                                                   "; give the beginning of an allocation's id"));
  }
  if (running.empty()) {
    return absl::NotFoundError(
        absl::StrCat("no agent '", Plain(name), "': none runs on this node"));
  }
  return absl::NotFoundError(
      absl::StrCat("no agent '", Plain(name), "' runs on this node; there are: ", Names(running)));
}

}  // namespace jenkins_agent
