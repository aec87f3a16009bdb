#include "driver/tools/agents.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cgroups/cgroup.h"
#include "driver/base/clock.h"
#include "driver/base/file.h"
#include "driver/base/paths.h"
#include "driver/base/process.h"
#include "driver/base/status.h"
#include "driver/base/text_table.h"
#include "driver/config/plugin_config.h"
#include "driver/supervisor/client.h"
#include "driver/supervisor/exit_record.h"
#include "driver/supervisor/protocol.h"
#include "driver/task/record.h"
#include "driver/tools/plugin_owner.h"

namespace jenkins_agent {
namespace {

namespace fs = std::filesystem;

// ---- the state directory -----------------------------------------------------------------------

absl::Status CannotRead(const std::string& path, int error) {
  if (error == EACCES || error == EPERM) {
    return absl::PermissionDeniedError(
        absl::StrCat("state directory ", path, ": permission denied; run this as root"));
  }
  if (error == ENOENT) {
    return absl::NotFoundError(absl::StrCat(
        "state directory ", path,
        " does not exist: no driver has run with it on this node. Give the plugin's state_dir with "
        "--state-dir"));
  }
  return ErrnoStatus(absl::StrCat("state directory ", path), error);
}

// Empty when the driver has not had a task yet.
absl::StatusOr<std::vector<std::string>> TaskDirs(const StatePaths& paths) {
  std::error_code error;
  fs::directory_iterator(paths.root(), error);
  if (error) return CannotRead(paths.root(), error.value());
  std::vector<std::string> dirs;
  fs::directory_iterator entries(paths.Tasks(), error);
  if (error == std::errc::no_such_file_or_directory) return dirs;
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    dirs.push_back(entries->path().native());
  }
  if (error) return CannotRead(paths.Tasks(), error.value());
  return dirs;
}

void ReadRecord(const std::string& boot_id, TaskFindings& findings) {
  const absl::StatusOr<std::string> bytes =
      ReadFile(absl::StrCat(findings.task_dir, "/", kHandleFile));
  pb::TaskRecord record;
  if (!bytes.ok() || !record.ParseFromString(*bytes) || record.version() == 0) return;
  findings.earlier_boot = record.boot_id() != boot_id;
  findings.supervisor_alive = !findings.earlier_boot && SupervisorAlive(record);
  findings.record = std::move(record);
}

// ---- the kernel --------------------------------------------------------------------------------

// Of the living; a task that ends meanwhile has no figures.
void ReadCgroup(const cgroups::Hierarchy& hierarchy, TaskFindings& findings) {
  std::vector<std::string> dirs;
  if (findings.status.ok()) {
    dirs.assign(findings.status->cgroup_dirs().begin(), findings.status->cgroup_dirs().end());
  } else if (findings.supervisor_alive) {
    dirs.assign(findings.record->cgroup_dirs().begin(), findings.record->cgroup_dirs().end());
  }
  const auto cgroup = cgroups::Cgroup::Open(hierarchy, dirs);
  if (dirs.empty() || !cgroup.ok()) return;
  if (const auto usage = cgroup->ReadUsage(); usage.ok()) findings.usage = *usage;
  if (const auto ceiling = cgroup->ReadCeiling(); ceiling.ok()) findings.ceiling = *ceiling;
  if (const auto stalls = cgroup->ReadStalls(); stalls.ok()) findings.stalls = *stalls;
  if (const auto members = cgroup->Members(); members.ok()) findings.members = *members;
}

// ---- the supervisors ---------------------------------------------------------------------------

pb::ControlRequest LookOnly() {
  pb::ControlRequest request;
  request.mutable_hello()->set_version(kSpecVersion);
  request.mutable_hello()->set_look_only(true);
  return request;
}

absl::StatusOr<pb::TaskStatus> StatusOf(const absl::StatusOr<pb::ControlReply>& reply) {
  RETURN_IF_ERROR(reply.status());
  return reply->status();
}

// A task that was destroyed since is none any more.
bool Exists(const TaskFindings& findings) { return ::access(findings.task_dir.c_str(), F_OK) == 0; }

// ---- the command -------------------------------------------------------------------------------

struct Options {
  std::string state_dir = PluginConfig().state_dir;
  bool json = false;
  std::string dump;  // the agent's name
};

int Fail(const absl::Status& error) {
  std::cerr << "agents: " << error.message() << std::endl;
  return kAgentsFailed;
}

int Show(const Options& options) {
  const absl::StatusOr<AgentList> list = LookAtAgents(options.state_dir);
  if (!list.ok()) return Fail(list.status());
  if (options.json) {
    std::cout << AgentsJson(*list);
  } else if (list->rows.empty()) {
    std::cout << "No agents on this node (state directory " << list->state_dir << ").\n";
  } else {
    std::cout << AgentsTable(*list, RealtimeNs(), OutputWidth());
  }
  std::cout.flush();
  if (!list->plugin_pid.has_value() && !options.json) {
    std::cerr << "No plugin runs with this state directory; its agents go on without one.\n";
  }
  return AnyTrouble(*list) ? kAgentsInTrouble : kAgentsShown;
}

absl::Status AskForDump(const AgentRow& agent) {
  pb::ControlRequest request;
  request.mutable_thread_dump();
  const auto replies = CallSupervisors({agent.task_dir}, request, kAnswerLimit);
  return Annotate(replies.front().status(),
                  absl::StrCat(Plain(agent.name), " (allocation ", Plain(agent.alloc_id), ")"));
}

int Dump(const Options& options) {
  const absl::StatusOr<AgentList> list = LookAtAgents(options.state_dir);
  if (!list.ok()) return Fail(list.status());
  const absl::StatusOr<AgentRow> agent = FindAgent(*list, options.dump);
  if (!agent.ok()) return Fail(agent.status());
  if (const absl::Status asked = AskForDump(*agent); !asked.ok()) return Fail(asked);
  std::cout << "The JVM of " << Plain(agent->name) << " (pid " << agent->jvm_pid
            << ") writes its thread dump into the task's log:\n  nomad alloc logs "
            << Plain(agent->alloc_id) << " " << Plain(agent->task) << std::endl;
  return kAgentsShown;
}

}  // namespace

absl::StatusOr<AgentList> LookAtAgents(const std::string& state_dir) {
  const StatePaths paths(state_dir);
  ASSIGN_OR_RETURN(const std::vector<std::string> dirs, TaskDirs(paths));
  ASSIGN_OR_RETURN(const std::string boot_id, BootId());
  ASSIGN_OR_RETURN(const cgroups::Hierarchy hierarchy, cgroups::Hierarchy::Detect());
  AgentList list;
  list.state_dir = state_dir;
  list.plugin_pid = PluginOwner(paths);
  const auto replies = CallSupervisors(dirs, LookOnly(), kAnswerLimit);
  for (size_t i = 0; i < dirs.size(); ++i) {
    TaskFindings findings;
    findings.task_dir = dirs[i];
    findings.status = StatusOf(replies[i]);
    ReadRecord(boot_id, findings);
    // Looked at last: a supervisor writes it before it lets go of its socket.
    findings.exit = ReadExitRecord(dirs[i]).value_or(std::nullopt);
    if (!Exists(findings)) continue;
    ReadCgroup(hierarchy, findings);
    list.rows.push_back(MakeRow(findings));
  }
  SortByName(list.rows);
  return list;
}

void AddAgentsCommand(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<Options>();
  CLI::App* agents = app.add_subcommand(
      "agents",
      "Show this node's agents, with the plugin or without it. Exit code 0, 2 when one does not "
      "answer or was lost, 1 for an error");
  agents->add_option("--state-dir", options->state_dir, "The plugin's option state_dir")
      ->capture_default_str();
  agents->add_flag("--json", options->json, "Raw numbers, for programs");
  CLI::App* dump =
      agents->add_subcommand("dump", "Have an agent's JVM write a thread dump into its task's log");
  dump->fallthrough();
  dump->add_option("name", options->dump,
                   "The agent's name, or the beginning of the allocation's id")
      ->required();
  agents->callback([options, dump, &exit_code] {
    exit_code = dump->parsed() ? Dump(*options) : Show(*options);
  });
}

}  // namespace jenkins_agent
