// The API through HTTP: a fake Nomad that answers with what a real one answered
// (tests/data/placement), and refuses what a real one refuses only with ACLs.
#include "driver/nomad/reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/nomad/environment.h"
#include "driver/nomad/plan_check.h"
#include "driver/nomad/print.h"
#include "tests/support/status_matchers.h"
#include "tests/tools/fake_controller.h"

namespace jenkins_agent::nomad {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string Read(const std::string& name) {
  std::ifstream file(absl::StrCat(RECORDED_DIR, "/", name));
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

class ReaderTest : public ::testing::Test {
 protected:
  ReaderTest()
      : server_([this](const std::string& path, const FakeController::Send& send) {
          send(Respond(path));
        }) {
    Endpoint endpoint;
    endpoint.url = absl::StrCat("http://127.0.0.1:", server_.port());
    endpoint.token = "the-token";
    client_ = Client::Create(endpoint).value();
  }

  // The first rule whose beginning matches; a body beginning with a number is a status.
  void Rule(const std::string& beginning, const std::string& answer) {
    rules_.insert(rules_.begin(), {beginning, answer});
  }
  void ServeCase(const std::string& name) {
    const std::string job = absl::StrCat("/v1/job/ask-", name);
    const std::string dir = absl::StrCat("cases/", name, "/");
    Rule(absl::StrCat(job, "?"), Read(dir + "job.json"));
    Rule(absl::StrCat(job, "/evaluations"), Read(dir + "evaluations.json"));
    Rule(absl::StrCat(job, "/summary"), Read(dir + "summary.json"));
    Rule(absl::StrCat(job, "/plan"), "{\"FailedTGAllocs\":null}");
    Rule("/v1/nodes", Read("cluster/nodes.json"));
    Rule("/v1/nodes?filter=", "[]");
    Rule("/v1/node/", Read("cluster/node-a.json"));
    Rule("/v1/allocations", Read("cluster/allocations.json"));
    Rule("/v1/operator/scheduler/configuration", Read("cluster/scheduler-configuration.json"));
    Rule("/v1/acl/policies", "400 ACL support disabled");
  }
  std::string Requests() const {
    std::string all;
    for (const std::string& request : server_.requests()) all += request;
    return all;
  }

  std::vector<std::pair<std::string, std::string>> rules_;
  std::map<std::string, std::string> next_tokens_;  // by whole path
  std::string headers_;                             // of each answer
  FakeController server_;
  std::unique_ptr<Client> client_;

 private:
  std::string Respond(const std::string& path) const {
    for (const auto& [beginning, answer] : rules_) {
      if (!absl::StartsWith(path, beginning)) continue;
      if (answer.empty() || answer[0] < '1' || answer[0] > '9') {
        const auto token = next_tokens_.find(path);
        return FakeController::Answer(
            "200 OK",
            token == next_tokens_.end()
                ? headers_
                : absl::StrCat("X-Nomad-NextToken: ", token->second, "\r\n"),
            answer);
      }
      return FakeController::Answer(absl::StrCat(answer.substr(0, 3), " X"), headers_,
                                    answer.substr(4));
    }
    return FakeController::Answer("404 Not Found", "", "not found");
  }
};

TEST_F(ReaderTest, AJobIsExplainedWithWhatIsRead) {
  ServeCase("memory");
  Reader reader(*client_);
  const auto subject = reader.Find("ask-memory");
  ASSERT_OK(subject);
  const auto question = reader.Ask(*subject, 0);
  ASSERT_OK(question);
  EXPECT_EQ(question->queued.at("jenkins-agent"), 1);
  const auto cluster = reader.ReadCluster({question->job});
  ASSERT_OK(cluster);
  EXPECT_EQ(cluster->nodes.size(), 3u);
  EXPECT_EQ(cluster->allocations.size(), 7u);
  EXPECT_THAT(reader.warnings(), IsEmpty());
  Explanation explanation = Explain(*question, Ledger(*cluster));
  CheckRemedies(question->job, reader, explanation.groups[0]);
  EXPECT_EQ(explanation.groups[0].remedies[0].check, Check::kPlaces);
  // Nothing of this job is about a node's attributes.
  EXPECT_THAT(Requests(), Not(HasSubstr("/v1/node/")));
  EXPECT_THAT(Requests(), HasSubstr("X-Nomad-Token: the-token"));
  EXPECT_THAT(Requests(),
              HasSubstr("/v1/allocations?resources=true&task_states=false&namespace=%2A"));
}

TEST_F(ReaderTest, WhatIsReallyUsedIsReadFromTheClients) {
  ServeCase("memory");
  Rule("/v1/client/stats?node_id=", R"({"CPUTicksConsumed":1234.5,"AllocDirStats":{"Used":7340032},
      "Memory":{"Total":8589934592,"Available":8053063680,"Used":1}})");
  Rule("/v1/client/allocation/", R"({"ResourceUsage":{"CpuStats":{"TotalTicks":70},
      "MemoryStats":{"RSS":3145728,"Usage":9437184,"Measured":["RSS","Usage"]}}})");
  Rule("/v1/client/allocation/079e14b1", "500 Unknown allocation");  // it has just ended
  Reader reader(*client_);
  const auto question = reader.Ask({"ask-memory", "default", ""}, 0);
  ASSERT_OK(question);
  const auto cluster = reader.ReadCluster({question->job});
  ASSERT_OK(cluster);
  GroupExplanation group = Explain(*question, Ledger(*cluster)).groups[0];
  reader.AddUse(2, group);
  const auto used = [](const NodeReport& node) {
    std::vector<std::optional<int64_t>> amounts;
    for (const Figure& figure : node.figures) amounts.push_back(figure.in_use);
    return amounts;
  };
  EXPECT_THAT(used(group.nodes[0]), ElementsAre(1234, 512, 7));
  EXPECT_THAT(used(group.nodes[2]), ElementsAre(std::nullopt, std::nullopt, std::nullopt));
  for (const Holder& holder : group.holders) {
    EXPECT_EQ(holder.in_use, holder.allocation.rfind("079e14b1", 0) == 0
                                 ? std::nullopt
                                 : std::optional<int64_t>(3));
  }
}

TEST_F(ReaderTest, ANodesOwnPageIsReadWhenAConstraintIsAboutIt) {
  ServeCase("constraint");
  Reader reader(*client_);
  const auto question = reader.Ask({"ask-constraint", "default", ""}, 0);
  ASSERT_OK(question);
  const auto cluster = reader.ReadCluster({question->job});
  ASSERT_OK(cluster);
  for (const Node& node : cluster->nodes) EXPECT_TRUE(node.has_details) << node.name;
}

TEST_F(ReaderTest, ListsAreReadPageByPage) {
  next_tokens_["/v1/evaluations?status=blocked&namespace=%2A&per_page=500"] = "t2";
  Rule("/v1/evaluations", R"([{"JobID":"a","Namespace":"ns"}])");
  Rule("/v1/evaluations?status=blocked&namespace=%2A&per_page=500&next_token=t2",
       R"([{"JobID":"b","Namespace":"ns"}])");
  const auto blocked = Reader(*client_).Blocked("");
  ASSERT_OK(blocked);
  ASSERT_EQ(blocked->size(), 2u);
  EXPECT_EQ((*blocked)[1].job, "b");
  const auto of_prefix = Reader(*client_).Blocked("b");
  ASSERT_OK(of_prefix);
  EXPECT_EQ(of_prefix->size(), 1u);
}

TEST_F(ReaderTest, WhatIsNotNomadIsToldFromNomad) {
  headers_ = "Content-Type: text/html; charset=utf-8\r\n";
  for (const char* answer : {"<html>", "502 <html>", "403 <html>"}) {
    Rule("/v1/job/", answer);
    const absl::Status page = Reader(*client_).Find("j").status();
    EXPECT_EQ(page.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(page.message()),
                HasSubstr("job j: a web page comes, not an answer of Nomad's API (HTTP status "));
  }
  headers_ = "Location: http://127.0.0.1:1/\r\n";
  Rule("/v1/job/", "302 ");
  EXPECT_THAT(std::string(Reader(*client_).Find("j").status().message()),
              HasSubstr("leads to another address (HTTP status 302), which is not followed"));
}

TEST_F(ReaderTest, WhatFailedForGoodIsToldFromWhatIsTriedAgain) {
  Rule("/v1/job/j/allocations", R"([
      {"TaskGroup":"g","JobVersion":2,"ClientStatus":"failed","DesiredStatus":"run"},
      {"TaskGroup":"g","JobVersion":2,"ClientStatus":"failed","DesiredStatus":"run",
       "NextAllocation":"a1"},
      {"TaskGroup":"g","JobVersion":2,"ClientStatus":"failed","DesiredStatus":"run",
       "FollowupEvalID":"e1"},
      {"TaskGroup":"g","JobVersion":2,"ClientStatus":"failed","DesiredStatus":"stop"},
      {"TaskGroup":"g","JobVersion":1,"ClientStatus":"failed","DesiredStatus":"run"},
      {"TaskGroup":"h","JobVersion":2,"ClientStatus":"running","DesiredStatus":"run"}])");
  Question question;
  question.job.id = "j";
  question.job.name_space = "ci";
  question.job.version = 2;
  question.job.groups.resize(2);
  question.job.groups[0].name = "g";
  question.job.groups[1].name = "h";
  question.job.groups[0].reschedules = true;
  Reader(*client_).AddGivenUp(question);
  EXPECT_EQ(question.given_up, (std::map<std::string, int64_t>{{"g", 1}}));
  const Cluster cluster;
  const std::string text = ExplanationText(Explain(question, Ledger(cluster)), {});
  EXPECT_THAT(text, HasSubstr("1 allocation failed, and Nomad tries no more: the tries of the"));
  EXPECT_THAT(text, HasSubstr("then nomad job eval -namespace=ci -force-reschedule j.\n"));
  // Nomad forces nothing where the job wants no tries.
  question.job.groups[0].reschedules = false;
  EXPECT_THAT(ExplanationText(Explain(question, Ledger(cluster)), {}),
              HasSubstr("allows no other try. nomad alloc status says why; then stop the job"));
  // Of a job that is stopped nothing is to be tried.
  question.given_up.clear();
  question.job.stopped = true;
  Reader(*client_).AddGivenUp(question);
  EXPECT_TRUE(question.given_up.empty());
}

TEST_F(ReaderTest, WhoMayNotReadEvaluationsIsToldTheRight) {
  Rule("/v1/evaluations", "403 Permission denied");
  EXPECT_THAT(std::string(Reader(*client_).Blocked("").status().message()),
              HasSubstr("evaluations (the token needs read-job): Permission denied"));
}

TEST_F(ReaderTest, APageThatIsNoJsonEndsTheListAndTheClientGoesOn) {
  Rule("/v1/evaluations", "no list");
  next_tokens_["/v1/evaluations?status=blocked&namespace=%2A&per_page=500"] = "t2";
  const auto blocked = Reader(*client_).Blocked("");
  EXPECT_EQ(blocked.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(blocked.status().message()),
              HasSubstr("evaluations: the answer is no JSON"));
  // The second page was on its way.
  Rule("/v1/evaluations", R"([{"JobID":"a","Namespace":"ns"}])");
  next_tokens_.clear();
  ASSERT_OK(Reader(*client_).Blocked(""));
}

TEST_F(ReaderTest, WithoutTheRightToReadNodesItSaysWhichRightIsMissing) {
  ServeCase("memory");
  Rule("/v1/nodes", "403 Permission denied");
  const auto cluster = Reader(*client_).ReadCluster({});
  EXPECT_EQ(cluster.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(cluster.status().message()), HasSubstr("node:read"));
}

TEST_F(ReaderTest, WithoutTheRightToReadTheJobItSaysWhichRightIsMissing) {
  Rule("/v1/job/", "403 Permission denied");
  const auto subject = Reader(*client_).Find("j");
  EXPECT_EQ(subject.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(subject.status().message()),
              HasSubstr("read-job in namespace default): Permission denied"));
}

TEST_F(ReaderTest, HiddenNamespacesAreSaid) {
  ServeCase("memory");
  Rule("/v1/acl/policies", "[]");
  Rule("/v1/acl/token/self", R"({"Type":"client","Policies":["ci"]})");
  Rule("/v1/acl/policy/ci", R"({"RulesJSON":{"Namespaces":[{"Name":"ci","Policy":"read"}]}})");
  Rule("/v1/operator/scheduler/configuration", "403 Permission denied");
  Reader reader(*client_);
  ASSERT_OK(reader.ReadCluster({}));
  ASSERT_EQ(reader.warnings().size(), 2u);
  EXPECT_THAT(reader.warnings()[0], HasSubstr("operator:read"));
  EXPECT_THAT(reader.warnings()[1], HasSubstr("the most that there can be"));
}

TEST_F(ReaderTest, ATokenThatSeesAllIsToldNothing) {
  ServeCase("memory");
  Rule("/v1/acl/policies", "[]");
  Rule("/v1/acl/token/self", R"({"Type":"client","Policies":["ci","all"]})");
  Rule("/v1/acl/policy/all", R"({"RulesJSON":{"Namespaces":[{"Name":"*","Policy":"read"}]}})");
  Reader reader(*client_);
  ASSERT_OK(reader.ReadCluster({}));
  EXPECT_THAT(reader.warnings(), IsEmpty());
  Rule("/v1/acl/token/self", R"({"Type":"management"})");
  Reader management(*client_);
  ASSERT_OK(management.ReadCluster({}));
  EXPECT_THAT(management.warnings(), IsEmpty());
}

TEST_F(ReaderTest, ARemedyThatMayNotBePlannedIsMarked) {
  ServeCase("memory");
  Rule("/v1/job/ask-memory/plan", "403 Permission denied");
  Reader reader(*client_);
  const auto question = reader.Ask({"ask-memory", "default", ""}, 0);
  ASSERT_OK(question);
  const auto cluster = reader.ReadCluster({question->job});
  ASSERT_OK(cluster);
  Explanation explanation = Explain(*question, Ledger(*cluster));
  CheckRemedies(question->job, reader, explanation.groups[0]);
  EXPECT_EQ(explanation.groups[0].remedies[0].check, Check::kUnchecked);
  EXPECT_THAT(explanation.groups[0].remedies[0].check_text, HasSubstr("may not plan"));
}

TEST_F(ReaderTest, ARemedyThatNomadDoesNotPlaceIsMarked) {
  ServeCase("memory-and-cpu");
  Rule("/v1/job/ask-memory-and-cpu/plan", Read("cases/memory-and-cpu/plan.json"));
  Reader reader(*client_);
  const auto question = reader.Ask({"ask-memory-and-cpu", "default", ""}, 0);
  ASSERT_OK(question);
  GroupExplanation group;
  group.group = "jenkins-agent";
  group.unplaced = 2;
  group.remedies.emplace_back().change = JobChange{.group = "jenkins-agent"};
  CheckRemedies(question->job, reader, group);
  EXPECT_EQ(group.remedies[0].check, Check::kPlacesNone);
  EXPECT_EQ(group.remedies[0].check_text, "2 would still wait");
}

TEST_F(ReaderTest, ANameThatIsNeitherJobNorEvaluationIsAnErrorThatNamesTheNamespace) {
  const auto subject = Reader(*client_).Find("no-such-job");
  EXPECT_EQ(subject.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(subject.status().message()), HasSubstr("namespace default"));
}

TEST_F(ReaderTest, AnEvaluationIsFoundByTheBeginningOfItsId) {
  Rule("/v1/evaluations?prefix=30d5", R"([{"ID":"30d58b90","JobID":"j","Namespace":"ci"}])");
  Rule("/v1/evaluations?prefix=aaaa", R"([{"ID":"aaaa1"},{"ID":"aaaa2"}])");
  const auto subject = Reader(*client_).Find("30D5");
  ASSERT_OK(subject);
  EXPECT_EQ(subject->job, "j");
  EXPECT_EQ(subject->name_space, "ci");
  EXPECT_EQ(Reader(*client_).Find("aaaa").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ReaderTest, TheTokenIsInNoMessage) {
  Rule("/v1/job/", "500 the server is upset");
  const auto subject = Reader(*client_).Find("j");
  EXPECT_THAT(std::string(subject.status().message()), HasSubstr("the server is upset"));
  EXPECT_THAT(std::string(subject.status().message()), Not(HasSubstr("the-token")));
}

TEST(PlanBody, ChangesWhatTheRemedyNames) {
  const std::string job = R"({"Datacenters":["dc1"],"Constraints":[{"LTarget":"${a}","Operand":"=",
    "RTarget":"b"}],"TaskGroups":[{"Name":"g","Count":3,"EphemeralDisk":{"SizeMB":300},
    "Networks":[{"ReservedPorts":[{"Label":"p","Value":80}],"DynamicPorts":null}],
    "Tasks":[{"Name":"t","Resources":{"CPU":100,"MemoryMB":200,"SecretsMB":null}}]}]})";
  JobChange change{.group = "g"};
  change.tasks["t"].memory_mb = 150;
  change.disk_mb = 100;
  change.count = 2;
  change.add_datacenter = "dc2";
  change.drop_constraint = "${a} = b";
  change.dynamic_port = "p";
  const auto body = PlanBody(job, change);
  ASSERT_OK(body);
  EXPECT_EQ(*body,
            R"({"Diff":false,"Job":{"Constraints":[],"Datacenters":["dc1","dc2"],"TaskGroups":[)"
            R"({"Count":2,"EphemeralDisk":{"SizeMB":100},"Name":"g","Networks":[{"DynamicPorts":)"
            R"([{"Label":"p","Value":0}],"ReservedPorts":[]}],"Tasks":[{"Name":"t","Resources":)"
            R"({"CPU":100,"MemoryMB":150,"SecretsMB":null}}]}]}})");
  EXPECT_FALSE(PlanBody("[]", change).ok());
  EXPECT_FALSE(PlanBody("{}", change).ok());
}

TEST(Environment, IsReadAsNomadsCliReadsIt) {
  std::map<std::string, std::string> variables = {{"NOMAD_ADDR", "https://nomad.example:4646/"},
                                                  {"NOMAD_TOKEN", "t"},
                                                  {"NOMAD_NAMESPACE", "ci"},
                                                  {"NOMAD_REGION", "eu"},
                                                  {"NOMAD_CACERT", "/ca.pem"},
                                                  {"NOMAD_SKIP_VERIFY", "1"}};
  const auto get = [&variables](const char* name) { return variables[name]; };
  auto endpoint = EndpointFromEnvironment(get);
  ASSERT_OK(endpoint);
  EXPECT_EQ(endpoint->url, "https://nomad.example:4646");
  EXPECT_EQ(endpoint->name_space, "ci");
  EXPECT_TRUE(endpoint->skip_verify);
  variables["NOMAD_ADDR"] = "https://me:secret@nomad.example:4646/nomad@ci/";
  endpoint = EndpointFromEnvironment(get);
  ASSERT_OK(endpoint);
  EXPECT_EQ(endpoint->url, "https://me:secret@nomad.example:4646/nomad@ci");
  EXPECT_EQ(endpoint->shown, "https://nomad.example:4646/nomad@ci");
  variables["NOMAD_ADDR"] = "unix:///alloc/secrets/api.sock";
  endpoint = EndpointFromEnvironment(get);
  ASSERT_OK(endpoint);
  EXPECT_EQ(endpoint->shown, "unix:///alloc/secrets/api.sock");
  EXPECT_EQ(endpoint->unix_socket, "/alloc/secrets/api.sock");
  variables["NOMAD_ADDR"] = "nomad.example:4646";
  EXPECT_FALSE(EndpointFromEnvironment(get).ok());
  variables.clear();
  EXPECT_EQ(EndpointFromEnvironment(get)->url, "http://127.0.0.1:4646");
  EXPECT_EQ(EndpointFromEnvironment(get)->shown, "http://127.0.0.1:4646 (NOMAD_ADDR is not set)");
}

}  // namespace
}  // namespace jenkins_agent::nomad
