// What of Nomad's state an explanation needs, in Nomad's words and units: MHz, MB (which Nomad
// counts as MiB), times in nanoseconds since 1970. Values, copied and compared; made by json.h.
//
// Source of every field: Nomad's HTTP API (api/nodes.go, api/allocations.go, api/jobs.go); null and
// a missing key are the zero value.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace jenkins_agent::nomad {

struct Driver {
  bool detected = false;
  bool healthy = false;
  std::string description;
};

struct HostAddress {
  std::string address;
  std::string alias;           // host network
  std::string reserved_ports;  // "22,80,8000-9000"
};

struct HostNetwork {
  std::string device;
  std::string mode;  // "" is "host"
  std::vector<HostAddress> addresses;
};

struct DeviceGroup {
  std::string vendor, type, name;
  std::vector<std::string> healthy_instances;
};

struct Core {
  int id = 0;
  int64_t mhz = 0;
  bool disabled = false;  // by client.reserved.cores
};

struct Node {
  std::string id, name, datacenter, pool, node_class, status;
  bool drain = false;
  bool eligible = true;

  int64_t cpu_mhz = 0;
  std::vector<Core> cores;
  int64_t memory_mb = 0, disk_mb = 0;
  int64_t reserved_cpu_mhz = 0, reserved_memory_mb = 0, reserved_disk_mb = 0;
  std::set<int> reserved_cores;
  std::string reserved_ports;
  int min_dynamic_port = 20000, max_dynamic_port = 32000;
  std::vector<std::string> network_modes;  // NodeResources.Networks: "host", "bridge", "cni/x"
  std::vector<HostNetwork> host_networks;
  std::vector<DeviceGroup> devices;
  std::map<std::string, Driver> drivers;
  std::set<std::string> host_volumes;

  // Of the node's own page (GET /v1/node/ID), which is read only when the job needs it.
  bool has_details = false;
  std::map<std::string, std::string> attributes, meta;
  int64_t max_allocations = 0;  // 0: no limit
};

struct Port {
  std::string label;
  std::string host_ip;  // of an allocation
  int value = 0;
  std::string host_network = {};  // of an ask; "" is "default"
  bool ignore_collision = false;
};

struct DeviceUse {
  std::string vendor, type, name;
  std::vector<std::string> instances;
};

// A task's or a whole allocation's share.
struct Amounts {
  int64_t cpu_mhz = 0;
  int64_t memory_mb = 0;
  int64_t memory_max_mb = 0;  // counts for nothing in placement
};

enum class Lifecycle { kMain, kPrestart, kPrestartSidecar, kPoststop };

struct TaskShare {
  Lifecycle lifecycle = Lifecycle::kMain;
  Amounts amounts;
  std::vector<int> cores;
};

// What an allocation holds, by Nomad's rule for lifecycles (structs.go, Comparable): the largest of
// prestart, main and poststop, cores and their MHz always.
struct Holding {
  Amounts amounts;
  std::vector<int> cores;
  int64_t disk_mb = 0;
  std::vector<Port> ports;
  std::vector<DeviceUse> devices;
};

Holding Flatten(const std::vector<TaskShare>& tasks);

struct Allocation {
  std::string id, node_id, job, name_space, group, client_status, desired_status;
  int64_t create_time = 0, modify_time = 0;
  Holding holding;

  // It holds its share until its client says that it is over (structs.go, ClientTerminalStatus).
  bool holds() const {
    return client_status != "complete" && client_status != "failed" && client_status != "lost";
  }
  bool stopping() const { return desired_status != "run"; }
};

struct Constraint {
  std::string left, operation, right;
  // As Nomad names it in its reports (structs.go, Constraint.String).
  std::string text() const { return left + " " + operation + " " + right; }
};

struct DeviceAsk {
  std::string name;  // "type", "vendor/type" or "vendor/type/name"
  int64_t count = 1;
};

struct Task {
  std::string name, driver;
  Lifecycle lifecycle = Lifecycle::kMain;
  Amounts amounts;  // memory_mb with SecretsMB
  int64_t cores = 0;
  std::vector<DeviceAsk> devices;
  std::vector<Constraint> constraints;
};

struct Group {
  std::string name;
  int64_t count = 1;
  int64_t disk_mb = 300;
  bool reschedules = false;  // its reschedule block allows tries (structs.go, ReschedulePolicy)
  bool has_network = false;
  std::string network_mode;  // "" is "host"
  std::vector<Port> static_ports, dynamic_ports;
  std::vector<std::string> host_volumes;  // names, not per_alloc
  // Facts of placement that Nomad checks and this program does not: "CSI volumes", ...
  std::vector<std::string> unchecked;
  std::vector<Constraint> constraints;
  std::vector<Task> tasks;
};

struct Job {
  std::string id, name_space, type, node_pool, status;
  bool stopped = false;
  int64_t priority = 50;
  uint64_t version = 0;
  std::vector<std::string> datacenters;
  std::vector<Constraint> constraints;
  std::vector<Group> groups;
};

// What Nomad reports of a failed placement (structs/alloc.go, AllocMetric).
struct Metric {
  int64_t nodes_evaluated = 0, nodes_filtered = 0, nodes_exhausted = 0, coalesced_failures = 0;
  std::map<std::string, int64_t> nodes_available, class_filtered, constraint_filtered,
      class_exhausted, dimension_exhausted;
  std::vector<std::string> quota_exhausted;
};

struct Evaluation {
  std::string id, job, name_space, status, status_description, type, triggered_by, blocked_eval;
  uint64_t create_index = 0;
  int64_t modify_time = 0;
  std::map<std::string, Metric> failed;  // by group
};

struct SchedulerSettings {
  bool memory_oversubscription = false;
  // Job types whose allocations may push out those of lower priority.
  std::set<std::string> preemption;
};

// A whole cluster as the token could see it.
struct Cluster {
  std::vector<Node> nodes;
  std::vector<Allocation> allocations;  // only those that hold something
  std::optional<SchedulerSettings> settings;
};

}  // namespace jenkins_agent::nomad
