#include "driver/nomad/assess.h"

#include <algorithm>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/nomad/constraint.h"
#include "driver/nomad/ports.h"

namespace jenkins_agent::nomad {
namespace {

std::string JobKey(const std::string& name_space, const std::string& job) {
  return absl::StrCat(name_space, "\n", job);
}

Figure MakeFigure(Resource resource, std::string name, std::string unit, int64_t asked,
                  int64_t total, int64_t reserved, int64_t allocated) {
  Figure figure;
  figure.resource = resource;
  figure.name = std::move(name);
  figure.unit = std::move(unit);
  figure.asked = asked;
  figure.total = total;
  figure.reserved = reserved;
  figure.allocated = allocated;
  figure.free = total - reserved - allocated;
  figure.short_by = std::max<int64_t>(0, asked - figure.free);
  return figure;
}

// --- what keeps a group off a node, whatever room it has -----------------------------------------

class Reasons {
 public:
  explicit Reasons(NodeReport& report) : report_(report) {}
  // `nomad_name`: under which Nomad would count the node, had it found nothing before.
  void Add(Obstacle obstacle, std::string text, std::string subject, std::string nomad_name) {
    report_.reasons.push_back({obstacle, std::move(text), std::move(subject)});
    if (report_.nomad_reason.empty()) report_.nomad_reason = std::move(nomad_name);
  }

 private:
  NodeReport& report_;
};

bool InAnyDatacenter(const Job& job, const Node& node) {
  return std::any_of(
      job.datacenters.begin(), job.datacenters.end(),
      [&node](const std::string& pattern) { return GlobMatches(pattern, node.datacenter); });
}

// Before Nomad counts (scheduler/util.go, readyNodesInDCsAndPool).
void FindLeftOut(const Job& job, const Node& node, NodeReport& report) {
  const auto add = [&report](Obstacle obstacle, std::string text, std::string subject = "") {
    report.reasons.push_back({obstacle, std::move(text), std::move(subject)});
  };
  if (job.node_pool != "all" && node.pool != job.node_pool) {
    add(Obstacle::kPool, absl::StrCat("node pool '", node.pool, "', not '", job.node_pool, "'"),
        node.pool);
  }
  if (!InAnyDatacenter(job, node)) {
    add(Obstacle::kDatacenter, absl::StrCat("datacenter '", node.datacenter, "'"), node.datacenter);
  }
  if (node.status != "ready") {
    add(Obstacle::kDown, absl::StrCat("status '", node.status, "'"), node.status);
  }
  if (node.drain) {
    add(Obstacle::kDraining, "draining");
  } else if (!node.eligible) {
    add(Obstacle::kIneligible, "not eligible for scheduling");
  }
}

std::string ActualValue(const std::string& target, const Node& node) {
  const std::optional<std::string> value = Resolve(target, node);
  return value ? absl::StrCat("'", *value, "'") : "not set";
}

void CheckConstraints(const std::vector<Constraint>& constraints, const Node& node,
                      Reasons& reasons) {
  for (const Constraint& constraint : constraints) {
    if (!node.has_details && (NeedsDetails(constraint.left) || NeedsDetails(constraint.right))) {
      continue;
    }
    if (Meets(constraint, node)) continue;
    reasons.Add(Obstacle::kConstraint,
                absl::StrCat("constraint ", constraint.text(), ": here it is ",
                             ActualValue(constraint.left, node)),
                constraint.text(), constraint.text());
  }
}

void CheckDrivers(const Group& group, const Node& node, Reasons& reasons) {
  std::set<std::string> drivers;
  for (const Task& task : group.tasks) drivers.insert(task.driver);
  for (const std::string& name : drivers) {
    const auto found = node.drivers.find(name);
    std::string why;
    if (found == node.drivers.end()) {
      const auto attribute = node.attributes.find(absl::StrCat("driver.", name));
      if (attribute != node.attributes.end() && ParseBool(attribute->second).value_or(false)) {
        continue;
      }
      why = "is not installed";
    } else if (!found->second.detected) {
      why = "is not detected";
    } else if (!found->second.healthy) {
      why = "is unhealthy";
    } else {
      continue;
    }
    if (found != node.drivers.end() && !found->second.description.empty()) {
      absl::StrAppend(&why, ": ", found->second.description);
    }
    reasons.Add(Obstacle::kDriver, absl::StrCat("driver ", name, " ", why), name,
                "missing drivers");
  }
}

bool DeviceMatches(const std::string& asked, const DeviceGroup& device) {
  const std::vector<std::string> parts = absl::StrSplit(asked, absl::MaxSplits('/', 2));
  if (parts.size() == 1) return parts[0] == device.type;
  const bool same = parts[0] == device.vendor && parts[1] == device.type;
  return parts.size() == 2 ? same : same && parts[2] == device.name;
}

std::vector<const DeviceAsk*> DeviceAsks(const Group& group) {
  std::vector<const DeviceAsk*> asks;
  for (const Task& task : group.tasks) {
    for (const DeviceAsk& ask : task.devices) asks.push_back(&ask);
  }
  return asks;
}

// Are there such devices at all, whoever has them (DeviceChecker)?
void CheckDevices(const Group& group, const Node& node, Reasons& reasons) {
  std::vector<int64_t> left;
  for (const DeviceGroup& device : node.devices) left.push_back(device.healthy_instances.size());
  for (const DeviceAsk* ask : DeviceAsks(group)) {
    int64_t wanted = ask->count;
    for (size_t i = 0; i < left.size() && wanted > 0; ++i) {
      if (!DeviceMatches(ask->name, node.devices[i])) continue;
      const int64_t taken = std::min(wanted, left[i]);
      left[i] -= taken;
      wanted -= taken;
    }
    if (wanted > 0) {
      reasons.Add(Obstacle::kDevices,
                  absl::StrCat("has ", ask->count - wanted, " healthy devices '", ask->name,
                               "' of ", ask->count),
                  ask->name, "missing devices");
      return;
    }
  }
}

bool HasHostNetwork(const Node& node, const std::string& alias) {
  for (const HostNetwork& network : node.host_networks) {
    for (const HostAddress& address : network.addresses) {
      if (address.alias == alias) return true;
    }
  }
  return false;
}

void CheckNetwork(const Group& group, const Node& node, Reasons& reasons) {
  if (!group.has_network || group.network_mode == "none") return;
  const std::string mode = group.network_mode.empty() ? "host" : group.network_mode;
  const auto same = [&mode](const std::string& has) {
    return (has.empty() ? "host" : has) == mode;
  };
  if (std::none_of(node.network_modes.begin(), node.network_modes.end(), same)) {
    reasons.Add(Obstacle::kNetwork, absl::StrCat("has no network of mode '", mode, "'"), mode,
                "missing network");
    return;
  }
  for (const std::vector<Port>* ports : {&group.dynamic_ports, &group.static_ports}) {
    for (const Port& port : *ports) {
      if (port.host_network.empty()) continue;
      const std::optional<std::string> alias = Resolve(port.host_network, node);
      if (alias && HasHostNetwork(node, *alias)) continue;
      const std::string name = alias ? absl::StrCat("missing host network \"", *alias,
                                                    "\" for port \"", port.label, "\"")
                                     : absl::StrCat("invalid host network \"", port.host_network,
                                                    "\" template for port \"", port.label, "\"");
      reasons.Add(Obstacle::kNetwork, name, port.host_network, name);
      return;
    }
  }
}

void CheckVolumes(const Group& group, const Node& node, Reasons& reasons) {
  for (const std::string& volume : group.host_volumes) {
    if (node.host_volumes.count(volume) > 0) continue;
    reasons.Add(Obstacle::kHostVolume, absl::StrCat("has no host volume '", volume, "'"), volume,
                "missing compatible host volumes");
  }
}

bool HasDistinctHosts(const std::vector<Constraint>& constraints) {
  return std::any_of(constraints.begin(), constraints.end(), IsDistinctHosts);
}

void CheckDistinctHosts(const Job& job, const Group& group, const Node& node, const Ledger& ledger,
                        Reasons& reasons) {
  const bool of_job = HasDistinctHosts(job.constraints);
  if (!of_job && !HasDistinctHosts(group.constraints)) return;
  for (const Allocation* allocation : ledger.Of(job.name_space, job.id)) {
    if (allocation->node_id != node.id || allocation->stopping()) continue;
    if (!of_job && allocation->group != group.name) continue;
    reasons.Add(Obstacle::kDistinctHosts,
                absl::StrCat("distinct_hosts: allocation ", allocation->id.substr(0, 8),
                             " of this ", of_job ? "job" : "group", " is here"),
                "distinct_hosts", "distinct_hosts");
    return;
  }
}

void CheckDistinctProperty(const Constraint& constraint, const Job& job, const std::string& group,
                           const Node& node, const Ledger& ledger, Reasons& reasons) {
  if (constraint.operation != "distinct_property") return;
  int64_t allowed = 1;
  if (!constraint.right.empty() && !absl::SimpleAtoi(constraint.right, &allowed)) return;
  if (NeedsDetails(constraint.left) && !node.has_details) return;
  const std::optional<std::string> value = Resolve(constraint.left, node);
  if (!value) {
    const std::string name = absl::StrCat("missing property \"", constraint.left, "\"");
    reasons.Add(Obstacle::kDistinctProperty, name, constraint.text(), name);
    return;
  }
  int64_t used = 0;
  for (const Allocation* allocation : ledger.Of(job.name_space, job.id)) {
    if (allocation->stopping() || (!group.empty() && allocation->group != group)) continue;
    const Node* other = ledger.Find(allocation->node_id);
    if (other != nullptr && Resolve(constraint.left, *other) == value) ++used;
  }
  if (used < allowed) return;
  const std::string name = absl::StrCat("distinct_property: ", constraint.left, "=", *value,
                                        " used by ", used, " allocs");
  reasons.Add(Obstacle::kDistinctProperty, name, constraint.text(), name);
}

// In Nomad's order.
void FindFilters(const Job& job, const Group& group, const Node& node, const Ledger& ledger,
                 NodeReport& report) {
  Reasons reasons(report);
  CheckConstraints(job.constraints, node, reasons);
  CheckDrivers(group, node, reasons);
  CheckConstraints(group.constraints, node, reasons);
  for (const Task& task : group.tasks) CheckConstraints(task.constraints, node, reasons);
  CheckDevices(group, node, reasons);
  CheckNetwork(group, node, reasons);
  CheckVolumes(group, node, reasons);
  CheckDistinctHosts(job, group, node, ledger, reasons);
  for (const Constraint& constraint : job.constraints) {
    CheckDistinctProperty(constraint, job, "", node, ledger, reasons);
  }
  for (const Constraint& constraint : group.constraints) {
    CheckDistinctProperty(constraint, job, group.name, node, ledger, reasons);
  }
}

// --- room ----------------------------------------------------------------------------------------

// The cores that Nomad would choose: the free ones of lowest number (numa_ce.go, Select).
int64_t CoresMhz(int64_t count, const Node& node, const std::set<int>& taken) {
  std::vector<const Core*> cores;
  for (const Core& core : node.cores) {
    if (!core.disabled && taken.count(core.id) == 0) cores.push_back(&core);
  }
  std::sort(cores.begin(), cores.end(), [](const Core* a, const Core* b) { return a->id < b->id; });
  int64_t mhz = 0;
  for (size_t i = 0; i < cores.size() && static_cast<int64_t>(i) < count; ++i) mhz += cores[i]->mhz;
  // More than there are: as much as the missing ones would have.
  if (!node.cores.empty() && count > static_cast<int64_t>(cores.size())) {
    mhz += (count - static_cast<int64_t>(cores.size())) * node.cores.front().mhz;
  }
  return mhz;
}

int64_t AskedCpu(const Ask& ask, const Node& node, const std::set<int>& taken) {
  return ask.amounts.cpu_mhz + (ask.cores > 0 ? CoresMhz(ask.cores, node, taken) : 0);
}

int64_t UsableCores(const Node& node) {
  return std::count_if(node.cores.begin(), node.cores.end(),
                       [](const Core& core) { return !core.disabled; });
}

// Static ports, as an address without them would have to be found (AssignPorts).
Figure StaticPortFigure(const Port& port, const PortUse& use) {
  Figure figure;
  figure.resource = Resource::kStaticPort;
  figure.name = absl::StrCat("port ", port.label, "=", port.value);
  figure.asked = 1;
  for (const HostAddress* address : use.Addresses(port.host_network)) {
    ++figure.total;
    if (port.ignore_collision) continue;
    if (use.Reserved(*address, port.value))
      ++figure.reserved;
    else if (use.HolderOf(*address, port.value) != nullptr)
      ++figure.allocated;
  }
  figure.free = figure.total - figure.reserved - figure.allocated;
  figure.short_by = std::max<int64_t>(0, figure.asked - figure.free);
  return figure;
}

Figure DynamicPortFigure(const Group& group, const PortUse& use) {
  const PortUse::Range range = use.Dynamic(group.dynamic_ports.front().host_network);
  return MakeFigure(Resource::kDynamicPorts, "dynamic ports", "", group.dynamic_ports.size(),
                    range.total, range.reserved, range.allocated);
}

Figure DeviceFigure(const DeviceAsk& ask, const Node& node, const Ledger::Load& load) {
  // An ask is served from one group of equal devices: the one with most of them free.
  Figure best =
      MakeFigure(Resource::kDevice, absl::StrCat("device ", ask.name), "", ask.count, 0, 0, 0);
  for (const DeviceGroup& device : node.devices) {
    if (!DeviceMatches(ask.name, device)) continue;
    std::set<std::string> used;
    for (const Allocation* allocation : load.allocations) {
      for (const DeviceUse& use : allocation->holding.devices) {
        if (use.vendor != device.vendor || use.type != device.type || use.name != device.name) {
          continue;
        }
        used.insert(use.instances.begin(), use.instances.end());
      }
    }
    const int64_t taken =
        std::count_if(device.healthy_instances.begin(), device.healthy_instances.end(),
                      [&used](const std::string& instance) { return used.count(instance) > 0; });
    const Figure figure = MakeFigure(Resource::kDevice, best.name, "", ask.count,
                                     device.healthy_instances.size(), 0, taken);
    if (figure.free > best.free || best.total == 0) best = figure;
  }
  return best;
}

// The dimension that Nomad's bin packer names first (rank.go, then AllocsFit).
std::string ExhaustedDimension(const Group& group, const std::vector<Figure>& figures) {
  const auto short_of = [&figures](Resource resource) -> const Figure* {
    for (const Figure& figure : figures) {
      if (figure.resource == resource && figure.short_by > 0) return &figure;
    }
    return nullptr;
  };
  if (const Figure* port = short_of(Resource::kStaticPort); port != nullptr) {
    if (port->total == 0) return "network: no addresses available for default network";
    return absl::StrCat("network: reserved port collision ", port->name.substr(5));
  }
  if (short_of(Resource::kDynamicPorts) != nullptr) {
    return "network: dynamic port selection failed";
  }
  // Task by task: its devices, then its cores.
  const Figure* cores = short_of(Resource::kCores);
  int64_t free_cores = cores == nullptr ? std::numeric_limits<int64_t>::max() : cores->free;
  for (const Task& task : group.tasks) {
    if (!task.devices.empty() && short_of(Resource::kDevice) != nullptr) {
      return "devices: no devices match request";
    }
    if (task.cores > free_cores) return "cores";
    free_cores -= task.cores;
  }
  if (short_of(Resource::kAllocations) != nullptr) return "max allocation exceeded";
  if (short_of(Resource::kCpu) != nullptr) return "cpu";
  if (short_of(Resource::kMemory) != nullptr) return "memory";
  if (short_of(Resource::kDisk) != nullptr) return "disk";
  return "";
}

void MeasureRoom(const Group& group, const Node& node, const Ledger::Load& load,
                 NodeReport& report) {
  const Ask ask = AskOf(group);
  std::vector<Figure>& figures = report.figures;
  figures.push_back(MakeFigure(Resource::kCpu, "cpu", "MHz", AskedCpu(ask, node, load.cores),
                               node.cpu_mhz, node.reserved_cpu_mhz, load.amounts.cpu_mhz));
  if (ask.cores > 0) {
    figures.push_back(MakeFigure(Resource::kCores, "cores", "", ask.cores, node.cores.size(),
                                 static_cast<int64_t>(node.cores.size()) - UsableCores(node),
                                 load.cores.size()));
  }
  figures.push_back(MakeFigure(Resource::kMemory, "memory", "MB", ask.amounts.memory_mb,
                               node.memory_mb, node.reserved_memory_mb, load.amounts.memory_mb));
  if (ask.amounts.memory_max_mb > ask.amounts.memory_mb) {
    Figure most = MakeFigure(Resource::kMemoryMax, "memory_max", "MB", ask.amounts.memory_max_mb,
                             node.memory_mb, node.reserved_memory_mb, load.amounts.memory_max_mb);
    most.short_by = 0;
    figures.push_back(most);
  }
  figures.push_back(MakeFigure(Resource::kDisk, "disk", "MB", ask.disk_mb, node.disk_mb,
                               node.reserved_disk_mb, load.disk_mb));
  if (group.has_network && !(group.static_ports.empty() && group.dynamic_ports.empty())) {
    const PortUse use(node, load.allocations);
    for (const Port& port : group.static_ports) {
      figures.push_back(StaticPortFigure(port, use));
    }
    if (!group.dynamic_ports.empty()) figures.push_back(DynamicPortFigure(group, use));
  }
  for (const DeviceAsk* device : DeviceAsks(group)) {
    figures.push_back(DeviceFigure(*device, node, load));
  }
  if (node.max_allocations > 0) {
    figures.push_back(MakeFigure(Resource::kAllocations, "allocations", "", 1, node.max_allocations,
                                 0, load.allocations.size()));
  }
}

bool FitsWhenEmpty(const Figure& figure) { return figure.asked <= figure.total - figure.reserved; }

double Distance(const std::vector<Figure>& figures) {
  double distance = 0;
  for (const Figure& figure : figures) {
    if (figure.short_by == 0) continue;
    const int64_t available = std::max<int64_t>(1, figure.total - figure.reserved);
    distance =
        std::max(distance, static_cast<double>(figure.short_by) / static_cast<double>(available));
  }
  return distance;
}

}  // namespace

Ask AskOf(const Group& group) {
  std::vector<TaskShare> shares;
  Ask ask;
  for (const Task& task : group.tasks) {
    TaskShare share{.lifecycle = task.lifecycle, .amounts = task.amounts, .cores = {}};
    if (task.cores > 0) share.amounts.cpu_mhz = 0;
    shares.push_back(share);
    ask.cores += task.cores;
  }
  ask.amounts = Flatten(shares).amounts;
  ask.disk_mb = group.disk_mb;
  ask.dynamic_ports = group.dynamic_ports.size();
  return ask;
}

Ledger::Ledger(const Cluster& cluster) : cluster_(cluster) {
  loads_.reserve(cluster.nodes.size());
  nodes_.reserve(cluster.nodes.size());
  for (const Node& node : cluster.nodes) {
    nodes_.emplace(node.id, &node);
    loads_[node.id];
  }
  for (const Allocation& allocation : cluster.allocations) {
    jobs_[JobKey(allocation.name_space, allocation.job)].push_back(&allocation);
    Load& load = loads_[allocation.node_id];
    load.allocations.push_back(&allocation);
    load.amounts.cpu_mhz += allocation.holding.amounts.cpu_mhz;
    load.amounts.memory_mb += allocation.holding.amounts.memory_mb;
    load.amounts.memory_max_mb += allocation.holding.amounts.memory_max_mb;
    load.disk_mb += allocation.holding.disk_mb;
    load.cores.insert(allocation.holding.cores.begin(), allocation.holding.cores.end());
  }
}

const Ledger::Load& Ledger::On(const Node& node) const { return loads_.at(node.id); }

const Node* Ledger::Find(const std::string& id) const {
  const auto found = nodes_.find(id);
  return found == nodes_.end() ? nullptr : found->second;
}

const std::vector<const Allocation*>& Ledger::Of(const std::string& name_space,
                                                 const std::string& job) const {
  static const std::vector<const Allocation*>* const none = new std::vector<const Allocation*>();
  const auto found = jobs_.find(JobKey(name_space, job));
  return found == jobs_.end() ? *none : found->second;
}

int64_t AvailableCpu(const Node& node) { return node.cpu_mhz - node.reserved_cpu_mhz; }
int64_t AvailableMemory(const Node& node) { return node.memory_mb - node.reserved_memory_mb; }
int64_t AvailableDisk(const Node& node) { return node.disk_mb - node.reserved_disk_mb; }

int64_t HeldOf(const Figure& figure, const Allocation& allocation) {
  switch (figure.resource) {
    case Resource::kCpu:
      return allocation.holding.amounts.cpu_mhz;
    case Resource::kCores:
      return allocation.holding.cores.size();
    case Resource::kMemory:
      return allocation.holding.amounts.memory_mb;
    case Resource::kDisk:
      return allocation.holding.disk_mb;
    case Resource::kStaticPort:
      return std::count_if(allocation.holding.ports.begin(), allocation.holding.ports.end(),
                           [&figure](const Port& port) {
                             return absl::StrCat(port.value) ==
                                    figure.name.substr(figure.name.rfind('=') + 1);
                           });
    case Resource::kDevice: {
      int64_t held = 0;
      for (const DeviceUse& use : allocation.holding.devices) held += use.instances.size();
      return held;
    }
    case Resource::kAllocations:
      return 1;
    case Resource::kDynamicPorts:
      return allocation.holding.ports.size();
    case Resource::kMemoryMax:
      return 0;
  }
  return 0;
}

int64_t Copies(const Ask& ask, const Node& node, const Ledger::Load& load) {
  int64_t copies = std::numeric_limits<int64_t>::max();
  const auto limit = [&copies](int64_t asked, int64_t free) {
    if (asked > 0) copies = std::min(copies, std::max<int64_t>(0, free) / asked);
    if (asked == 0 && free < 0) copies = 0;
  };
  limit(AskedCpu(ask, node, load.cores), AvailableCpu(node) - load.amounts.cpu_mhz);
  limit(ask.cores, UsableCores(node) - static_cast<int64_t>(load.cores.size()));
  limit(ask.amounts.memory_mb, AvailableMemory(node) - load.amounts.memory_mb);
  limit(ask.disk_mb, AvailableDisk(node) - load.disk_mb);
  if (node.max_allocations > 0) {
    limit(1, node.max_allocations - static_cast<int64_t>(load.allocations.size()));
  }
  return copies;
}

NodeReport AssessNode(const Job& job, const Group& group, const Node& node, const Ledger& ledger) {
  NodeReport report;
  report.id = node.id;
  report.name = node.name;
  report.datacenter = node.datacenter;
  report.pool = node.pool;
  report.node_class = node.node_class;
  FindLeftOut(job, node, report);
  const bool left_out = !report.reasons.empty();
  FindFilters(job, group, node, ledger, report);
  if (left_out) {
    report.standing = Standing::kLeftOut;
    report.nomad_reason.clear();
  } else if (!report.reasons.empty()) {
    report.standing = Standing::kFiltered;
  }
  MeasureRoom(group, node, ledger.On(node), report);
  report.distance = Distance(report.figures);
  report.room = std::none_of(report.figures.begin(), report.figures.end(),
                             [](const Figure& figure) { return figure.short_by > 0; });
  report.room_when_empty = std::all_of(
      report.figures.begin(), report.figures.end(),
      [](const Figure& f) { return f.resource == Resource::kMemoryMax || FitsWhenEmpty(f); });
  if (report.standing == Standing::kFits && !report.room) {
    report.standing = Standing::kNoRoom;
    report.nomad_reason = ExhaustedDimension(group, report.figures);
  }
  return report;
}

}  // namespace jenkins_agent::nomad
