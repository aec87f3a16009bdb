#include "driver/nomad/json.h"

#include <rapidjson/document.h>
#include <rapidjson/error/en.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace jenkins_agent::nomad {
namespace {

using Json = rapidjson::Value;

// A value that may be missing; reading from a missing one gives what is missing too.
class View {
 public:
  View() = default;
  explicit View(const Json& value) : value_(value.IsNull() ? nullptr : &value) {}

  bool present() const { return value_ != nullptr; }
  View operator[](const char* key) const {
    if (value_ == nullptr || !value_->IsObject()) return View();
    const auto found = value_->FindMember(key);
    return found == value_->MemberEnd() ? View() : View(found->value);
  }
  std::string text() const {
    return value_ != nullptr && value_->IsString()
               ? std::string(value_->GetString(), value_->GetStringLength())
               : "";
  }
  int64_t integer(int64_t otherwise = 0) const {
    if (value_ == nullptr || !value_->IsNumber()) return otherwise;
    if (value_->IsInt64()) return value_->GetInt64();
    if (value_->IsUint64()) return INT64_MAX;
    return static_cast<int64_t>(std::clamp(value_->GetDouble(), -9e18, 9e18));
  }
  double number() const {
    return value_ != nullptr && value_->IsNumber() ? value_->GetDouble() : 0;
  }
  bool boolean() const { return value_ != nullptr && value_->IsBool() && value_->GetBool(); }
  bool is_object() const { return value_ != nullptr && value_->IsObject(); }
  bool is_array() const { return value_ != nullptr && value_->IsArray(); }
  size_t size() const { return is_array() ? value_->Size() : 0; }

  template <typename Visit>
  void ForEach(const Visit& visit) const {
    if (!is_array()) return;
    for (const Json& element : value_->GetArray()) visit(View(element));
  }
  template <typename Visit>
  void ForEachMember(const Visit& visit) const {
    if (!is_object()) return;
    for (const auto& member : value_->GetObject()) {
      visit(std::string(member.name.GetString(), member.name.GetStringLength()),
            View(member.value));
    }
  }

 private:
  const Json* value_ = nullptr;
};

absl::Status Parse(absl::string_view json, rapidjson::Document& document) {
  // Nothing here is nested deeply; the iterative parser needs no stack for what is.
  document.Parse<rapidjson::kParseIterativeFlag>(json.data(), json.size());
  if (!document.HasParseError()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the answer is no JSON at byte ", document.GetErrorOffset(), ": ",
                   rapidjson::GetParseError_En(document.GetParseError())));
}

std::vector<std::string> Texts(View array) {
  std::vector<std::string> texts;
  array.ForEach([&texts](View text) { texts.push_back(text.text()); });
  return texts;
}

std::map<std::string, std::string> TextMap(View object) {
  std::map<std::string, std::string> map;
  object.ForEachMember([&map](const std::string& key, View value) { map[key] = value.text(); });
  return map;
}

std::map<std::string, int64_t> Counts(View object) {
  std::map<std::string, int64_t> map;
  object.ForEachMember([&map](const std::string& key, View value) { map[key] = value.integer(); });
  return map;
}

// --- nodes
// ----------------------------------------------------------------------------------------

int64_t CoreMhz(View core) {
  for (const char* key : {"BaseSpeed", "MaxSpeed", "GuessSpeed"}) {
    if (core[key].integer() > 0) return core[key].integer();
  }
  return 0;
}

void ReadResources(View resources, Node& node) {
  node.cpu_mhz = resources["Cpu"]["CpuShares"].integer();
  node.memory_mb = resources["Memory"]["MemoryMB"].integer();
  node.disk_mb = resources["Disk"]["DiskMB"].integer();
  if (const int64_t port = resources["MinDynamicPort"].integer(); port > 0) {
    node.min_dynamic_port = static_cast<int>(port);
  }
  if (const int64_t port = resources["MaxDynamicPort"].integer(); port > 0) {
    node.max_dynamic_port = static_cast<int>(port);
  }
  resources["Processors"]["Topology"]["Cores"].ForEach([&node](View core) {
    node.cores.push_back({.id = static_cast<int>(core["ID"].integer()),
                          .mhz = CoreMhz(core),
                          .disabled = core["Disable"].boolean()});
  });
  resources["Networks"].ForEach(
      [&node](View network) { node.network_modes.push_back(network["Mode"].text()); });
  resources["NodeNetworks"].ForEach([&node](View network) {
    HostNetwork& host = node.host_networks.emplace_back();
    host.device = network["Device"].text();
    host.mode = network["Mode"].text();
    network["Addresses"].ForEach([&host](View address) {
      host.addresses.push_back({.address = address["Address"].text(),
                                .alias = address["Alias"].text(),
                                .reserved_ports = address["ReservedPorts"].text()});
    });
  });
  resources["Devices"].ForEach([&node](View device) {
    DeviceGroup& group = node.devices.emplace_back();
    group.vendor = device["Vendor"].text();
    group.type = device["Type"].text();
    group.name = device["Name"].text();
    device["Instances"].ForEach([&group](View instance) {
      if (instance["Healthy"].boolean()) group.healthy_instances.push_back(instance["ID"].text());
    });
  });
}

void ReadReserved(View reserved, Node& node) {
  node.reserved_cpu_mhz = reserved["Cpu"]["CpuShares"].integer();
  reserved["Cpu"]["ReservedCpuCores"].ForEach(
      [&node](View core) { node.reserved_cores.insert(static_cast<int>(core.integer())); });
  node.reserved_memory_mb = reserved["Memory"]["MemoryMB"].integer();
  node.reserved_disk_mb = reserved["Disk"]["DiskMB"].integer();
  node.reserved_ports = reserved["Networks"]["ReservedHostPorts"].text();
}

Node ReadNode(View json) {
  Node node;
  node.id = json["ID"].text();
  node.name = json["Name"].text();
  node.datacenter = json["Datacenter"].text();
  // Nomad before 1.6 has no pools.
  node.pool = json["NodePool"].present() ? json["NodePool"].text() : "default";
  node.node_class = json["NodeClass"].text();
  node.status = json["Status"].text();
  node.drain = json["Drain"].boolean();
  node.eligible = json["SchedulingEligibility"].text() != "ineligible";
  ReadResources(json["NodeResources"], node);
  ReadReserved(json["ReservedResources"], node);
  json["Drivers"].ForEachMember([&node](const std::string& name, View driver) {
    node.drivers[name] = {.detected = driver["Detected"].boolean(),
                          .healthy = driver["Healthy"].boolean(),
                          .description = driver["HealthDescription"].text()};
  });
  json["HostVolumes"].ForEachMember(
      [&node](const std::string& name, View) { node.host_volumes.insert(name); });
  return node;
}

// --- allocations
// ----------------------------------------------------------------------------------

Lifecycle ReadLifecycle(View lifecycle) {
  const std::string hook = lifecycle["Hook"].text();
  if (hook == "prestart") {
    return lifecycle["Sidecar"].boolean() ? Lifecycle::kPrestartSidecar : Lifecycle::kPrestart;
  }
  return hook == "poststop" ? Lifecycle::kPoststop : Lifecycle::kMain;
}

void ReadNetworkPorts(View network, std::vector<Port>& ports) {
  for (const char* kind : {"ReservedPorts", "DynamicPorts"}) {
    network[kind].ForEach([&](View port) {
      ports.push_back({.label = port["Label"].text(),
                       .host_ip = network["IP"].text(),
                       .value = static_cast<int>(port["Value"].integer())});
    });
  }
}

// Shared.Ports; only without them the networks of the group and of its tasks (network.go,
// AddAllocs).
std::vector<Port> ReadHeldPorts(View resources) {
  std::vector<Port> ports;
  resources["Shared"]["Ports"].ForEach([&ports](View port) {
    ports.push_back({.label = port["Label"].text(),
                     .host_ip = port["HostIP"].text(),
                     .value = static_cast<int>(port["Value"].integer())});
  });
  if (!ports.empty()) return ports;
  resources["Shared"]["Networks"].ForEach(
      [&ports](View network) { ReadNetworkPorts(network, ports); });
  resources["Tasks"].ForEachMember([&ports](const std::string&, View task) {
    task["Networks"].ForEach([&ports](View network) { ReadNetworkPorts(network, ports); });
  });
  return ports;
}

Holding ReadHolding(View resources) {
  std::vector<TaskShare> shares;
  std::vector<DeviceUse> devices;
  resources["Tasks"].ForEachMember([&](const std::string& name, View task) {
    TaskShare& share = shares.emplace_back();
    share.lifecycle = ReadLifecycle(resources["TaskLifecycles"][name.c_str()]);
    share.amounts = {.cpu_mhz = task["Cpu"]["CpuShares"].integer(),
                     .memory_mb = task["Memory"]["MemoryMB"].integer(),
                     .memory_max_mb = task["Memory"]["MemoryMaxMB"].integer()};
    task["Cpu"]["ReservedCores"].ForEach(
        [&share](View core) { share.cores.push_back(static_cast<int>(core.integer())); });
    task["Devices"].ForEach([&devices](View device) {
      devices.push_back({.vendor = device["Vendor"].text(),
                         .type = device["Type"].text(),
                         .name = device["Name"].text(),
                         .instances = Texts(device["DeviceIDs"])});
    });
  });
  Holding holding = Flatten(shares);
  holding.disk_mb = resources["Shared"]["DiskMB"].integer();
  holding.ports = ReadHeldPorts(resources);
  holding.devices = std::move(devices);
  return holding;
}

// --- jobs
// -----------------------------------------------------------------------------------------

std::vector<Constraint> ReadConstraints(View array) {
  std::vector<Constraint> constraints;
  array.ForEach([&constraints](View constraint) {
    constraints.push_back({.left = constraint["LTarget"].text(),
                           .operation = constraint["Operand"].text(),
                           .right = constraint["RTarget"].text()});
  });
  return constraints;
}

std::vector<Port> ReadAskedPorts(View array) {
  std::vector<Port> ports;
  array.ForEach([&ports](View port) {
    ports.push_back({.label = port["Label"].text(),
                     .host_ip = "",
                     .value = static_cast<int>(port["Value"].integer()),
                     .host_network = port["HostNetwork"].text(),
                     .ignore_collision = port["IgnoreCollision"].boolean()});
  });
  return ports;
}

Task ReadTask(View json, Group& group) {
  Task task;
  task.name = json["Name"].text();
  task.driver = json["Driver"].text();
  task.lifecycle = ReadLifecycle(json["Lifecycle"]);
  const View resources = json["Resources"];
  const int64_t secrets_mb = resources["SecretsMB"].integer();
  task.cores = resources["Cores"].integer();
  // Nomad's defaults (api/resources.go, DefaultResources) for what a job file leaves out.
  task.amounts.cpu_mhz = resources["CPU"].integer(task.cores > 0 ? 0 : 100);
  task.amounts.memory_mb = resources["MemoryMB"].integer(300) + secrets_mb;
  if (const int64_t most = resources["MemoryMaxMB"].integer(); most != 0) {
    task.amounts.memory_max_mb = most + secrets_mb;
  }
  resources["Devices"].ForEach([&](View device) {
    task.devices.push_back({.name = device["Name"].text(), .count = device["Count"].integer(1)});
    if (device["Constraints"].size() > 0) group.unchecked.push_back("constraints on devices");
  });
  if (resources["Networks"].size() > 0) group.unchecked.push_back("networks of tasks");
  if (resources["NUMA"]["Affinity"].text() == "require") {
    group.unchecked.push_back("NUMA requirements");
  }
  if (json["Secrets"].size() > 0) group.unchecked.push_back("secrets providers");
  task.constraints = ReadConstraints(json["Constraints"]);
  return task;
}

Group ReadGroup(View json) {
  Group group;
  group.name = json["Name"].text();
  group.count = json["Count"].integer(1);
  group.disk_mb = json["EphemeralDisk"]["SizeMB"].integer(300);
  const View reschedule = json["ReschedulePolicy"];
  group.reschedules = reschedule["Unlimited"].boolean() || (reschedule["Attempts"].integer() > 0 &&
                                                            reschedule["Interval"].integer() > 0);
  json["Networks"].ForEach([&group](View network) {
    if (group.has_network) return;  // Nomad looks at the first one only
    group.has_network = true;
    group.network_mode = network["Mode"].text();
    group.static_ports = ReadAskedPorts(network["ReservedPorts"]);
    group.dynamic_ports = ReadAskedPorts(network["DynamicPorts"]);
  });
  json["Volumes"].ForEachMember([&group](const std::string&, View volume) {
    if (volume["Type"].text() == "host" && !volume["PerAlloc"].boolean()) {
      group.host_volumes.push_back(volume["Source"].text());
    } else {
      group.unchecked.push_back("CSI and per_alloc volumes");
    }
  });
  group.constraints = ReadConstraints(json["Constraints"]);
  json["Tasks"].ForEach([&group](View task) { group.tasks.push_back(ReadTask(task, group)); });
  std::sort(group.unchecked.begin(), group.unchecked.end());
  group.unchecked.erase(std::unique(group.unchecked.begin(), group.unchecked.end()),
                        group.unchecked.end());
  return group;
}

std::string TextOr(View view, const char* otherwise) {
  const std::string text = view.text();
  return text.empty() ? otherwise : text;
}

// --- evaluations
// ----------------------------------------------------------------------------------

Metric ReadMetric(View json) {
  Metric metric;
  metric.nodes_evaluated = json["NodesEvaluated"].integer();
  metric.nodes_filtered = json["NodesFiltered"].integer();
  metric.nodes_exhausted = json["NodesExhausted"].integer();
  metric.coalesced_failures = json["CoalescedFailures"].integer();
  metric.nodes_available = Counts(json["NodesAvailable"]);
  metric.class_filtered = Counts(json["ClassFiltered"]);
  metric.constraint_filtered = Counts(json["ConstraintFiltered"]);
  metric.class_exhausted = Counts(json["ClassExhausted"]);
  metric.dimension_exhausted = Counts(json["DimensionExhausted"]);
  metric.quota_exhausted = Texts(json["QuotaExhausted"]);
  return metric;
}

std::map<std::string, Metric> ReadFailed(View json) {
  std::map<std::string, Metric> failed;
  json.ForEachMember(
      [&failed](const std::string& group, View metric) { failed[group] = ReadMetric(metric); });
  return failed;
}

Evaluation ReadEvaluation(View json) {
  Evaluation evaluation;
  evaluation.id = json["ID"].text();
  evaluation.job = json["JobID"].text();
  evaluation.name_space = json["Namespace"].text();
  evaluation.status = json["Status"].text();
  evaluation.status_description = json["StatusDescription"].text();
  evaluation.type = json["Type"].text();
  evaluation.triggered_by = json["TriggeredBy"].text();
  evaluation.blocked_eval = json["BlockedEval"].text();
  evaluation.create_index = static_cast<uint64_t>(json["CreateIndex"].integer());
  evaluation.modify_time = json["ModifyTime"].integer();
  evaluation.failed = ReadFailed(json["FailedTGAllocs"]);
  return evaluation;
}

// Parses `json`, which has to be an object or an array, and gives its view to `read`.
template <typename Result, typename Read>
absl::StatusOr<Result> ReadAs(absl::string_view json, bool array, const Read& read) {
  rapidjson::Document document;
  if (const absl::Status status = Parse(json, document); !status.ok()) return status;
  const View view(document);
  if (array ? !view.is_array() : !view.is_object()) {
    return absl::InvalidArgumentError(array ? "the answer is no JSON array"
                                            : "the answer is no JSON object");
  }
  Result result{};
  read(view, result);
  return result;
}

}  // namespace

absl::StatusOr<std::vector<Node>> ParseNodes(absl::string_view json) {
  return ReadAs<std::vector<Node>>(json, true, [](View view, std::vector<Node>& nodes) {
    nodes.reserve(view.size());
    view.ForEach([&nodes](View node) { nodes.push_back(ReadNode(node)); });
  });
}

absl::Status AddNodeDetails(absl::string_view json, Node& node) {
  return ReadAs<bool>(json, false,
                      [&node](View view, bool&) {
                        node.attributes = TextMap(view["Attributes"]);
                        node.meta = TextMap(view["Meta"]);
                        node.max_allocations = view["NodeMaxAllocs"].integer();
                        node.has_details = true;
                      })
      .status();
}

absl::StatusOr<std::vector<Allocation>> ParseAllocations(absl::string_view json) {
  return ReadAs<std::vector<Allocation>>(json, true, [](View view, std::vector<Allocation>& all) {
    view.ForEach([&all](View json_allocation) {
      Allocation allocation;
      allocation.client_status = json_allocation["ClientStatus"].text();
      if (!allocation.holds()) return;
      allocation.id = json_allocation["ID"].text();
      allocation.node_id = json_allocation["NodeID"].text();
      allocation.job = json_allocation["JobID"].text();
      allocation.name_space = json_allocation["Namespace"].text();
      allocation.group = json_allocation["TaskGroup"].text();
      allocation.desired_status = json_allocation["DesiredStatus"].text();
      allocation.create_time = json_allocation["CreateTime"].integer();
      allocation.modify_time = json_allocation["ModifyTime"].integer();
      allocation.holding = ReadHolding(json_allocation["AllocatedResources"]);
      all.push_back(std::move(allocation));
    });
  });
}

absl::StatusOr<Job> ParseJob(absl::string_view json) {
  return ReadAs<Job>(json, false, [](View view, Job& job) {
    job.id = view["ID"].text();
    job.name_space = TextOr(view["Namespace"], "default");
    job.type = TextOr(view["Type"], "service");
    job.node_pool = TextOr(view["NodePool"], "default");
    job.status = view["Status"].text();
    job.stopped = view["Stop"].boolean();
    job.priority = view["Priority"].integer(50);
    job.version = static_cast<uint64_t>(view["Version"].integer());
    job.datacenters = Texts(view["Datacenters"]);
    if (job.datacenters.empty()) job.datacenters = {"*"};
    job.constraints = ReadConstraints(view["Constraints"]);
    view["TaskGroups"].ForEach([&job](View group) { job.groups.push_back(ReadGroup(group)); });
  });
}

absl::StatusOr<std::vector<Evaluation>> ParseEvaluations(absl::string_view json) {
  return ReadAs<std::vector<Evaluation>>(json, true, [](View view, std::vector<Evaluation>& all) {
    view.ForEach([&all](View evaluation) { all.push_back(ReadEvaluation(evaluation)); });
  });
}

absl::StatusOr<Evaluation> ParseEvaluation(absl::string_view json) {
  return ReadAs<Evaluation>(
      json, false, [](View view, Evaluation& evaluation) { evaluation = ReadEvaluation(view); });
}

absl::StatusOr<std::map<std::string, int64_t>> ParseQueued(absl::string_view json) {
  using Queued = std::map<std::string, int64_t>;
  return ReadAs<Queued>(json, false, [](View view, Queued& queued) {
    view["Summary"].ForEachMember([&queued](const std::string& group, View summary) {
      queued[group] = summary["Queued"].integer();
    });
  });
}

absl::StatusOr<std::map<std::string, int64_t>> ParseGivenUp(absl::string_view json,
                                                            uint64_t version) {
  using GivenUp = std::map<std::string, int64_t>;
  return ReadAs<GivenUp>(json, true, [version](View view, GivenUp& given_up) {
    view.ForEach([version, &given_up](View allocation) {
      // A follow-up evaluation is a further try that waits for its time.
      const bool is_last = allocation["NextAllocation"].text().empty() &&
                           allocation["FollowupEvalID"].text().empty();
      if (is_last && allocation["ClientStatus"].text() == "failed" &&
          allocation["DesiredStatus"].text() == "run" &&
          allocation["JobVersion"].integer() == static_cast<int64_t>(version)) {
        ++given_up[allocation["TaskGroup"].text()];
      }
    });
  });
}

absl::StatusOr<SchedulerSettings> ParseSettings(absl::string_view json) {
  return ReadAs<SchedulerSettings>(json, false, [](View view, SchedulerSettings& settings) {
    const View config = view["SchedulerConfig"];
    settings.memory_oversubscription = config["MemoryOversubscriptionEnabled"].boolean();
    const std::pair<const char*, const char*> kinds[] = {{"BatchSchedulerEnabled", "batch"},
                                                         {"ServiceSchedulerEnabled", "service"},
                                                         {"SystemSchedulerEnabled", "system"},
                                                         {"SysBatchSchedulerEnabled", "sysbatch"}};
    for (const auto& [key, kind] : kinds) {
      if (config["PreemptionConfig"][key].boolean()) settings.preemption.insert(kind);
    }
  });
}

absl::StatusOr<std::map<std::string, Metric>> ParsePlan(absl::string_view json) {
  using Failed = std::map<std::string, Metric>;
  return ReadAs<Failed>(
      json, false, [](View view, Failed& failed) { failed = ReadFailed(view["FailedTGAllocs"]); });
}

absl::StatusOr<NodeUse> ParseHostStats(absl::string_view json) {
  return ReadAs<NodeUse>(json, false, [](View view, NodeUse& use) {
    use.cpu_mhz = static_cast<int64_t>(view["CPUTicksConsumed"].number());
    const View memory = view["Memory"];
    // What the kernel could still give is not in use, whatever the page cache holds.
    use.memory_mb = (memory["Total"].integer() - memory["Available"].integer()) >> 20;
    if (view["AllocDirStats"].present()) {
      use.disk_mb = view["AllocDirStats"]["Used"].integer() >> 20;
    }
  });
}

absl::StatusOr<NodeUse> ParseAllocationStats(absl::string_view json) {
  return ReadAs<NodeUse>(json, false, [](View view, NodeUse& use) {
    const View memory = view["ResourceUsage"]["MemoryStats"];
    bool has_rss = false;
    memory["Measured"].ForEach([&has_rss](View name) { has_rss |= name.text() == "RSS"; });
    use.memory_mb = memory[has_rss ? "RSS" : "Usage"].integer() >> 20;
    use.cpu_mhz = static_cast<int64_t>(view["ResourceUsage"]["CpuStats"]["TotalTicks"].number());
  });
}

absl::StatusOr<bool> PolicyReadsEveryNamespace(absl::string_view json) {
  return ReadAs<bool>(json, false, [](View view, bool& reads) {
    view["RulesJSON"]["Namespaces"].ForEach([&reads](View rule) {
      if (rule["Name"].text() != "*") return;
      const std::string policy = rule["Policy"].text();
      reads |= policy == "read" || policy == "write";
      for (const std::string& capability : Texts(rule["Capabilities"])) {
        reads |= capability == "read-job";
      }
    });
  });
}

absl::StatusOr<TokenFacts> ParseToken(absl::string_view json) {
  return ReadAs<TokenFacts>(json, false, [](View view, TokenFacts& facts) {
    facts.management = view["Type"].text() == "management";
    facts.policies = Texts(view["Policies"]);
  });
}

}  // namespace jenkins_agent::nomad
