#include "driver/nomad/remedies.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "driver/nomad/constraint.h"

namespace jenkins_agent::nomad {
namespace {

// The smallest values that Nomad accepts for a task (structs.go, MinResources).
constexpr int64_t kLeastCpuMhz = 1;
constexpr int64_t kLeastMemoryMb = 10;
constexpr int64_t kLeastDiskMb = 10;
constexpr int64_t kLeastCores = 1;
constexpr size_t kMostToStop = 5;  // allocations named in one remedy
constexpr size_t kMostNames = 5;   // nodes named in one remedy

const char kNotInTheJob[] = "plan can try only changes of the job";

struct Scene {
  const Job& job;
  const Group& group;
  const std::vector<NodeReport>& nodes;
  const int64_t unplaced;
  const Ledger& ledger;
  const bool one_per_node;  // distinct_hosts
};

// Of a job or a group.
template <typename Constrained>
bool HasDistinctHosts(const Constrained& constrained) {
  return std::any_of(constrained.constraints.begin(), constrained.constraints.end(),
                     IsDistinctHosts);
}

std::string Short(const std::string& id) { return id.substr(0, 8); }

std::string Names(const std::vector<std::string>& names) {
  if (names.size() <= kMostNames) return absl::StrJoin(names, ", ");
  return absl::StrCat(absl::StrJoin(names.begin(), names.begin() + kMostNames, ", "), " and ",
                      names.size() - kMostNames, " more");
}

Remedy InTheJob(std::string text, JobChange change) {
  Remedy remedy;
  remedy.text = std::move(text);
  remedy.change = std::move(change);
  return remedy;
}

Remedy OutsideTheJob(std::string text) {
  Remedy remedy;
  remedy.text = std::move(text);
  remedy.check_text = kNotInTheJob;
  return remedy;
}

// --- a smaller ask
// --------------------------------------------------------------------------------

// How many copies of a (changed) ask fit on a node, with the ports and devices that it needs.
int64_t CopiesOn(const Scene& scene, const NodeReport& report, const Ask& ask) {
  const Node& node = *scene.ledger.Find(report.id);
  int64_t copies = Copies(ask, node, scene.ledger.On(node));
  for (const Figure& figure : report.figures) {
    if (figure.resource != Resource::kStaticPort && figure.resource != Resource::kDynamicPorts &&
        figure.resource != Resource::kDevice) {
      continue;
    }
    copies = std::min(copies, figure.free / std::max<int64_t>(1, figure.asked));
  }
  if (scene.one_per_node) copies = std::min<int64_t>(copies, 1);
  return std::max<int64_t>(0, copies);
}

int64_t CopiesEverywhere(const Scene& scene, const Ask& ask) {
  int64_t copies = 0;
  for (const NodeReport& report : scene.nodes) {
    if (!report.reasons.empty()) continue;
    copies += CopiesOn(scene, report, ask);
    if (copies >= scene.unplaced) break;
  }
  return copies;
}

struct Knob {
  Resource resource;
  const char* name;
  const char* unit;
  int64_t least;
  int64_t Ask::*ask;  // null: in Amounts
  int64_t Amounts::*amount;
};
const Knob kKnobs[] = {
    {Resource::kMemory, "memory", " MB", kLeastMemoryMb, nullptr, &Amounts::memory_mb},
    {Resource::kCpu, "cpu", " MHz", kLeastCpuMhz, nullptr, &Amounts::cpu_mhz},
    {Resource::kCores, "cores", "", kLeastCores, &Ask::cores, nullptr},
    {Resource::kDisk, "ephemeral_disk.size", " MB", kLeastDiskMb, &Ask::disk_mb, nullptr},
};

int64_t& Value(const Knob& knob, Ask& ask) {
  return knob.ask != nullptr ? ask.*knob.ask : ask.amounts.*knob.amount;
}

// The largest value for which `enough` copies fit; 0: none does.
int64_t LargestThatFits(const Scene& scene, const Knob& knob, int64_t enough) {
  Ask ask = AskOf(scene.group);
  int64_t low = 0, high = Value(knob, ask);
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    Value(knob, ask) = middle;
    (CopiesEverywhere(scene, ask) >= enough ? low : high) = middle;
  }
  return low >= knob.least ? low : 0;
}

int64_t ValueOf(const Knob& knob, const Task& task) {
  if (knob.resource == Resource::kCores) return task.cores;
  if (knob.resource == Resource::kCpu && task.cores > 0) return 0;
  return knob.amount == nullptr ? 0 : task.amounts.*knob.amount;
}

// Lowers the group's ask to `value` at its largest task. False: that does not lower it.
bool Lower(const Scene& scene, const Knob& knob, int64_t value, JobChange& change,
           std::string& text) {
  Ask ask = AskOf(scene.group);
  const int64_t less = Value(knob, ask) - value;
  if (knob.resource == Resource::kDisk) {
    change.disk_mb = value;
    absl::StrAppend(&text, knob.name, " = ", value, " (now ", scene.group.disk_mb, ")");
    return true;
  }
  const Task* largest = nullptr;
  for (const Task& task : scene.group.tasks) {
    if (largest == nullptr || ValueOf(knob, task) > ValueOf(knob, *largest)) largest = &task;
  }
  if (largest == nullptr) return false;
  const int64_t lowered = ValueOf(knob, *largest) - less;
  if (lowered < knob.least) return false;
  Group changed = scene.group;
  for (Task& task : changed.tasks) {
    if (task.name != largest->name) continue;
    if (knob.resource == Resource::kCores)
      task.cores = lowered;
    else
      task.amounts.*knob.amount = lowered;
  }
  Ask after = AskOf(changed);
  if (Value(knob, after) > value) return false;
  JobChange::TaskChange& task = change.tasks[largest->name];
  if (knob.resource == Resource::kMemory) task.memory_mb = lowered;
  if (knob.resource == Resource::kCpu) task.cpu_mhz = lowered;
  if (knob.resource == Resource::kCores) task.cores = lowered;
  absl::StrAppend(&text, knob.name, " = ", lowered, " for task \"", largest->name, "\" (now ",
                  ValueOf(knob, *largest), ")");
  return true;
}

std::string SwapHint(const Scene& scene, const Knob& knob) {
  const std::optional<SchedulerSettings>& settings = scene.ledger.cluster().settings;
  if (knob.resource != Resource::kMemory || !settings || !settings->memory_oversubscription) {
    return "";
  }
  return "; memory_max may stay as high as it must, oversubscription is on";
}

void AskForLess(const Scene& scene, std::vector<Remedy>& remedies) {
  for (const Knob& knob : kKnobs) {
    Ask ask = AskOf(scene.group);
    if (Value(knob, ask) == 0) continue;
    int64_t enough = scene.unplaced;
    int64_t value = LargestThatFits(scene, knob, enough);
    if (value == 0 && scene.unplaced > 1) value = LargestThatFits(scene, knob, enough = 1);
    if (value == 0) continue;
    JobChange change{.group = scene.group.name};
    std::string text = "ask for less: ";
    if (!Lower(scene, knob, value, change, text)) continue;
    if (scene.unplaced > 1) {
      absl::StrAppend(&text,
                      enough > 1 ? absl::StrCat(": room for all ", enough) : ": room for one");
    }
    remedies.push_back(InTheJob(absl::StrCat(text, SwapHint(scene, knob)), std::move(change)));
  }
}

// Where one value alone does not do: all that the nearest node is short of.
void AskForLessOfAll(const Scene& scene, std::vector<Remedy>& remedies) {
  for (const NodeReport& report : scene.nodes) {
    if (report.standing != Standing::kNoRoom) continue;
    JobChange change{.group = scene.group.name};
    std::string text;
    for (const Figure& figure : report.figures) {
      if (figure.short_by == 0) continue;
      const Knob* knob = std::find_if(std::begin(kKnobs), std::end(kKnobs),
                                      [&](const Knob& k) { return k.resource == figure.resource; });
      if (knob == std::end(kKnobs) || figure.free < knob->least) return;
      // A core's MHz go with it.
      if (figure.resource == Resource::kCpu && AskOf(scene.group).cores > 0) continue;
      if (!text.empty()) text += " and ";
      if (!Lower(scene, *knob, figure.free, change, text)) return;
    }
    if (text.empty()) return;
    remedies.push_back(InTheJob(absl::StrCat("ask for less: ", text, ": room on ", report.name),
                                std::move(change)));
    return;
  }
}

// --- room on a node
// -------------------------------------------------------------------------------

struct Lack {
  const Figure* figure;
  int64_t left;
};

std::vector<Lack> Lacks(const NodeReport& report) {
  std::vector<Lack> lacks;
  for (const Figure& figure : report.figures) {
    if (figure.short_by > 0) lacks.push_back({&figure, figure.short_by});
  }
  return lacks;
}

bool Covered(const std::vector<Lack>& lacks) {
  return std::all_of(lacks.begin(), lacks.end(), [](const Lack& lack) { return lack.left <= 0; });
}

void Take(const Allocation& allocation, int sign, std::vector<Lack>& lacks) {
  for (Lack& lack : lacks) {
    lack.left -= sign * HeldOf(*lack.figure, allocation);
  }
}

// How much of what is lacking an allocation would free, each resource by its lack.
double Help(const Allocation& allocation, const std::vector<Lack>& lacks) {
  double help = 0;
  for (const Lack& lack : lacks) {
    if (lack.left <= 0) continue;
    const int64_t freed = HeldOf(*lack.figure, allocation);
    help += static_cast<double>(std::min(freed, lack.left)) / static_cast<double>(lack.left);
  }
  return help;
}

// A small set of allocations whose end makes room: the most helpful first, then none that is not
// needed. Empty: nothing does.
std::vector<const Allocation*> WhoseEndMakesRoom(
    const NodeReport& report, const Ledger& ledger,
    const std::function<bool(const Allocation&)>& wanted) {
  std::vector<const Allocation*> left, chosen;
  for (const Allocation* allocation : ledger.On(*ledger.Find(report.id)).allocations) {
    if (wanted(*allocation)) left.push_back(allocation);
  }
  std::vector<Lack> lacks = Lacks(report);
  while (!Covered(lacks)) {
    const auto best = std::max_element(
        left.begin(), left.end(), [&lacks](const Allocation* a, const Allocation* b) {
          // Of two that help equally the smaller one.
          return std::tuple(Help(*a, lacks), -a->holding.amounts.memory_mb) <
                 std::tuple(Help(*b, lacks), -b->holding.amounts.memory_mb);
        });
    if (best == left.end() || Help(**best, lacks) <= 0) return {};
    Take(**best, 1, lacks);
    chosen.push_back(*best);
    left.erase(best);
  }
  for (size_t i = 0; i < chosen.size();) {
    Take(*chosen[i], -1, lacks);
    if (Covered(lacks)) {
      chosen.erase(chosen.begin() + static_cast<ptrdiff_t>(i));
    } else {
      Take(*chosen[i++], 1, lacks);
    }
  }
  return chosen;
}

std::string Describe(const Allocation& allocation, const NodeReport& report) {
  std::vector<std::string> held;
  for (const Figure& figure : report.figures) {
    if (figure.short_by == 0) continue;
    held.push_back(absl::StrCat(HeldOf(figure, allocation), figure.unit.empty()
                                                                ? absl::StrCat(" ", figure.name)
                                                                : absl::StrCat(" ", figure.unit)));
  }
  return absl::StrCat(Short(allocation.id), " of job ", allocation.job, " (",
                      absl::StrJoin(held, ", "), ")");
}

// Those that were told to stop and still hold their share: nothing but patience is needed.
void WaitForStopping(const Scene& scene, std::vector<Remedy>& remedies) {
  for (const NodeReport& report : scene.nodes) {
    if (report.standing != Standing::kNoRoom) continue;
    const std::vector<const Allocation*> stopping =
        WhoseEndMakesRoom(report, scene.ledger, [](const Allocation& a) { return a.stopping(); });
    if (stopping.empty()) continue;
    std::vector<std::string> names;
    for (const Allocation* allocation : stopping) names.push_back(Describe(*allocation, report));
    remedies.push_back(OutsideTheJob(
        absl::StrCat("wait: on ", report.name,
                     " allocations that were told to stop still hold enough: ", Names(names))));
    return;
  }
}

void StopSomething(const Scene& scene, std::vector<Remedy>& remedies) {
  const NodeReport* where = nullptr;
  std::vector<const Allocation*> fewest;
  for (const NodeReport& report : scene.nodes) {
    if (report.standing != Standing::kNoRoom || !report.room_when_empty) continue;
    std::vector<const Allocation*> chosen =
        WhoseEndMakesRoom(report, scene.ledger, [&scene](const Allocation& allocation) {
          return allocation.job != scene.job.id || allocation.name_space != scene.job.name_space;
        });
    if (chosen.empty() || chosen.size() > kMostToStop) continue;
    if (where != nullptr && chosen.size() >= fewest.size()) continue;
    where = &report;
    fewest = std::move(chosen);
    // Nearest first: nothing better than one allocation comes later.
    if (fewest.size() == 1) break;
  }
  if (where == nullptr) return;
  std::vector<std::string> names;
  for (const Allocation* allocation : fewest) names.push_back(Describe(*allocation, *where));
  remedies.push_back(OutsideTheJob(absl::StrCat("make room on ", where->name, ": stop ",
                                                absl::StrJoin(names, " and "), ", or wait for ",
                                                fewest.size() == 1 ? "its" : "their", " end",
                                                scene.unplaced > 1 ? "; makes room for one" : "")));
}

// --- what keeps the group off nodes that have room -----------------------------------------------

// Nodes with room that only one thing keeps off, by that thing.
std::map<std::pair<Obstacle, std::string>, std::vector<const NodeReport*>> KeptOffByOneThing(
    const Scene& scene) {
  std::map<std::pair<Obstacle, std::string>, std::vector<const NodeReport*>> kept;
  for (const NodeReport& report : scene.nodes) {
    if (report.reasons.empty() || !report.room) continue;
    const Reason& first = report.reasons.front();
    const bool one =
        std::all_of(report.reasons.begin(), report.reasons.end(), [&first](const Reason& reason) {
          return reason.obstacle == first.obstacle && reason.subject == first.subject;
        });
    if (one) kept[{first.obstacle, first.subject}].push_back(&report);
  }
  return kept;
}

// Installed, but not well: an installed one that comes is an attribute that changes.
bool AnyUnhealthy(const Scene& scene, const std::vector<const NodeReport*>& reports,
                  const std::string& driver) {
  return std::any_of(reports.begin(), reports.end(), [&](const NodeReport* report) {
    const std::map<std::string, Driver>& drivers = scene.ledger.Find(report->id)->drivers;
    const auto found = drivers.find(driver);
    return found != drivers.end() && found->second.detected;
  });
}

void LiftObstacles(const Scene& scene, std::vector<Remedy>& remedies) {
  for (const auto& [what, reports] : KeptOffByOneThing(scene)) {
    const auto& [obstacle, subject] = what;
    std::vector<std::string> names;
    for (const NodeReport* report : reports) names.push_back(report->name);
    const std::string where = absl::StrCat("room on ", Names(names));
    JobChange change{.group = scene.group.name};
    switch (obstacle) {
      case Obstacle::kIneligible:
        remedies.push_back(OutsideTheJob(
            absl::StrCat("nomad node eligibility -enable ", Short(reports[0]->id), ": ", where)));
        break;
      case Obstacle::kDraining:
        remedies.push_back(OutsideTheJob(
            absl::StrCat("nomad node drain -disable ", Short(reports[0]->id), ": ", where)));
        break;
      case Obstacle::kDown:
        remedies.push_back(
            OutsideTheJob(absl::StrCat("bring back the node: status '", subject, "', ", where)));
        break;
      case Obstacle::kDatacenter:
        change.add_datacenter = subject;
        remedies.push_back(InTheJob(
            absl::StrCat("add \"", subject, "\" to the job's datacenters: ", where), change));
        break;
      case Obstacle::kPool:
        change.node_pool = subject;
        remedies.push_back(
            InTheJob(absl::StrCat("node_pool = \"", subject, "\": ", where), change));
        break;
      case Obstacle::kConstraint:
      case Obstacle::kDistinctHosts:
      case Obstacle::kDistinctProperty:
        change.drop_constraint = subject;
        remedies.push_back(
            InTheJob(absl::StrCat("without the constraint ", subject, ": ", where), change));
        break;
      case Obstacle::kDriver:
        remedies.push_back(OutsideTheJob(absl::StrCat(
            "make the driver ", subject, " healthy",
            AnyUnhealthy(scene, reports, subject)
                ? absl::StrCat(", then ", EvaluateCommand(scene.job.id, scene.job.name_space),
                               ", for its health alone does not make Nomad look again")
                : "",
            ": ", where, " (", reports[0]->reasons[0].text, ")")));
        break;
      case Obstacle::kDevices:
      case Obstacle::kNetwork:
      case Obstacle::kHostVolume:
        remedies.push_back(OutsideTheJob(
            absl::StrCat(reports[0]->name, " ", reports[0]->reasons[0].text, "; else ", where)));
        break;
    }
  }
}

// A static port that is all that is missing.
void MakePortDynamic(const Scene& scene, std::vector<Remedy>& remedies) {
  for (const NodeReport& report : scene.nodes) {
    if (report.standing != Standing::kNoRoom) continue;
    const std::vector<Lack> lacks = Lacks(report);
    if (lacks.size() != 1 || lacks[0].figure->resource != Resource::kStaticPort) continue;
    const std::string& name = lacks[0].figure->name;  // "port LABEL=VALUE"
    const std::string label = name.substr(5, name.rfind('=') - 5);
    JobChange change{.group = scene.group.name};
    change.dynamic_port = label;
    remedies.push_back(InTheJob(absl::StrCat("a dynamic port \"", label,
                                             "\" instead of the static one: room on ", report.name),
                                change));
    return;
  }
}

void RaiseMaxAllocations(const Scene& scene, std::vector<Remedy>& remedies) {
  for (const NodeReport& report : scene.nodes) {
    if (report.standing != Standing::kNoRoom) continue;
    const std::vector<Lack> lacks = Lacks(report);
    if (lacks.size() != 1 || lacks[0].figure->resource != Resource::kAllocations) continue;
    remedies.push_back(OutsideTheJob(
        absl::StrCat("node_max_allocs of ", report.name, " above ", lacks[0].figure->total)));
    return;
  }
}

void AskForFewer(const Scene& scene, std::vector<Remedy>& remedies) {
  const int64_t placed = scene.group.count - scene.unplaced;
  if (placed <= 0) return;
  JobChange change{.group = scene.group.name};
  change.count = placed;
  remedies.push_back(InTheJob(
      absl::StrCat("count = ", placed, " (now ", scene.group.count, "): that many are placed"),
      change));
}

void AddNode(const Scene& scene, std::vector<Remedy>& remedies) {
  const Ask ask = AskOf(scene.group);
  std::string text = absl::StrCat(
      "a further node with at least ",
      ask.cores > 0 ? absl::StrCat(ask.cores, " cores") : absl::StrCat(ask.amounts.cpu_mhz, " MHz"),
      ", ", ask.amounts.memory_mb, " MB of memory and ", ask.disk_mb,
      " MB of disk beside what client.reserved takes");
  if (scene.unplaced > 1) absl::StrAppend(&text, ", for each of ", scene.unplaced);
  remedies.push_back(OutsideTheJob(text));
}

}  // namespace

// Nomad notes with a waiting job which classes of nodes were unfit for it, and looks again when a
// node of another one registers or has room (nomad/blocked_evals.go, unblock). A class is made of
// attributes (structs/node_class.go): it stays the same when only a driver's health changes.
std::string EvaluateCommand(const std::string& job, const std::string& name_space,
                            const std::string& option) {
  return absl::StrCat("nomad job eval ",
                      name_space == "default" ? "" : absl::StrCat("-namespace=", name_space, " "),
                      option, option.empty() ? "" : " ", job);
}

std::vector<Remedy> FindRemedies(const Job& job, const Group& group,
                                 const std::vector<NodeReport>& nodes, int64_t unplaced,
                                 const Ledger& ledger) {
  const Scene scene{job,      group,  nodes,
                    unplaced, ledger, HasDistinctHosts(job) || HasDistinctHosts(group)};
  std::vector<Remedy> remedies;
  WaitForStopping(scene, remedies);
  LiftObstacles(scene, remedies);
  const size_t before = remedies.size();
  AskForLess(scene, remedies);
  if (remedies.size() == before) AskForLessOfAll(scene, remedies);
  MakePortDynamic(scene, remedies);
  StopSomething(scene, remedies);
  RaiseMaxAllocations(scene, remedies);
  AskForFewer(scene, remedies);
  if (remedies.size() >= kMaxRemedies) remedies.resize(kMaxRemedies - 1);
  AddNode(scene, remedies);
  return remedies;
}

// Nomad's plan of the job as it is tells whether looking again places it.
Remedy LookAgain(const Job& job, const Group& group) {
  return InTheJob(absl::StrCat(EvaluateCommand(job.id, job.name_space),
                               ": Nomad looks again at once; by itself it does when there is new "
                               "room, but not when only a driver became healthy"),
                  JobChange{.group = group.name});
}

}  // namespace jenkins_agent::nomad
