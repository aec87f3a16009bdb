#include "driver/nomad/explain.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "driver/nomad/constraint.h"
#include "driver/nomad/metric.h"
#include "driver/nomad/remedies.h"

namespace jenkins_agent::nomad {
namespace {

constexpr size_t kMaxHolders = 10;       // of one group
constexpr size_t kNodesWithHolders = 2;  // the nearest ones
constexpr int64_t kNsPerSecond = 1'000'000'000;

std::vector<Figure> AskFigures(const Group& group) {
  const Ask ask = AskOf(group);
  std::vector<Figure> figures;
  const auto add = [&figures](Resource resource, std::string name, std::string unit,
                              int64_t asked) {
    Figure figure;
    figure.resource = resource;
    figure.name = std::move(name);
    figure.unit = std::move(unit);
    figure.asked = asked;
    figures.push_back(std::move(figure));
  };
  if (ask.cores > 0) add(Resource::kCores, "cores", "", ask.cores);
  if (ask.amounts.cpu_mhz > 0) add(Resource::kCpu, "cpu", "MHz", ask.amounts.cpu_mhz);
  add(Resource::kMemory, "memory", "MB", ask.amounts.memory_mb);
  if (ask.amounts.memory_max_mb > ask.amounts.memory_mb) {
    add(Resource::kMemoryMax, "memory_max", "MB", ask.amounts.memory_max_mb);
  }
  add(Resource::kDisk, "disk", "MB", ask.disk_mb);
  for (const Port& port : group.static_ports) {
    add(Resource::kStaticPort, absl::StrCat("port ", port.label, "=", port.value), "", 1);
  }
  if (ask.dynamic_ports > 0) add(Resource::kDynamicPorts, "dynamic ports", "", ask.dynamic_ports);
  for (const Task& task : group.tasks) {
    for (const DeviceAsk& device : task.devices) {
      add(Resource::kDevice, absl::StrCat("device ", device.name), "", device.count);
    }
  }
  return figures;
}

// Nodes with room, nearest without, filtered, left out; by name among equals.
void SortNearestFirst(std::vector<NodeReport>& nodes) {
  std::stable_sort(nodes.begin(), nodes.end(), [](const NodeReport& a, const NodeReport& b) {
    return std::tuple(a.standing, a.distance, a.name) < std::tuple(b.standing, b.distance, b.name);
  });
}

Verdict Judge(const std::vector<NodeReport>& nodes) {
  bool candidate = false, ever = false;
  for (const NodeReport& node : nodes) {
    if (node.standing == Standing::kFits) return Verdict::kFitsNow;
    if (node.standing != Standing::kNoRoom) continue;
    candidate = true;
    ever = ever || node.room_when_empty;
  }
  if (!candidate) return Verdict::kNoCandidate;
  return ever ? Verdict::kNoRoom : Verdict::kNeverFits;
}

std::vector<Holder> FindHolders(const std::vector<NodeReport>& nodes, const Ledger& ledger,
                                int64_t now_ns) {
  std::vector<Holder> holders;
  size_t looked_at = 0;
  for (const NodeReport& report : nodes) {
    if (report.standing != Standing::kNoRoom || looked_at++ == kNodesWithHolders) break;
    std::vector<Holder> here;
    for (const Figure& figure : report.figures) {
      if (figure.short_by == 0) continue;
      for (const Allocation* allocation : ledger.On(*ledger.Find(report.id)).allocations) {
        Holder holder{.allocation = allocation->id,
                      .job = allocation->job,
                      .name_space = allocation->name_space,
                      .group = allocation->group,
                      .node = report.name,
                      .client_status = allocation->client_status,
                      .resource = figure.resource,
                      .unit = figure.unit,
                      .amount = HeldOf(figure, *allocation),
                      .age_seconds = (now_ns - allocation->create_time) / kNsPerSecond,
                      .stopping = allocation->stopping(),
                      .in_use = std::nullopt};
        if (holder.amount > 0) here.push_back(std::move(holder));
      }
    }
    std::stable_sort(here.begin(), here.end(), [](const Holder& a, const Holder& b) {
      return std::tuple(a.resource, -a.amount, a.job) < std::tuple(b.resource, -b.amount, b.job);
    });
    const size_t room = std::min(here.size(), kMaxHolders / kNodesWithHolders);
    holders.insert(holders.end(), here.begin(), here.begin() + static_cast<ptrdiff_t>(room));
  }
  return holders;
}

std::vector<std::string> Notes(const Job& job, const Group& group, const Ledger& ledger) {
  std::vector<std::string> notes;
  for (const std::string& what : group.unchecked) {
    notes.push_back(absl::StrCat(what, " are checked by Nomad, not here"));
  }
  if (job.type == "system" || job.type == "sysbatch") {
    notes.push_back(absl::StrCat("a ", job.type,
                                 " job wants one on each node; nodes that have theirs are not "
                                 "told apart here"));
  }
  const std::optional<SchedulerSettings>& settings = ledger.cluster().settings;
  const Ask ask = AskOf(group);
  if (settings && ask.amounts.memory_max_mb > ask.amounts.memory_mb) {
    notes.push_back(settings->memory_oversubscription
                        ? "memory_max counts for nothing in placement"
                        : "memory_max has no effect: memory oversubscription is off in Nomad's "
                          "scheduler configuration");
  }
  if (settings && settings->preemption.count(job.type) > 0) {
    notes.push_back(absl::StrCat("preemption is on for ", job.type,
                                 " jobs: Nomad may push out allocations of lower priority, which "
                                 "is not counted here"));
  }
  return notes;
}

int64_t Unplaced(const Question& question, const std::string& group) {
  if (question.job.stopped) return 0;
  if (const auto queued = question.queued.find(group); queued != question.queued.end()) {
    return queued->second;
  }
  if (!question.evaluation) return 0;
  const auto failed = question.evaluation->failed.find(group);
  return failed == question.evaluation->failed.end() ? 0 : failed->second.coalesced_failures + 1;
}

GroupExplanation ExplainGroup(const Question& question, const Group& group, const Ledger& ledger) {
  GroupExplanation explanation;
  explanation.group = group.name;
  explanation.count = group.count;
  explanation.unplaced = Unplaced(question, group.name);
  if (const auto failed = question.given_up.find(group.name); failed != question.given_up.end()) {
    explanation.given_up = failed->second;
    explanation.reschedules = group.reschedules;
  }
  if (explanation.unplaced == 0) return explanation;
  if (question.evaluation) {
    const auto failed = question.evaluation->failed.find(group.name);
    if (failed != question.evaluation->failed.end()) {
      explanation.nomad_then = failed->second;
      explanation.has_nomad_then = true;
    }
  }
  explanation.ask = AskFigures(group);
  for (const Node& node : ledger.cluster().nodes) {
    explanation.nodes.push_back(AssessNode(question.job, group, node, ledger));
  }
  SortNearestFirst(explanation.nodes);
  explanation.verdict = Judge(explanation.nodes);
  explanation.nomad_now = CountAsNomad(explanation.nodes, explanation.unplaced);
  explanation.holders = FindHolders(explanation.nodes, ledger, question.now_ns);
  explanation.notes = Notes(question.job, group, ledger);
  if (explanation.verdict == Verdict::kFitsNow) {
    explanation.remedies = {LookAgain(question.job, group)};
  } else {
    explanation.remedies =
        FindRemedies(question.job, group, explanation.nodes, explanation.unplaced, ledger);
  }
  return explanation;
}

}  // namespace

std::optional<Evaluation> PickEvaluation(const Job& job,
                                         const std::vector<Evaluation>& evaluations) {
  const Evaluation* newest = nullptr;
  for (const Evaluation& evaluation : evaluations) {
    if (evaluation.job != job.id || evaluation.name_space != job.name_space) continue;
    if (evaluation.failed.empty() || evaluation.status == "canceled") continue;
    const auto rank = [](const Evaluation& e) {
      return std::tuple(e.status == "blocked", e.create_index);
    };
    if (newest == nullptr || rank(evaluation) > rank(*newest)) newest = &evaluation;
  }
  return newest == nullptr ? std::nullopt : std::optional<Evaluation>(*newest);
}

Explanation Explain(const Question& question, const Ledger& ledger) {
  Explanation explanation;
  explanation.job = question.job.id;
  explanation.name_space = question.job.name_space;
  explanation.job_type = question.job.type;
  explanation.job_status = question.job.status;
  if (question.evaluation) {
    explanation.evaluation = question.evaluation->id;
    explanation.evaluation_status = question.evaluation->status;
    explanation.evaluation_age_seconds =
        (question.now_ns - question.evaluation->modify_time) / kNsPerSecond;
  }
  for (const Group& group : question.job.groups) {
    explanation.groups.push_back(ExplainGroup(question, group, ledger));
  }
  return explanation;
}

bool NeedsNodeDetails(const Job& job) {
  const auto about_node = [](const std::vector<Constraint>& constraints) {
    return std::any_of(constraints.begin(), constraints.end(), [](const Constraint& constraint) {
      return NeedsDetails(constraint.left) || NeedsDetails(constraint.right);
    });
  };
  if (about_node(job.constraints)) return true;
  for (const Group& group : job.groups) {
    if (about_node(group.constraints)) return true;
    for (const Task& task : group.tasks) {
      if (about_node(task.constraints)) return true;
    }
    for (const std::vector<Port>* ports : {&group.static_ports, &group.dynamic_ports}) {
      for (const Port& port : *ports) {
        if (NeedsDetails(port.host_network)) return true;
      }
    }
  }
  return false;
}

void AddUse(const std::map<std::string, NodeUse>& nodes,
            const std::map<std::string, NodeUse>& allocations, GroupExplanation& group) {
  const auto of = [](const NodeUse& use, Resource resource) -> std::optional<int64_t> {
    if (resource == Resource::kCpu) return use.cpu_mhz;
    if (resource == Resource::kMemory) return use.memory_mb;
    if (resource == Resource::kDisk) return use.disk_mb;
    return std::nullopt;
  };
  for (NodeReport& node : group.nodes) {
    const auto use = nodes.find(node.id);
    if (use == nodes.end()) continue;
    for (Figure& figure : node.figures) figure.in_use = of(use->second, figure.resource);
  }
  for (Holder& holder : group.holders) {
    const auto use = allocations.find(holder.allocation);
    if (use != allocations.end()) holder.in_use = of(use->second, holder.resource);
  }
}

}  // namespace jenkins_agent::nomad
