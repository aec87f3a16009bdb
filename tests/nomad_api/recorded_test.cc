// Every case that was recorded from a real Nomad (tests/data/placement): what it counted is counted
// here too, its text is printed as it prints it, and the whole explanation is as in
// golden/CASE.txt.
//
// UPDATE_GOLDEN=1 writes the golden files anew; look at the difference before you commit it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/nomad/demand.h"
#include "driver/nomad/explain.h"
#include "driver/nomad/json.h"
#include "driver/nomad/metric.h"
#include "driver/nomad/print.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent::nomad {
namespace {

const std::string kDir = RECORDED_DIR;
constexpr int64_t kMinuteNs = 60'000'000'000;

std::string Read(const std::string& name) {
  std::ifstream file(absl::StrCat(kDir, "/", name));
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

bool Exists(const std::string& name) { return std::ifstream(absl::StrCat(kDir, "/", name)).good(); }

// The state at the moment of a case. The list of nodes has no attributes: all three had node-a's.
Cluster StateOf(const std::string& name) {
  Cluster cluster;
  std::string nodes = absl::StrCat("cases/", name, "/nodes.json");
  if (!Exists(nodes)) nodes = "cluster/nodes.json";
  if (name == "class-ineligible") nodes = "cluster/nodes-same-class.json";
  cluster.nodes = ParseNodes(Read(nodes)).value();
  for (Node& node : cluster.nodes) {
    EXPECT_TRUE(AddNodeDetails(Read("cluster/node-a.json"), node).ok());
  }
  cluster.allocations = ParseAllocations(Read("cluster/allocations.json")).value();
  // Those that the case itself had placed when the rest of it failed.
  const auto after = ParseAllocations(Read("cluster/allocations-after.json"));
  for (const Allocation& allocation : after.value()) {
    if (allocation.job == absl::StrCat("ask-", name) && name != "no-node-eligible") {
      cluster.allocations.push_back(allocation);
    }
  }
  cluster.settings = ParseSettings(Read("cluster/scheduler-configuration.json")).value();
  return cluster;
}

Question QuestionOf(const std::string& name) {
  const std::string dir = absl::StrCat("cases/", name, "/");
  Question question;
  question.job = ParseJob(Read(dir + "job.json")).value();
  question.evaluation =
      PickEvaluation(question.job, ParseEvaluations(Read(dir + "evaluations.json")).value());
  question.queued = ParseQueued(Read(dir + "summary.json")).value();
  if (question.evaluation) question.now_ns = question.evaluation->modify_time + 3 * kMinuteNs;
  return question;
}

class Recorded : public ::testing::TestWithParam<const char*> {};

TEST_P(Recorded, WaitsInTheNumberThatNomadQueued) {
  const Question question = QuestionOf(GetParam());
  ASSERT_TRUE(question.evaluation.has_value());
  const Cluster cluster = StateOf(GetParam());
  const Explanation explanation = Explain(question, Ledger(cluster));
  const GroupExplanation& group = explanation.groups.at(0);
  EXPECT_EQ(group.unplaced, group.nomad_then.coalesced_failures + 1);
  EXPECT_TRUE(explanation.blocked());
}

TEST_P(Recorded, IsCountedAsNomadCountedIt) {
  const Question question = QuestionOf(GetParam());
  const Cluster cluster = StateOf(GetParam());
  const GroupExplanation group = Explain(question, Ledger(cluster)).groups.at(0);
  Metric then = group.nomad_then;
  // Nomad tells the reason of the first node of a class only.
  if (std::string(GetParam()) == "class-ineligible") {
    const std::string constraint = "${attr.driver.java.version} version >= 25";
    then.constraint_filtered[constraint] += then.constraint_filtered["computed class ineligible"];
    then.constraint_filtered.erase("computed class ineligible");
  }
  const Metric& now = group.nomad_now;
  EXPECT_EQ(now.nodes_evaluated, then.nodes_evaluated);
  EXPECT_EQ(now.nodes_filtered, then.nodes_filtered);
  EXPECT_EQ(now.nodes_exhausted, then.nodes_exhausted);
  EXPECT_EQ(now.constraint_filtered, then.constraint_filtered);
  EXPECT_EQ(now.dimension_exhausted, then.dimension_exhausted);
  EXPECT_EQ(now.class_filtered, then.class_filtered);
  EXPECT_EQ(now.class_exhausted, then.class_exhausted);
  EXPECT_EQ(now.nodes_available, then.nodes_available);
  EXPECT_EQ(now.coalesced_failures, then.coalesced_failures);
}

// The lines of `nomad job run` in cli/CASE.cli.txt, whose order is random.
TEST_P(Recorded, NomadsTextIsPrintedAsNomadPrintsIt) {
  const Question question = QuestionOf(GetParam());
  std::vector<std::string> printed;
  bool inside = false;
  for (const absl::string_view line :
       absl::StrSplit(Read(absl::StrCat("cli/", GetParam(), ".cli.txt")), '\n')) {
    if (absl::StrContains(line, "finished with status")) inside = true;
    if (absl::StrContains(line, "waiting for additional capacity")) break;
    if (inside && absl::StartsWith(line, "      * ")) printed.emplace_back(line.substr(8));
  }
  ASSERT_FALSE(printed.empty());
  EXPECT_THAT(MetricLines(question.evaluation->failed.at("jenkins-agent")),
              ::testing::UnorderedElementsAreArray(printed));
}

void ExpectGolden(const std::string& name, const std::string& text) {
  const std::string file = absl::StrCat("golden/", name);
  if (std::getenv("UPDATE_GOLDEN") != nullptr) {
    std::ofstream(absl::StrCat(kDir, "/", file)) << text;
  }
  EXPECT_EQ(text, Read(file));
}

TEST_P(Recorded, IsExplainedAsInTheGoldenFile) {
  const Cluster cluster = StateOf(GetParam());
  const Explanation explanation = Explain(QuestionOf(GetParam()), Ledger(cluster));
  ExpectGolden(absl::StrCat(GetParam(), ".txt"), ExplanationText(explanation, {}));
}

INSTANTIATE_TEST_SUITE_P(Every, Recorded,
                         ::testing::Values("memory", "cpu", "cores", "disk", "memory-and-cpu",
                                           "missing-driver", "constraint", "constraint-class",
                                           "datacenter", "static-port", "distinct-hosts",
                                           "node-ineligible", "no-node-eligible",
                                           "class-ineligible"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Explained, JsonHasEveryNumber) {
  const Cluster cluster = StateOf("memory");
  ExpectGolden("memory.json", ExplanationJson(Explain(QuestionOf("memory"), Ledger(cluster))));
}

TEST(Explained, ATerminalGetsBars) {
  const Cluster cluster = StateOf("memory");
  const Explanation explanation = Explain(QuestionOf("memory"), Ledger(cluster));
  const std::string text = ExplanationText(explanation, {.terminal = true});
  EXPECT_THAT(text, ::testing::HasSubstr("█"));
  EXPECT_THAT(text, ::testing::HasSubstr("\x1b[1m"));
  // Not where they would make lines wrap.
  const std::string wide = ExplanationText(explanation, {.terminal = true, .width = 200});
  EXPECT_EQ(wide, text);
  const std::string narrow = ExplanationText(explanation, {.terminal = true, .width = 80});
  EXPECT_THAT(narrow, ::testing::Not(::testing::HasSubstr("█")));
  EXPECT_THAT(narrow, ::testing::HasSubstr("Short by"));
}

TEST(Explained, WhatOthersNamedCannotSteerATerminal) {
  Cluster cluster = StateOf("missing-driver");
  for (Node& node : cluster.nodes) node.drivers["jenkins-agent"] = {true, false, "a\x1b]0;b\x07\n"};
  const Explanation explanation = Explain(QuestionOf("missing-driver"), Ledger(cluster));
  const std::string text = ExplanationText(explanation, {});
  EXPECT_THAT(text, ::testing::HasSubstr("is unhealthy: a?]0;b"));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

TEST(Explained, AnEvaluationOfAPurgedJobIsNotTheNewest) {
  const Question question = QuestionOf("static-port");
  EXPECT_EQ(question.evaluation->status, "blocked");
  EXPECT_FALSE(question.evaluation->failed.empty());
}

TEST(Explained, AllThatWaitsIsSummed) {
  std::vector<Explanation> explanations;
  std::vector<Job> jobs;
  const Cluster cluster = StateOf("memory");
  const Ledger ledger(cluster);
  for (const char* name : {"memory", "cpu", "memory-and-cpu", "constraint"}) {
    const Question question = QuestionOf(name);
    jobs.push_back(question.job);
    explanations.push_back(Explain(question, ledger));
  }
  const Demand demand = SumDemand(explanations, jobs, cluster);
  EXPECT_EQ(demand.unplaced, 5);
  EXPECT_EQ(demand.amounts.memory_mb, 6500 + 512 + 2 * 4096 + 512);
  EXPECT_EQ(demand.without_node, 1);
  EXPECT_EQ(demand.fits_now, 2);     // nothing of it is placed in this state
  EXPECT_EQ(demand.offer.count, 2);  // 6500 MB, and 512 MB with 3200 MHz, do not go together
  ExpectGolden("all-blocked.txt", DemandText(demand));
  ExpectGolden("all-blocked.json", DemandJson(demand));
}

TEST(Json, WhatIsNoJsonIsAnErrorWithoutItsText) {
  const auto nodes = ParseNodes("[{\"ID\":\"secret\"");
  ASSERT_FALSE(nodes.ok());
  EXPECT_THAT(std::string(nodes.status().message()), ::testing::HasSubstr("no JSON at byte"));
  EXPECT_THAT(std::string(nodes.status().message()),
              ::testing::Not(::testing::HasSubstr("secret")));
  EXPECT_FALSE(ParseNodes("{}").ok());
  EXPECT_FALSE(ParseJob("[]").ok());
  EXPECT_TRUE(ParseJob("{\"TaskGroups\":null,\"Datacenters\":7}").ok());
}

TEST(Json, APolicyForEveryNamespaceIsTold) {
  const auto reads = [](const char* rule) {
    return PolicyReadsEveryNamespace(absl::StrCat("{\"RulesJSON\":{\"Namespaces\":[", rule, "]}}"))
        .value();
  };
  EXPECT_TRUE(reads(R"({"Name":"*","Policy":"read","Capabilities":null})"));
  EXPECT_TRUE(reads(R"({"Name":"*","Policy":"","Capabilities":["list-jobs","read-job"]})"));
  EXPECT_FALSE(reads(R"({"Name":"ci","Policy":"read","Capabilities":null})"));
  EXPECT_FALSE(reads(R"({"Name":"*","Policy":"deny","Capabilities":null})"));
}

}  // namespace
}  // namespace jenkins_agent::nomad
