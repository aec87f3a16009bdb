// Reads from Nomad's API what an explanation needs, and says what the token may not see.
//
// One Reader a run; not thread-safe; `client` outlives it. Errors: those of client.h with the name
// of what was asked for ("nodes: Permission denied").
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/nomad/client.h"
#include "driver/nomad/explain.h"
#include "driver/nomad/state.h"

namespace jenkins_agent::nomad {

// Nodes beyond that many have their own page read only if Nomad would look at them at all.
inline constexpr size_t kSmallCluster = 200;
// Entries of one page of a list. Larger ones cost memory: a node takes 3 kB, with 128 cores 20.
// Smaller ones cost time, here one answer's way more, and on the server, which for each page goes
// through the list from its beginning (nomad/state/paginator, next): allocations take 1 kB and are
// many.
inline constexpr int kPageSize = 500;
inline constexpr int kAllocationsPerPage = 2500;

class Reader {
 public:
  explicit Reader(Client& client) : client_(client) {}

  // What `name` names: a job, or an evaluation by its id or a unique beginning of it. NotFound
  // names both.
  struct Subject {
    std::string job, name_space, evaluation;
  };
  absl::StatusOr<Subject> Find(const std::string& name);

  // The job with what Nomad said of it. `subject.evaluation` empty: the newest that tells.
  absl::StatusOr<Question> Ask(const Subject& subject, int64_t now_ns);

  // Adds the allocations that Nomad has given up, where they can be read.
  void AddGivenUp(Question& question);

  // Every job with a blocked evaluation in the namespaces that the token may read (or the one of
  // the environment), whose id begins with `prefix`.
  absl::StatusOr<std::vector<Subject>> Blocked(const std::string& prefix);

  // The nodes and what is held on them. Nodes' own pages are read where `jobs` need them.
  absl::StatusOr<Cluster> ReadCluster(const std::vector<Job>& jobs);

  // What is used now on the nodes and by the holders that are shown.
  void AddUse(size_t max_nodes, GroupExplanation& group);

  // PUT /v1/job/ID/plan with the given job: what Nomad's own scheduler would fail to place.
  absl::StatusOr<std::map<std::string, Metric>> Plan(const std::string& job_json, const Job& job);

  // The job as Nomad has it, for Plan().
  absl::StatusOr<std::string> JobJson(const Job& job);

  // What could not be seen so far, and what that means; each once.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  absl::StatusOr<std::vector<Evaluation>> Evaluations(const std::string& path, const Query& query);
  absl::Status ReadNodes(Cluster& cluster);
  absl::Status ReadAllocations(Cluster& cluster);
  void ReadLimits(Cluster& cluster);
  absl::Status ReadDetails(const std::vector<Job>& jobs, Cluster& cluster);
  void ReadSettings(Cluster& cluster);
  void CheckVisibility();
  void Warn(const std::string& text);

  Client& client_;
  std::vector<std::string> warnings_;
};

}  // namespace jenkins_agent::nomad
