#include "driver/nomad/reader.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "driver/nomad/json.h"

namespace jenkins_agent::nomad {
namespace {

std::string JobPath(const std::string& job, const std::string& name_space,
                    absl::string_view what = "") {
  return absl::StrCat("/v1/job/", Escape(job), std::string(what),
                      "?namespace=", Escape(name_space));
}

std::string NameSpaceOf(const Client& client) {
  const std::string& name_space = client.endpoint().name_space;
  return name_space.empty() ? "default" : name_space;
}

// What takes a list's pages: each parsed, its entries behind those of the pages before.
template <typename Entry>
auto AppendTo(std::vector<Entry>& all,
              absl::StatusOr<std::vector<Entry>> (*parse)(absl::string_view)) {
  return [&all, parse](const std::string& body) {
    ASSIGN_OR_RETURN(std::vector<Entry> page, parse(body));
    std::move(page.begin(), page.end(), std::back_inserter(all));
    return absl::OkStatus();
  };
}

bool LooksLikeId(const std::string& text) {
  return text.size() >= 4 && text.size() <= 36 && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isxdigit(static_cast<unsigned char>(c)) || c == '-';
         });
}

// Would Nomad look at this node for this job at all?
bool IsCandidate(const Job& job, const Node& node) {
  return node.status == "ready" && !node.drain && node.eligible &&
         (job.node_pool == "all" || job.node_pool == node.pool);
}

}  // namespace

void Reader::Warn(const std::string& text) {
  if (std::find(warnings_.begin(), warnings_.end(), text) == warnings_.end()) {
    warnings_.push_back(text);
  }
}

absl::StatusOr<std::vector<Evaluation>> Reader::Evaluations(const std::string& path,
                                                            const Query& query) {
  std::vector<Evaluation> all;
  const absl::Status status =
      client_.GetPages(path, query, kPageSize, AppendTo(all, &ParseEvaluations));
  RETURN_IF_ERROR(status, absl::IsPermissionDenied(status)
                              ? "evaluations (the token needs read-job)"
                              : "evaluations");
  return all;
}

absl::StatusOr<Reader::Subject> Reader::Find(const std::string& name) {
  const std::string name_space = NameSpaceOf(client_);
  const absl::StatusOr<Answer> job = client_.Get(JobPath(name, name_space), {});
  if (job.ok()) return Subject{name, name_space, ""};
  if (absl::IsPermissionDenied(job.status())) {
    return Annotate(
        job.status(),
        absl::StrCat("job ", name, " (the token needs read-job in namespace ", name_space, ")"));
  }
  if (!absl::IsNotFound(job.status())) return Annotate(job.status(), absl::StrCat("job ", name));
  if (LooksLikeId(name)) {
    ASSIGN_OR_RETURN(std::vector<Evaluation> found,
                     Evaluations("/v1/evaluations",
                                 {{"prefix", absl::AsciiStrToLower(name)}, {"namespace", "*"}}));
    if (found.size() == 1) return Subject{found[0].job, found[0].name_space, found[0].id};
    if (found.size() > 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(found.size(), " evaluations begin with ", name, ": give more of the id"));
    }
  }
  return absl::NotFoundError(absl::StrCat("there is no job and no evaluation '", name,
                                          "' in namespace ", name_space,
                                          " (NOMAD_NAMESPACE chooses another)"));
}

absl::StatusOr<std::string> Reader::JobJson(const Job& job) {
  ASSIGN_OR_RETURN(Answer answer, client_.Get(JobPath(job.id, job.name_space), {}), "job ", job.id);
  return std::move(answer.body);
}

absl::StatusOr<Question> Reader::Ask(const Subject& subject, int64_t now_ns) {
  Question question;
  question.now_ns = now_ns;
  const auto path = [&subject](absl::string_view what) {
    return JobPath(subject.job, subject.name_space, what);
  };
  ASSIGN_OR_RETURN(const Answer job, client_.Get(path(""), {}), "job ", subject.job);
  ASSIGN_OR_RETURN(question.job, ParseJob(job.body), "job ", subject.job);
  ASSIGN_OR_RETURN(const Answer evaluations, client_.Get(path("/evaluations"), {}),
                   "evaluations of ", subject.job);
  ASSIGN_OR_RETURN(std::vector<Evaluation> all, ParseEvaluations(evaluations.body),
                   "evaluations of ", subject.job);
  ASSIGN_OR_RETURN(const Answer summary, client_.Get(path("/summary"), {}), "summary of ",
                   subject.job);
  ASSIGN_OR_RETURN(question.queued, ParseQueued(summary.body), "summary of ", subject.job);
  if (!subject.evaluation.empty()) {
    std::erase_if(all, [&subject](const Evaluation& e) { return e.id != subject.evaluation; });
  }
  question.evaluation = PickEvaluation(question.job, all);
  return question;
}

void Reader::AddGivenUp(Question& question) {
  const Job& job = question.job;
  if (job.stopped) return;
  const absl::StatusOr<Answer> answer =
      client_.Get(JobPath(job.id, job.name_space, "/allocations"), {});
  if (!answer.ok()) return;
  if (auto given_up = ParseGivenUp(answer->body, job.version); given_up.ok()) {
    question.given_up = *std::move(given_up);
  }
}

absl::StatusOr<std::vector<Reader::Subject>> Reader::Blocked(const std::string& prefix) {
  const std::string& name_space = client_.endpoint().name_space;
  ASSIGN_OR_RETURN(
      const std::vector<Evaluation> evaluations,
      Evaluations("/v1/evaluations",
                  {{"status", "blocked"}, {"namespace", name_space.empty() ? "*" : name_space}}));
  std::set<std::pair<std::string, std::string>> jobs;
  for (const Evaluation& evaluation : evaluations) {
    if (evaluation.job.rfind(prefix, 0) == 0) jobs.emplace(evaluation.name_space, evaluation.job);
  }
  std::vector<Subject> subjects;
  for (const auto& [space, job] : jobs) subjects.push_back({job, space, ""});
  return subjects;
}

absl::Status Reader::ReadNodes(Cluster& cluster) {
  return Annotate(client_.GetPages("/v1/nodes", {{"resources", "true"}}, kPageSize,
                                   AppendTo(cluster.nodes, &ParseNodes)),
                  "nodes (the token needs node:read)");
}

absl::Status Reader::ReadAllocations(Cluster& cluster) {
  return Annotate(
      client_.GetPages("/v1/allocations",
                       {{"resources", "true"}, {"task_states", "false"}, {"namespace", "*"}},
                       kAllocationsPerPage, AppendTo(cluster.allocations, &ParseAllocations)),
      "allocations");
}

// node_max_allocs stands on a node's own page only; the filter finds those that have one.
void Reader::ReadLimits(Cluster& cluster) {
  const absl::StatusOr<Answer> answer =
      client_.Get("/v1/nodes", {{"filter", "NodeMaxAllocs != 0"}});
  if (!answer.ok()) return;  // a Nomad without node_max_allocs does not know the field
  const absl::StatusOr<std::vector<Node>> limited = ParseNodes(answer->body);
  if (!limited.ok()) return;
  std::set<std::string> ids;
  for (const Node& node : *limited) ids.insert(node.id);
  std::vector<Node*> nodes;
  std::vector<std::string> paths;
  for (Node& node : cluster.nodes) {
    if (ids.count(node.id) == 0) continue;
    nodes.push_back(&node);
    paths.push_back(absl::StrCat("/v1/node/", Escape(node.id)));
  }
  const std::vector<absl::StatusOr<Answer>> answers = client_.GetAll(paths);
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (!answers[i].ok() || !AddNodeDetails(answers[i]->body, *nodes[i]).ok()) {
      Warn("node_max_allocs of some nodes");
    }
  }
}

absl::Status Reader::ReadDetails(const std::vector<Job>& jobs, Cluster& cluster) {
  std::vector<Node*> nodes;
  std::vector<std::string> paths;
  for (Node& node : cluster.nodes) {
    const bool wanted = std::any_of(jobs.begin(), jobs.end(), [&](const Job& job) {
      return NeedsNodeDetails(job) &&
             (cluster.nodes.size() <= kSmallCluster || IsCandidate(job, node));
    });
    if (!wanted || node.has_details) continue;
    nodes.push_back(&node);
    paths.push_back(absl::StrCat("/v1/node/", Escape(node.id)));
  }
  const std::vector<absl::StatusOr<Answer>> answers = client_.GetAll(paths);
  for (size_t i = 0; i < nodes.size(); ++i) {
    // A node that was removed since the list was read is none.
    if (absl::IsNotFound(answers[i].status())) continue;
    RETURN_IF_ERROR(answers[i].status(), "node ", nodes[i]->name);
    RETURN_IF_ERROR(AddNodeDetails(answers[i]->body, *nodes[i]), "node ", nodes[i]->name);
  }
  return absl::OkStatus();
}

void Reader::ReadSettings(Cluster& cluster) {
  const absl::StatusOr<Answer> answer = client_.Get("/v1/operator/scheduler/configuration", {});
  if (answer.ok()) {
    if (auto settings = ParseSettings(answer->body); settings.ok()) cluster.settings = *settings;
  }
  if (!cluster.settings) {
    Warn(absl::StrCat("the scheduler's configuration (",
                      answer.ok() ? "not understood" : std::string(answer.status().message()),
                      "; operator:read): whether memory_max and preemption count is not known"));
  }
}

// Nomad leaves out allocations of namespaces that the token may not read without a word. Complete
// is what a management token sees, a policy for every namespace, and a cluster without ACLs.
void Reader::CheckVisibility() {
  // 400 "ACL support disabled"; token/self does not tell it from a token that is unknown.
  if (absl::IsInvalidArgument(client_.Get("/v1/acl/policies", {}).status())) return;
  if (const absl::StatusOr<Answer> self = client_.Get("/v1/acl/token/self", {}); self.ok()) {
    const absl::StatusOr<TokenFacts> token = ParseToken(self->body);
    if (token.ok() && token->management) return;
    if (token.ok()) {
      for (const std::string& policy : token->policies) {
        const absl::StatusOr<Answer> answer =
            client_.Get(absl::StrCat("/v1/acl/policy/", Escape(policy)), {});
        if (answer.ok() && PolicyReadsEveryNamespace(answer->body).value_or(false)) return;
      }
    }
  }
  Warn(
      "allocations of namespaces that the token may not read: what they hold is missing under "
      "'Allocated', so 'Free' is the most that there can be (a policy with namespace \"*\" and "
      "read-job shows all)");
}

absl::StatusOr<Cluster> Reader::ReadCluster(const std::vector<Job>& jobs) {
  Cluster cluster;
  RETURN_IF_ERROR(ReadNodes(cluster));
  RETURN_IF_ERROR(ReadAllocations(cluster));
  ReadLimits(cluster);
  RETURN_IF_ERROR(ReadDetails(jobs, cluster));
  ReadSettings(cluster);
  CheckVisibility();
  return cluster;
}

void Reader::AddUse(size_t max_nodes, GroupExplanation& group) {
  std::vector<std::string> paths, node_ids, allocation_ids;
  for (const NodeReport& node : group.nodes) {
    if (node_ids.size() == max_nodes) break;
    if (node.standing != Standing::kFits && node.standing != Standing::kNoRoom) continue;
    node_ids.push_back(node.id);
    paths.push_back(absl::StrCat("/v1/client/stats?node_id=", Escape(node.id)));
  }
  for (const Holder& holder : group.holders) {
    allocation_ids.push_back(holder.allocation);
    paths.push_back(absl::StrCat("/v1/client/allocation/", Escape(holder.allocation),
                                 "/stats?namespace=", Escape(holder.name_space)));
  }
  // A client that cannot be reached, or a task that has just ended, has no measurement.
  const std::vector<absl::StatusOr<Answer>> answers = client_.GetAll(paths);
  std::map<std::string, NodeUse> nodes, allocations;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (!answers[i].ok()) continue;
    const bool of_node = i < node_ids.size();
    const absl::StatusOr<NodeUse> use =
        of_node ? ParseHostStats(answers[i]->body) : ParseAllocationStats(answers[i]->body);
    if (!use.ok()) continue;
    if (of_node)
      nodes[node_ids[i]] = *use;
    else
      allocations[allocation_ids[i - node_ids.size()]] = *use;
  }
  nomad::AddUse(nodes, allocations, group);
}

absl::StatusOr<std::map<std::string, Metric>> Reader::Plan(const std::string& job_json,
                                                           const Job& job) {
  ASSIGN_OR_RETURN(const Answer answer,
                   client_.Put(JobPath(job.id, job.name_space, "/plan"), job_json));
  return ParsePlan(answer.body);
}

}  // namespace jenkins_agent::nomad
