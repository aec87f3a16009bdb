#include "driver/nomad/demand.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace jenkins_agent::nomad {
namespace {

// What is left of a node that is being filled.
struct Room {
  int64_t cpu_mhz, memory_mb, disk_mb, cores;
};

bool Fits(const Ask& ask, int64_t cpu_mhz, const Room& room) {
  return cpu_mhz <= room.cpu_mhz && ask.amounts.memory_mb <= room.memory_mb &&
         ask.disk_mb <= room.disk_mb && ask.cores <= room.cores;
}

Room RoomOf(const Node& node) {
  return {AvailableCpu(node), AvailableMemory(node), AvailableDisk(node),
          std::count_if(node.cores.begin(), node.cores.end(),
                        [](const Core& core) { return !core.disabled; })};
}

// MHz of an ask on such a node: reserved cores bring theirs.
int64_t CpuOn(const Ask& ask, const Node& node) {
  const int64_t core_mhz = node.cores.empty() ? 0 : node.cores.front().mhz;
  return ask.amounts.cpu_mhz + ask.cores * core_mhz;
}

// First fit, largest memory first. -1: one ask is larger than the node.
int64_t NodesNeeded(std::vector<Ask> asks, const Node& node) {
  std::stable_sort(asks.begin(), asks.end(), [](const Ask& a, const Ask& b) {
    return std::tuple(a.amounts.memory_mb, a.amounts.cpu_mhz) >
           std::tuple(b.amounts.memory_mb, b.amounts.cpu_mhz);
  });
  std::vector<Room> rooms;
  for (const Ask& ask : asks) {
    const int64_t cpu_mhz = CpuOn(ask, node);
    auto room = std::find_if(rooms.begin(), rooms.end(),
                             [&](const Room& r) { return Fits(ask, cpu_mhz, r); });
    if (room == rooms.end()) {
      if (!Fits(ask, cpu_mhz, RoomOf(node))) return -1;
      rooms.push_back(RoomOf(node));
      room = rooms.end() - 1;
    }
    room->cpu_mhz -= cpu_mhz;
    room->memory_mb -= ask.amounts.memory_mb;
    room->disk_mb -= ask.disk_mb;
    room->cores -= ask.cores;
  }
  return static_cast<int64_t>(rooms.size());
}

// The kind of node of which the least memory, then the fewest nodes, would do.
NodeOffer BestOffer(const std::vector<Ask>& asks, const Cluster& cluster) {
  NodeOffer best;
  std::set<std::tuple<int64_t, int64_t, int64_t, size_t>> seen;
  for (const Node& node : cluster.nodes) {
    if (!seen.emplace(AvailableCpu(node), AvailableMemory(node), AvailableDisk(node),
                      node.cores.size())
             .second) {
      continue;
    }
    const int64_t count = NodesNeeded(asks, node);
    if (count <= 0) continue;
    const NodeOffer offer{node.name, count, AvailableCpu(node), AvailableMemory(node),
                          AvailableDisk(node)};
    const auto cost = [](const NodeOffer& o) { return std::tuple(o.count * o.memory_mb, o.count); };
    if (best.count == 0 || cost(offer) < cost(best)) best = offer;
  }
  return best;
}

std::string WhyInOneLine(const GroupExplanation& group) {
  if (group.verdict == Verdict::kFitsNow) return "has room now";
  if (group.nodes.empty()) return "there is no node";
  const NodeReport& nearest = group.nodes.front();
  std::vector<std::string> parts;
  for (const Figure& figure : nearest.figures) {
    if (nearest.standing != Standing::kNoRoom || figure.short_by == 0) continue;
    parts.push_back(figure.unit.empty()
                        ? figure.name
                        : absl::StrCat(figure.name, " by ", figure.short_by, " ", figure.unit));
  }
  if (!parts.empty())
    return absl::StrCat(nearest.name, " is short of ", absl::StrJoin(parts, ", "));
  return nearest.reasons.empty() ? ""
                                 : absl::StrCat(nearest.name, ": ", nearest.reasons.front().text);
}

const Group* FindGroup(const std::vector<Job>& jobs, const Explanation& explanation,
                       const std::string& name) {
  for (const Job& job : jobs) {
    if (job.id != explanation.job || job.name_space != explanation.name_space) continue;
    for (const Group& group : job.groups) {
      if (group.name == name) return &group;
    }
  }
  return nullptr;
}

}  // namespace

Demand SumDemand(const std::vector<Explanation>& explanations, const std::vector<Job>& jobs,
                 const Cluster& cluster) {
  Demand demand;
  std::vector<Ask> asks;
  for (const Explanation& explanation : explanations) {
    for (const GroupExplanation& group : explanation.groups) {
      const Group* asked = FindGroup(jobs, explanation, group.group);
      if (group.verdict == Verdict::kPlaced || asked == nullptr) continue;
      WaitingGroup waiting{.job = explanation.job,
                           .name_space = explanation.name_space,
                           .group = group.group,
                           .unplaced = group.unplaced,
                           .verdict = group.verdict,
                           .waiting_seconds = explanation.evaluation_age_seconds,
                           .why = WhyInOneLine(group),
                           .ask = AskOf(*asked)};
      demand.unplaced += group.unplaced;
      demand.amounts.cpu_mhz += waiting.ask.amounts.cpu_mhz * group.unplaced;
      demand.amounts.memory_mb += waiting.ask.amounts.memory_mb * group.unplaced;
      demand.cores += waiting.ask.cores * group.unplaced;
      demand.disk_mb += waiting.ask.disk_mb * group.unplaced;
      if (group.verdict == Verdict::kNoRoom || group.verdict == Verdict::kNeverFits) {
        asks.insert(asks.end(), group.unplaced, waiting.ask);
        for (const Figure& figure : group.nodes.front().figures) {
          if (figure.short_by > 0) demand.lacking[figure.name] += group.unplaced;
        }
      } else if (group.verdict == Verdict::kFitsNow) {
        demand.fits_now += group.unplaced;
      } else {
        demand.without_node += group.unplaced;
      }
      demand.waiting.push_back(std::move(waiting));
    }
  }
  std::stable_sort(demand.waiting.begin(), demand.waiting.end(),
                   [](const WaitingGroup& a, const WaitingGroup& b) {
                     return std::tuple(-a.waiting_seconds, a.job) <
                            std::tuple(-b.waiting_seconds, b.job);
                   });
  if (!asks.empty()) demand.offer = BestOffer(asks, cluster);
  return demand;
}

}  // namespace jenkins_agent::nomad
