#include "driver/tools/explain.h"

#include <stdlib.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "driver/base/text_table.h"
#include "driver/nomad/client.h"
#include "driver/nomad/demand.h"
#include "driver/nomad/environment.h"
#include "driver/nomad/explain.h"
#include "driver/nomad/plan_check.h"
#include "driver/nomad/print.h"
#include "driver/nomad/reader.h"

namespace jenkins_agent {
namespace {

using nomad::Cluster;
using nomad::Explanation;
using nomad::GroupExplanation;
using nomad::Ledger;
using nomad::Question;
using nomad::Reader;

constexpr int kNothingWaits = 0;
constexpr int kError = 1;
constexpr int kWaits = 2;

// Changes come in bursts: --watch looks again when none came for the first time, but no later than
// after the second.
constexpr std::chrono::milliseconds kQuiet{500};
constexpr std::chrono::seconds kLongestBurst{5};

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// What one look gives: the text to print, and the same without what changes by time alone.
struct Look {
  std::string text;
  std::string steady;
  bool waits = false;
};

std::string Steady(Explanation explanation) {
  explanation.evaluation_age_seconds = 0;
  for (GroupExplanation& group : explanation.groups) {
    for (nomad::Holder& holder : group.holders) {
      holder.age_seconds = 0;
      holder.in_use.reset();
    }
    for (nomad::NodeReport& node : group.nodes) {
      for (nomad::Figure& figure : node.figures) figure.in_use.reset();
    }
  }
  return nomad::ExplanationText(explanation, {});
}

absl::StatusOr<Look> LookAtOne(const ExplainOptions& options, nomad::Client& client) {
  Reader reader(client);
  ASSIGN_OR_RETURN(const Reader::Subject subject, reader.Find(options.subject));
  ASSIGN_OR_RETURN(Question question, reader.Ask(subject, NowNs()));
  reader.AddGivenUp(question);
  ASSIGN_OR_RETURN(const Cluster cluster, reader.ReadCluster({question.job}));
  Explanation explanation = nomad::Explain(question, Ledger(cluster));
  const nomad::TextOptions text{.terminal = ::isatty(STDOUT_FILENO) == 1, .width = OutputWidth()};
  for (GroupExplanation& group : explanation.groups) {
    if (group.verdict == nomad::Verdict::kPlaced) continue;
    reader.AddUse(text.max_nodes, group);
    nomad::CheckRemedies(question.job, reader, group);
  }
  explanation.warnings = reader.warnings();
  return Look{.text = options.json ? nomad::ExplanationJson(explanation)
                                   : nomad::ExplanationText(explanation, text),
              .steady = Steady(explanation),
              .waits = explanation.blocked()};
}

absl::StatusOr<Look> LookAtAll(const ExplainOptions& options, nomad::Client& client) {
  Reader reader(client);
  ASSIGN_OR_RETURN(const std::vector<Reader::Subject> subjects, reader.Blocked(options.prefix));
  std::vector<Question> questions;
  std::vector<nomad::Job> jobs;
  for (const Reader::Subject& subject : subjects) {
    absl::StatusOr<Question> question = reader.Ask(subject, NowNs());
    // A job that was purged since the list was read waits no longer.
    if (absl::IsNotFound(question.status())) continue;
    RETURN_IF_ERROR(question.status());
    jobs.push_back(question->job);
    questions.push_back(*std::move(question));
  }
  Cluster cluster;
  if (!jobs.empty()) {
    ASSIGN_OR_RETURN(cluster, reader.ReadCluster(jobs));
  }
  const Ledger ledger(cluster);
  std::vector<Explanation> explanations;
  for (const Question& question : questions) {
    Explanation explanation = nomad::Explain(question, ledger);
    // Of thousands of nodes the sum needs the nearest one only.
    for (GroupExplanation& group : explanation.groups) {
      if (group.nodes.size() > 1) group.nodes.erase(group.nodes.begin() + 1, group.nodes.end());
    }
    explanations.push_back(std::move(explanation));
  }
  nomad::Demand demand = nomad::SumDemand(explanations, jobs, cluster);
  demand.warnings = reader.warnings();
  Look look{.text = options.json ? nomad::DemandJson(demand) : nomad::DemandText(demand),
            .steady = "",
            .waits = demand.unplaced > 0};
  for (nomad::WaitingGroup& group : demand.waiting) group.waiting_seconds = 0;
  look.steady = nomad::DemandText(demand);
  return look;
}

absl::StatusOr<Look> LookOnce(const ExplainOptions& options, nomad::Client& client) {
  return options.all_blocked ? LookAtAll(options, client) : LookAtOne(options, client);
}

// Looks again whenever something of the cluster changed, until nothing waits.
class Watch {
 public:
  Watch(const ExplainOptions& options, nomad::Client& stream, nomad::Client& client)
      : options_(options), stream_(stream), client_(client) {}

  absl::Status Run() {
    const std::string& name_space = stream_.endpoint().name_space;
    nomad::Query query = {{"topic", "Node"}, {"topic", "Allocation"}, {"topic", "Evaluation"}};
    if (options_.all_blocked && name_space.empty()) query.emplace_back("namespace", "*");
    const absl::Status status = stream_.Stream(
        "/v1/event/stream", query, kQuiet,
        [this](absl::string_view line) {
          // "{}" is a sign of life.
          if (line.size() > 2) Note();
          return changed_ && std::chrono::steady_clock::now() - since_ > kLongestBurst
                     ? LookAgain()
                     : absl::OkStatus();
        },
        [this] { return changed_ ? LookAgain() : absl::OkStatus(); });
    if (done_) return absl::OkStatus();
    return Annotate(status, "event stream");
  }

 private:
  void Note() {
    if (!changed_) since_ = std::chrono::steady_clock::now();
    changed_ = true;
  }

  absl::Status LookAgain() {
    changed_ = false;
    ASSIGN_OR_RETURN(const Look look, LookOnce(options_, client_));
    if (look.steady != last_) std::cout << look.text << std::flush;
    last_ = look.steady;
    if (look.waits) return absl::OkStatus();
    done_ = true;
    return absl::CancelledError("nothing waits");  // ends the stream
  }

  const ExplainOptions& options_;
  nomad::Client& stream_;  // its thread of requests is taken by the stream
  nomad::Client& client_;
  bool changed_ = true;  // the first look comes once the stream stands, so that nothing is missed
  std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
  std::string last_;
  bool done_ = false;
};

absl::StatusOr<bool> SomethingWaits(const ExplainOptions& options) {
  ASSIGN_OR_RETURN(const nomad::Endpoint endpoint,
                   nomad::EndpointFromEnvironment([](const char* name) -> std::string {
                     const char* value = ::getenv(name);
                     return value == nullptr ? "" : value;
                   }));
  ASSIGN_OR_RETURN(const std::unique_ptr<nomad::Client> client, nomad::Client::Create(endpoint));
  if (!options.watch) {
    ASSIGN_OR_RETURN(const Look look, LookOnce(options, *client), "Nomad at ", endpoint.shown);
    std::cout << look.text << std::flush;
    return look.waits;
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<nomad::Client> stream, nomad::Client::Create(endpoint));
  RETURN_IF_ERROR(Watch(options, *stream, *client).Run(), "Nomad at ", endpoint.shown);
  return false;
}

}  // namespace

CLI::App* AddExplain(CLI::App& app, ExplainOptions& options) {
  CLI::App* command = app.add_subcommand("explain",
                                         "Why is a job not placed? Asks Nomad (NOMAD_ADDR, "
                                         "NOMAD_TOKEN, ... as for the nomad command).\n"
                                         "Exit code: 0 nothing waits, 2 something waits, 1 error");
  auto* subject = command->add_option("job", options.subject, "A job, or an evaluation's id");
  auto* all = command->add_flag("--all-blocked", options.all_blocked,
                                "Everything that waits, summed, and how many more nodes it takes");
  auto* prefix = command->add_option("--prefix", options.prefix,
                                     "With --all-blocked: only jobs whose id begins so");
  prefix->needs(all);
  all->excludes(subject);
  command->add_flag("--watch", options.watch, "Again after each change, until nothing waits");
  command->add_flag("--json", options.json, "For programs: every node and number");
  command->callback([&options] {
    if (options.subject.empty() && !options.all_blocked) {
      throw CLI::RequiredError("a job, an evaluation or --all-blocked");
    }
  });
  return command;
}

int RunExplain(const ExplainOptions& options) {
  const absl::StatusOr<bool> waits = SomethingWaits(options);
  if (waits.ok()) return *waits ? kWaits : kNothingWaits;
  std::cerr << "nomad-driver-jenkins-agent explain: " << waits.status().message() << std::endl;
  return kError;
}

}  // namespace jenkins_agent
