// Why a job waits, as values: what the printers print and the tests compare. Made by explain.h.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "driver/nomad/state.h"

namespace jenkins_agent::nomad {

enum class Resource {
  kCpu,
  kCores,
  kMemory,
  kMemoryMax,  // shown, never short: placement does not count it
  kDisk,
  kStaticPort,
  kDynamicPorts,
  kDevice,
  kAllocations,  // the node's node_max_allocs
};

// One resource of one node against the ask. short_by = asked - free where that is positive.
struct Figure {
  Resource resource = Resource::kCpu;
  std::string name;  // "memory", "port jmx=9010", "device nvidia/gpu"
  std::string unit;  // "MHz", "MB" or ""
  int64_t asked = 0, total = 0, reserved = 0, allocated = 0, free = 0, short_by = 0;
  std::optional<int64_t> in_use;  // what is really used now, whoever uses it
};

enum class Standing {
  kFits,
  kNoRoom,    // Nomad: "exhausted"
  kFiltered,  // Nomad: "excluded by filter"
  kLeftOut,   // Nomad drops it before it counts: down, draining, ineligible, other datacenter or
              // pool
};

enum class Obstacle {
  kDown,
  kDraining,
  kIneligible,
  kDatacenter,
  kPool,
  kConstraint,
  kDriver,
  kDevices,
  kNetwork,
  kHostVolume,
  kDistinctHosts,
  kDistinctProperty,
};

// One reason for which a node is left out or filtered.
struct Reason {
  Obstacle obstacle = Obstacle::kConstraint;
  std::string text;     // for people: "driver jenkins-agent is unhealthy: no cgroups"
  std::string subject;  // the constraint as Nomad names it, the driver, the port
};

struct NodeReport {
  std::string id, name, datacenter, pool, node_class;
  Standing standing = Standing::kFits;
  std::vector<Reason> reasons;  // all of them, where Nomad reports the first
  std::vector<Figure>
      figures;               // empty when the node is of another pool or datacenter and idle data
  std::string nomad_reason;  // what Nomad counts this node under: "memory", "missing drivers"
  bool room = false;         // enough of everything, whatever `reasons` say
  bool room_when_empty = false;  // would have, without any allocation
  // The largest shortfall as a part of what the node can give; 0 with room.
  double distance = 0;
};

// An allocation that holds something of a missing resource.
struct Holder {
  std::string allocation, job, name_space, group, node, client_status;
  Resource resource = Resource::kMemory;
  std::string unit;
  int64_t amount = 0;
  int64_t age_seconds = 0;
  bool stopping = false;  // told to stop, and still holds
  std::optional<int64_t> in_use;
};

// What a remedy changes in the job, so that Nomad's plan can try it. Only what is set.
struct JobChange {
  std::string group;
  struct TaskChange {
    std::optional<int64_t> cpu_mhz, cores, memory_mb;
  };
  std::map<std::string, TaskChange> tasks = {};
  std::optional<int64_t> disk_mb = {};
  std::optional<int64_t> count = {};
  std::string add_datacenter = {};
  std::string node_pool = {};
  std::string drop_constraint = {};  // as Constraint::text()
  std::string dynamic_port = {};     // label of a static port that becomes dynamic
};

enum class Check {
  kUnchecked,  // `check_text` says why
  kPlaces,     // Nomad's plan places all that waits
  kPlacesSome,
  kPlacesNone,
};

struct Remedy {
  std::string text;
  std::optional<JobChange> change;  // nothing: it is not in the job, and plan cannot try it
  Check check = Check::kUnchecked;
  std::string check_text;
};

enum class Verdict {
  kPlaced,
  kFitsNow,      // a node has room: Nomad has not looked again yet, or knows more than we may see
  kNoRoom,       // would fit once something is freed
  kNeverFits,    // not even on the emptied nodes
  kNoCandidate,  // every node is left out or filtered
};

struct GroupExplanation {
  std::string group;
  int64_t count = 0, unplaced = 0;
  int64_t given_up = 0;      // failed, and Nomad does not try again
  bool reschedules = false;  // its reschedule block allows tries, which are used up
  Verdict verdict = Verdict::kPlaced;
  std::vector<Figure> ask;  // `asked` only
  Metric nomad_then;        // of the evaluation; nodes_evaluated etc.
  bool has_nomad_then = false;
  Metric nomad_now;               // what Nomad would count now, computed here
  std::vector<NodeReport> nodes;  // nearest first, then filtered, then left out
  std::vector<Holder> holders;    // on the nearest nodes, largest first
  std::vector<Remedy> remedies;
  std::vector<std::string> notes;  // what this program does not check
};

struct Explanation {
  std::string job, name_space, job_type, job_status;
  std::string evaluation, evaluation_status;
  int64_t evaluation_age_seconds = 0;
  std::vector<GroupExplanation> groups;
  std::vector<std::string> warnings;  // what the token may not see, and what that does to the sums

  bool blocked() const {
    for (const GroupExplanation& group : groups) {
      if (group.verdict != Verdict::kPlaced) return true;
    }
    return false;
  }
};

}  // namespace jenkins_agent::nomad
