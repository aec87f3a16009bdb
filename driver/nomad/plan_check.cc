#include "driver/nomad/plan_check.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace jenkins_agent::nomad {
namespace {

using nlohmann::json;

bool HasArray(const json& object, const char* key) {
  return object.is_object() && object.contains(key) && object[key].is_array();
}

json* FindNamed(json& object, const char* list, const std::string& name) {
  if (!HasArray(object, list)) return nullptr;
  for (json& element : object[list]) {
    if (element.is_object() && element.value("Name", json()) == name) return &element;
  }
  return nullptr;
}

void DropConstraint(json& object, const std::string& text) {
  if (!HasArray(object, "Constraints")) return;
  json kept = json::array();
  for (const json& constraint : object["Constraints"]) {
    const auto part = [&constraint](const char* key) {
      return constraint.is_object() && constraint.contains(key) && constraint[key].is_string()
                 ? constraint[key].get<std::string>()
                 : "";
    };
    const bool dropped =
        text == absl::StrCat(part("LTarget"), " ", part("Operand"), " ", part("RTarget")) ||
        (text == "distinct_hosts" && part("Operand") == text);
    if (!dropped) kept.push_back(constraint);
  }
  object["Constraints"] = kept;
}

void ChangeTask(const JobChange::TaskChange& change, json& task) {
  json& resources = task["Resources"];
  if (change.cpu_mhz) resources["CPU"] = *change.cpu_mhz;
  if (change.cores) resources["Cores"] = *change.cores;
  if (change.memory_mb) {
    const auto secrets = resources.find("SecretsMB");
    const int64_t secrets_mb =
        secrets != resources.end() && secrets->is_number() ? secrets->get<int64_t>() : 0;
    resources["MemoryMB"] = *change.memory_mb - secrets_mb;
  }
}

bool MakeDynamic(const std::string& label, json& group) {
  if (!HasArray(group, "Networks") || group["Networks"].empty()) return false;
  json& network = group["Networks"][0];
  if (!HasArray(network, "ReservedPorts")) return false;
  json kept = json::array();
  for (json port : network["ReservedPorts"]) {
    if (port.value("Label", json()) != label) {
      kept.push_back(port);
      continue;
    }
    port["Value"] = 0;
    if (!HasArray(network, "DynamicPorts")) network["DynamicPorts"] = json::array();
    network["DynamicPorts"].push_back(port);
  }
  network["ReservedPorts"] = kept;
  return true;
}

absl::Status Apply(const JobChange& change, json& job) {
  json* group = FindNamed(job, "TaskGroups", change.group);
  if (group == nullptr) return absl::InvalidArgumentError("the job has no such group");
  for (const auto& [name, task_change] : change.tasks) {
    json* task = FindNamed(*group, "Tasks", name);
    if (task == nullptr) return absl::InvalidArgumentError("the group has no such task");
    ChangeTask(task_change, *task);
  }
  if (change.disk_mb) (*group)["EphemeralDisk"]["SizeMB"] = *change.disk_mb;
  if (change.count) (*group)["Count"] = *change.count;
  if (!change.node_pool.empty()) job["NodePool"] = change.node_pool;
  if (!change.add_datacenter.empty()) {
    if (!HasArray(job, "Datacenters")) job["Datacenters"] = json::array();
    job["Datacenters"].push_back(change.add_datacenter);
  }
  if (!change.drop_constraint.empty()) {
    DropConstraint(job, change.drop_constraint);
    DropConstraint(*group, change.drop_constraint);
    for (json& task : (*group)["Tasks"]) DropConstraint(task, change.drop_constraint);
  }
  if (!change.dynamic_port.empty() && !MakeDynamic(change.dynamic_port, *group)) {
    return absl::InvalidArgumentError("the group has no such port");
  }
  return absl::OkStatus();
}

void Judge(const absl::StatusOr<std::map<std::string, Metric>>& failed, const std::string& group,
           int64_t unplaced, Remedy& remedy) {
  if (!failed.ok()) {
    remedy.check_text = absl::IsPermissionDenied(failed.status())
                            ? "the token may not plan (plan-job since Nomad 1.11.2, or submit-job)"
                            : std::string(failed.status().message());
    return;
  }
  const auto found = failed->find(group);
  if (found == failed->end()) {
    remedy.check = Check::kPlaces;
    return;
  }
  const int64_t left = found->second.coalesced_failures + 1;
  remedy.check = left < unplaced ? Check::kPlacesSome : Check::kPlacesNone;
  remedy.check_text = absl::StrCat(left, " would still wait");
}

}  // namespace

absl::StatusOr<std::string> PlanBody(const std::string& job_json, const JobChange& change) {
  json job = json::parse(job_json, nullptr, false);
  if (!job.is_object()) return absl::InvalidArgumentError("no JSON object");
  if (const absl::Status status = Apply(change, job); !status.ok()) return status;
  return json{{"Job", job}, {"Diff", false}}.dump(-1, ' ', false, json::error_handler_t::replace);
}

void CheckRemedies(const Job& job, Reader& reader, GroupExplanation& group) {
  const absl::StatusOr<std::string> job_json = reader.JobJson(job);
  for (Remedy& remedy : group.remedies) {
    if (!remedy.change) continue;
    if (!job_json.ok()) {
      remedy.check_text = std::string(job_json.status().message());
      continue;
    }
    const absl::StatusOr<std::string> body = PlanBody(*job_json, *remedy.change);
    if (!body.ok()) {
      remedy.check_text = std::string(body.status().message());
      continue;
    }
    Judge(reader.Plan(*body, job), group.group, group.unplaced, remedy);
  }
}

}  // namespace jenkins_agent::nomad
